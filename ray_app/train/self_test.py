"""Does our path train this family right? A tiny random copy of the seed's class, against transformers' own eager run.

    python -m ray_app.train.self_test MODEL      tries one model (a folder or hub id), prints what would be used

Loss and gradients of two rows packed into one line, and padded, are compared with each row alone under transformers'
eager attention. What differs is not used: packing falls back to padded rows (linear, convolution and state-space layers
mix neighbours), a kernel to the next one; where nothing agrees the seed is refused, before any engine starts.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_app.errors import InputError, first_line
from ray_app.train import attention
from ray_app.train.collate import collate
from ray_app.train.data import TokenRows
from ray_app.train.head import output_scale
from ray_app.train.model import JudgeModel, fresh_buffers, prepare, restore_buffers
from ray_app.train.settings import TrainSettings
from ray_app.train.tiny import VOCABULARY, text_config, tiny_config

log = logging.getLogger(__name__)
LENGTHS, PROMPTS = (23, 40), (9, 1)  # tokens of the rows, and of their prompts: the loss is on the rest
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 4e-2}  # relative, of loss and gradients


@dataclass(frozen=True)
class Way:
    """One way to run the attention: how rows are put together, and transformers' name of the kernel."""

    batching: str
    kernel: str

    @property
    def packed(self) -> bool:
        return self.batching == "packed"


@dataclass(frozen=True)
class Outcome:
    """What is used, and what is said of it (empty where the settings' first choice is right)."""

    batching: str
    attention: str  # as in `train.attention`
    note: str = ""


def ways(settings: TrainSettings) -> list[tuple[str, Way]]:
    """(`train.attention`, way) in the order in which they are tried. A named kernel is the only one."""
    if settings.attention != "auto":
        return [(settings.attention, Way(settings.batching, attention.choose(settings)))]
    first = ("auto", Way(settings.batching, attention.choose(settings)))
    others = [("varlen", Way("packed", "ste_varlen"))] if settings.use_gpu and settings.in_bf16 else []
    others += [("sdpa", Way("packed", "ste_sdpa"))] if settings.batching == "packed" else []
    padded = [(name, Way("bucketed", name)) for name in ("sdpa", "eager")]
    found = [first, *others, *padded]
    return [one for index, one in enumerate(found) if one[1] not in [way for _, way in found[:index]]]


def self_test(config: Any, settings: TrainSettings) -> Outcome:
    """The first way whose loss and gradients are transformers' own. `settings.dtype` is decided.

    Raises InputError, naming the model's type and what differs, where there is none; with a named kernel where that
    one is not right.
    """
    rows, tiny = _rows(), _tiny(config, settings.sequence_length)
    device = torch.device("cuda") if settings.use_gpu else torch.device("cpu")
    dtype = torch.bfloat16 if any(way.kernel in attention.HALF_ONLY for _, way in ways(settings)) else torch.float32
    try:
        wanted = {kind: reference(tiny, rows, device, kind) for kind in {torch.float32, dtype}}
    except Exception as fault:
        raise InputError(_untried(config, fault)) from fault
    said: list[str] = []
    for name, way in ways(settings):
        kind = torch.bfloat16 if way.kernel in attention.HALF_ONLY else torch.float32
        differs = compare(tiny, settings, way, rows, device, wanted[kind], kind)
        if differs is None:
            return Outcome(way.batching, name, _note(config, said, name, way))
        said.append(f"{way.batching} rows with {way.kernel.removeprefix(attention.PREFIX)}: {differs}")
    raise InputError(f"judge.model: a {config.model_type} cannot be trained right: {'; '.join(said)}")


def _note(config: Any, said: list[str], name: str, way: Way) -> str:
    if not said:
        return ""
    return f"{config.model_type}: train.attention {name}, train.batching {way.batching} is used ({'; '.join(said)})"


def _tiny(config: Any, longest: int) -> Any:
    small = tiny_config(config, longest)
    try:
        _build(small, "eager", torch.float32)
    except Exception as fault:
        raise InputError(_untried(config, fault)) from fault
    return small


def _untried(config: Any, fault: Exception) -> str:
    return f"judge.model: training a {config.model_type} cannot be tried with a small copy: {first_line(fault)[:200]}"


def _rows() -> TokenRows:
    """Two rows of random tokens, the same ones every time."""
    drawn = np.random.default_rng(0)
    return TokenRows(
        tokens=drawn.integers(3, VOCABULARY, sum(LENGTHS)).astype(np.int32),
        offsets=np.cumsum([0, *LENGTHS]).astype(np.int64),
        prompts=np.array(PROMPTS, dtype=np.int32),
    )


def _build(config: Any, kernel: str, dtype: torch.dtype) -> Any:
    """The tiny model, with the same weights every time."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    own = copy.deepcopy(text_config(config))  # a config keeps the kernel of the first model that was made of it
    lm = AutoModelForCausalLM.from_config(own, dtype=dtype, attn_implementation=kernel)
    assert lm.config._attn_implementation == kernel, lm.config._attn_implementation
    with torch.no_grad():
        for name, parameter in sorted(lm.named_parameters()):
            # Far from the usual start: a factor that is left out, or a cap, is to show. Norms and sinks stay near one.
            spread = 0.3 if parameter.ndim > 1 else 0.1
            drawn = torch.empty(parameter.shape, dtype=torch.float32).normal_(0, spread, generator=_seeded(name))
            parameter.add_(drawn.to(parameter)) if parameter.ndim == 1 else parameter.copy_(drawn.to(parameter))
    return lm.eval()


def _seeded(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(name.encode()[-6:], "big"))


@dataclass(frozen=True)
class Found:
    """Summed loss and the gradient of every parameter, by the name it has in the model."""

    loss: float
    gradients: dict[str, torch.Tensor]


def reference(config: Any, rows: TokenRows, device: torch.device, dtype: torch.dtype) -> Found:
    """transformers' own: eager attention, one row at a time, its own logits."""
    lm = _build(config, "eager", dtype).to(device)
    total = torch.zeros((), device=device)
    for index in range(len(rows)):
        ids = torch.from_numpy(rows.row(index).astype(np.int64))[None].to(device)
        logits = lm(input_ids=ids, use_cache=False).logits[0].float()
        prompt = int(rows.prompts[index])
        total = total + torch.nn.functional.cross_entropy(logits[prompt - 1 : -1], ids[0, prompt:], reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]  # PyTorch says no types of it
    return Found(float(total.detach()), _gradients(lm))


def compare(
    config: Any,
    settings: TrainSettings,
    way: Way,
    rows: TokenRows,
    device: torch.device,
    wanted: Found,
    dtype: torch.dtype,
) -> str | None:
    """What differs from `wanted` when the rows are trained our way; None where nothing does."""
    dropped = dropout_of(config)
    if dropped and way.kernel in (*attention.OURS, "flex_attention"):
        return f"it has no dropout, and this model's attention has {dropped:g}"  # both are off in this comparison
    try:
        found = ours(config, settings, way, rows, device, dtype)
    except Exception as fault:  # whatever a family does with arguments it does not know
        return first_line(fault)[:160]
    return next(differences(found, wanted, TOLERANCE[dtype]), None)


def dropout_of(config: Any) -> float:
    """Dropout of attention weights in training."""
    part = text_config(config)
    return float(getattr(part, "attention_dropout", None) or getattr(part, "attn_pdrop", None) or 0.0)


def ours(
    config: Any, settings: TrainSettings, way: Way, rows: TokenRows, device: torch.device, dtype: torch.dtype
) -> Found:
    """Loss and gradients by the trainer's own model, head, kernels and batches; no sharding."""
    attention.register()
    lm = _build(config, way.kernel, dtype).to(device)
    kept = settings.model_copy(update={"recompute": "none", "compile": "none", "zero": settings.zero})
    prepare(lm, kept, leaves=False)
    model = JudgeModel(lm, output_scale(config))
    restore_buffers(model, fresh_buffers(text_config(config)), device)
    batch = collate(rows, range(len(rows)), packed=way.packed, kernel=way.kernel).to(device)
    loss = model(batch=batch, summed=True)
    loss.backward()
    return Found(float(loss.detach()), _gradients(lm))


def differences(found: Found, wanted: Found, tolerance: float) -> Iterator[str]:
    """What lies further apart than `tolerance`, relative to the reference. Pure."""
    if abs(found.loss - wanted.loss) > tolerance * abs(wanted.loss):
        yield f"the loss is {found.loss / wanted.loss - 1:+.2%} off"
    scale = max(float(gradient.norm()) for gradient in wanted.gradients.values())
    for name, gradient in wanted.gradients.items():
        own = found.gradients.get(name)
        if own is None:
            yield f"{name} gets no gradient"
            continue
        off = float((own - gradient).norm()) / max(float(gradient.norm()), 1e-3 * scale)
        if off > 10 * tolerance:
            yield f"the gradient of {name} is {off:.1%} off"


def _gradients(lm: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.detach().float().cpu() for n, p in lm.named_parameters() if p.grad is not None}


def main(model: str) -> int:
    """Try one model and say what would be used."""
    from transformers import AutoConfig

    settings = TrainSettings(use_gpu=torch.cuda.is_available()).decided("float32")
    try:
        outcome = self_test(AutoConfig.from_pretrained(model), settings)
    except InputError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    print(outcome.note or f"train.attention {outcome.attention}, train.batching {outcome.batching}: right")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
