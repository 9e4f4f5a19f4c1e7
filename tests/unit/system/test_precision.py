"""`dtype: auto`: each branch of the decision, who is asked, and a run that keeps what it was begun in."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from ray_app.engine.settings import EngineSettings
from ray_app.loop import dtypes
from ray_app.loop.config import IterateSettings
from ray_app.system import precision
from ray_app.system.precision import Decision, Device, decide, keep, processor
from ray_app.train.settings import TrainSettings

OLD = Device("cpu", "An old processor", False)
NEW = Device("cpu", "A new processor", True)
H100, T4 = Device("cuda", "NVIDIA H100", True), Device("cuda", "Tesla T4", False)


def cpuinfo(*flags: str) -> str:
    return f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 {' '.join(flags)}\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("flags", "environment", "bf16"),
    [
        ((), {}, False),
        (("avx512f", "avx512_vnni"), {}, False),
        (("avx512f", "avx512_bf16"), {}, True),
        (("amx_bf16", "amx_tile"), {}, True),
        (("avx512_bf16",), {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        (("avx512_bf16",), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        (("amx_bf16",), {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, True),
    ],
)
def test_bf16_of_a_processor(flags: tuple[str, ...], environment: dict[str, str], bf16: bool) -> None:
    assert processor(cpuinfo(*flags), environment) == Device("cpu", "Some CPU", bf16)


def test_an_unreadable_cpuinfo_is_no_bf16(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "none")
    assert precision.devices_here("cpu") == [Device("cpu", "this processor", False)]


@pytest.mark.parametrize(
    ("found", "dtype", "named"),
    [
        ([NEW], "bfloat16", "A new processor has"),
        ([OLD], "float32", "An old processor"),
        ([H100, H100], "bfloat16", "NVIDIA H100 has"),
        ([T4], "float32", "Tesla T4"),
        ([H100, T4], "float32", "Tesla T4"),
        ([H100, OLD], "float32", "An old processor"),
        ([H100, NEW], "bfloat16", "NVIDIA H100, A new processor have"),
        ([], "float32", "nothing is known"),
    ],
)
def test_bf16_where_all_that_works_has_it(found: list[Device], dtype: str, named: str) -> None:
    decision = decide(found)
    assert decision.dtype == dtype
    assert named in decision.why


def test_a_run_keeps_its_own_format_and_says_so() -> None:
    here = Decision("bfloat16", "NEW has bf16 instructions")
    assert keep(None, here) == ("bfloat16", "dtype auto: bfloat16, for NEW has bf16 instructions")
    assert keep("bfloat16", here)[0] == "bfloat16"
    dtype, line = keep("float32", here)
    assert dtype == "float32"
    assert line == "dtype auto: this run was begun in float32 and goes on in it; here it would be bfloat16"


@pytest.mark.parametrize(("capability", "bf16"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((10, 3), True)])
def test_gpus_are_asked_through_nvml(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool) -> None:
    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"GPU {handle}",
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
        nvmlDeviceGetCudaComputeCapability=lambda handle: capability,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert precision.devices_here("cuda") == [Device("cuda", "GPU 0", bf16), Device("cuda", "GPU 1", bf16)]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """One machine with an old processor and an H100; the kinds that were asked for."""
    asked: list[set[str]] = []

    def devices(kinds: set[str], grows: bool = False) -> list[Device]:
        asked.append(set(kinds))
        return [device for device in (OLD, H100) if device.kind in kinds]

    monkeypatch.setattr(precision, "devices", devices)
    return asked


def settings(**more: Any) -> IterateSettings:
    base = {"name": "x", "generator": {"model": "a/b"}, "judge": {"model": "a/b"}, "instructions": {"source": "s"}}
    return IterateSettings.model_validate({**base, **more})


@pytest.mark.parametrize(
    ("given", "gpus", "kinds", "dtype"),
    [
        ({}, 8, {"cuda"}, "bfloat16"),
        ({"train": {"use_gpu": False}}, 8, {"cuda", "cpu"}, "float32"),
        ({"train": {"use_gpu": False}, "iterations": 0}, 8, {"cuda"}, "bfloat16"),
        ({"judge": {"model": "a/b", "device": "cpu"}}, 8, {"cuda", "cpu"}, "float32"),
        ({"iterations": 0}, 0, {"cpu"}, "float32"),
    ],
)
def test_what_does_the_work_of_a_run_is_asked(
    monkeypatch: pytest.MonkeyPatch, here: list[set[str]], given: Any, gpus: int, kinds: set[str], dtype: str
) -> None:
    monkeypatch.setattr(dtypes.ray, "cluster_resources", lambda: {"GPU": float(gpus)})
    monkeypatch.setattr(dtypes.ray, "nodes", list)
    assert dtypes.decided_dtype(settings(**given), None) == dtype
    assert here == [kinds]
    assert dtypes.decided_dtype(settings(**given), "float32") == "float32"


def test_nothing_is_asked_where_nothing_is_auto(here: list[set[str]]) -> None:
    named = {"model": "a/b", "dtype": "float32"}
    assert dtypes.decided_dtype(settings(generator=named, judge=named, train={"dtype": "float32"}), None) is None
    script = {"model": "s", "kind": "scripted"}
    assert dtypes.decided_dtype(settings(generator=script, judge=script, iterations=0), None) is None
    assert here == []


def test_bf16_by_name_on_an_old_processor_is_told(here: list[set[str]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        precision.warn_if_slow("judge.dtype", "float32", "cpu")
        precision.warn_if_slow("judge.dtype", "bfloat16", "cuda")
        assert caplog.messages == []
        precision.warn_if_slow("judge.dtype", "bfloat16", "cpu")
    assert "judge.dtype: bfloat16 on An old processor, which has no bf16 instructions" in caplog.messages[0]


def test_the_older_name_of_the_trainers_format() -> None:
    assert TrainSettings().dtype == "auto"
    assert TrainSettings.model_validate({"bf16": True}).dtype == "bfloat16"
    assert TrainSettings.model_validate({"bf16": "false"}).dtype == "float32"
    assert TrainSettings.model_validate({"bf16": False, "dtype": "float32"}).dtype == "float32"
    assert "bf16" not in TrainSettings().model_dump()
    with pytest.raises(ValidationError, match="exclude each other"):
        TrainSettings.model_validate({"bf16": True, "dtype": "float32"})
    with pytest.raises(ValidationError, match="valid boolean"):
        TrainSettings.model_validate({"bf16": "maybe"})


def test_what_is_auto_takes_what_was_decided_and_what_is_named_stays() -> None:
    assert EngineSettings(model="m").decided("float32").dtype == "float32"
    assert EngineSettings(model="m", dtype="float16").decided("float32").dtype == "float16"
    assert TrainSettings().decided("bfloat16").in_bf16
    with pytest.raises(RuntimeError, match="still auto"):
        _ = TrainSettings().in_bf16


def test_a_run_of_before_there_was_auto_goes_on_as_it_was_however_often() -> None:
    """Its first continuation writes run.json anew, from which the second learns the same."""
    made = settings(train={"use_gpu": False})
    older = made.model_dump(mode="json")
    for role in ("generator", "judge"):
        older[role]["dtype"] = "bfloat16"
    del older["train"]["dtype"]
    older["train"]["bf16"] = True
    first = dtypes.with_older_dtypes(made, {"settings": older})
    assert (first.generator.dtype, first.judge.dtype, first.train.dtype) == ("bfloat16", "bfloat16", "bfloat16")
    second = dtypes.with_older_dtypes(made, {"settings": first.model_dump(mode="json")})
    assert (second.generator, second.judge, second.train) == (first.generator, first.judge, first.train)
    auto = dtypes.with_older_dtypes(made, {"settings": made.model_dump(mode="json")})
    assert (auto.judge.dtype, auto.train.dtype) == ("auto", "auto")
    assert dtypes.with_older_dtypes(made, {}) == made


def test_an_engine_that_is_no_vllm_has_the_identity_it_always_had() -> None:
    scripted = EngineSettings(model="m", kind="scripted")
    assert scripted.identity("m") == EngineSettings(model="m", kind="scripted", dtype="bfloat16").identity("m")


@pytest.mark.parametrize(
    ("named", "used"),
    [(None, [0, 1, 2]), ("", [0, 1, 2]), ("1", [1]), ("0, 2", [0, 2]), ("GPU-b", [1]), ("GPU-a1,GPU-c", [0, 2])],
)
def test_hidden_gpus_decide_nothing(named: str | None, used: list[int]) -> None:
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    uuids = ["GPU-a1b2", "GPU-b1b2", "GPU-c1b2"]
    assert [i for i, uuid in enumerate(uuids) if precision._may_use(i, uuid, environment)] == used
