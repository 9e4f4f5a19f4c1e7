"""SFT and DPO losses against their formulas, on one worker, however the rows are batched."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from ray_app.train import recipes
from ray_app.train.batches import Step
from ray_app.train.collate import collate
from ray_app.train.data import TokenRows
from ray_app.train.settings import TrainSettings

ROWS = TokenRows(
    tokens=np.arange(30, dtype=np.int32),
    offsets=np.array([0, 6, 13, 20, 30]),
    prompts=np.array([3, 3, 4, 4], dtype=np.int32),
    unit_rows=2,
)
NLL = torch.linspace(0.1, 2.0, 30, dtype=torch.float64)  # by token id: a model with no context


class Engine:
    """Stands for the model: the NLL of a target is a function of its id."""

    def __call__(self, *, batch, summed):
        nll = NLL[batch.targets]
        return nll.sum() if summed else nll


def worker(rows, tmp_path, world=1, **settings):
    made = SimpleNamespace(
        rows=rows, world=world, rank=0, engine=Engine(), device="cpu", settings=TrainSettings(**settings),
        job=SimpleNamespace(work_dir=str(tmp_path)), progress=SimpleNamespace(step=0),
    )  # fmt: skip
    return made


def row_nll(row):
    return NLL[ROWS.row(row)[ROWS.prompts[row] :]]


@pytest.mark.parametrize("split", [[(0, 1, 2, 3)], [(0,), (1, 2), (3,)]])
def test_sft_is_the_token_mean_however_split(tmp_path, split):
    rows = TokenRows(ROWS.tokens, ROWS.offsets, ROWS.prompts)
    recipe = recipes.Sft(worker(rows, tmp_path))
    recipe.begin(Step(0, (tuple(split),)))
    total = sum(float(recipe.loss(collate(rows, units, packed=True), units)[0]) for units in split)
    assert total == pytest.approx(float(torch.cat([row_nll(i) for i in range(4)]).mean()))


def test_a_share_without_rows_adds_nothing(tmp_path):
    rows = TokenRows(ROWS.tokens, ROWS.offsets, ROWS.prompts)
    recipe = recipes.Sft(worker(rows, tmp_path))
    recipe.begin(Step(0, (((0,), ()),)))
    assert float(recipe.loss(collate(rows, (), packed=True), ())[0]) == 0.0


def test_dpo_follows_its_formula(tmp_path, monkeypatch):
    reference = np.array([-5.0, -2.0, -3.0, -4.5])
    monkeypatch.setattr(recipes, "_reference", lambda _: reference)
    recipe = recipes.Dpo(worker(ROWS, tmp_path, recipe="dpo"))
    recipe.begin(Step(0, (((1, 0),),)))
    loss, parts = recipe.loss(collate(ROWS, [2, 3, 0, 1], packed=True), (1, 0))
    logps = torch.stack([-row_nll(i).sum() for i in range(4)]) - torch.tensor(reference)
    margins = 0.1 * (logps[0::2] - logps[1::2])
    nll = torch.cat([row_nll(0), row_nll(2)]).mean()
    wanted = -logsigmoid(margins).mean() + 1.5 * nll
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    assert float(parts["margin"]) == pytest.approx(float(margins.mean()), rel=1e-5)
    assert float(parts["nll"]) == pytest.approx(float(nll), rel=1e-5)


@pytest.mark.parametrize("nll_mean", ["tokens", "pairs"])
@pytest.mark.parametrize("micro", [(((0, 1),),), (((0,),), ((1,),)), (((1,),), ((0,),), ((),))])
def test_dpo_is_the_same_over_any_number_of_workers(tmp_path, monkeypatch, nll_mean, micro):
    """Uneven shares, and workers without any: their losses, averaged as DeepSpeed does, are the whole batch's."""
    monkeypatch.setattr(recipes, "_reference", lambda _: np.array([-5.0, -2.0, -3.0, -4.5]))
    settings = {"recipe": "dpo", "dpo": {"nll_mean": nll_mean}}
    uneven = TokenRows(ROWS.tokens, ROWS.offsets, np.array([1, 3, 4, 4], dtype=np.int32), unit_rows=2)
    losses = []
    for own in micro:
        recipe = recipes.Dpo(worker(uneven, tmp_path, world=len(micro), **settings))
        recipe.begin(Step(0, micro))
        for units in own:
            rows = [2 * unit + side for unit in units for side in (0, 1)]
            losses.append(float(recipe.loss(collate(uneven, rows, packed=True), units)[0]))
    nlls = [NLL[uneven.row(i)[uneven.prompts[i] :]] for i in range(4)]
    sums = [-float(nll.sum()) for nll in nlls]
    margins = [0.1 * (sums[0] + 5.0 - sums[1] - 2.0), 0.1 * (sums[2] + 3.0 - sums[3] - 4.5)]
    preference = sum(np.log1p(np.exp(-margin)) for margin in margins) / 2
    by_tokens = float(torch.cat([nlls[0], nlls[2]]).mean())
    by_pairs = float(nlls[0].mean() + nlls[2].mean()) / 2
    assert by_tokens != pytest.approx(by_pairs, rel=1e-2)
    wanted = preference + 1.5 * (by_tokens if nll_mean == "tokens" else by_pairs)
    assert sum(losses) / len(micro) == pytest.approx(wanted, rel=1e-5)
