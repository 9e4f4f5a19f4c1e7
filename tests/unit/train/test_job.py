"""The fit's identity: what changes weights changes it, what does not does not."""

from ray_app.train.job import fit_id, rows_of
from ray_app.train.settings import TrainSettings


def identity(files=("h1",), seed=0, template=None, revision=None, origin="", **settings):
    return fit_id(TrainSettings(**settings), "owner/model", files, seed, template or {}, revision, origin)


def test_what_changes_the_weights_changes_the_identity():
    base = identity()
    changed = [
        identity(lr=2e-6),
        identity(seed=1),
        identity(files=("h2",)),
        identity(template={"thinking": False}),
        identity(revision="v2"),
        identity(recipe="dpo"),
        identity(workers=4),
        identity(start="previous"),
        identity(dpo={"nll_mean": "pairs"}),
        identity(origin="the training before"),
        identity(origin="another training before"),
    ]
    assert len({base, *changed}) == 12


def test_operation_and_tracking_do_not():
    assert identity(max_failures=9, timeout_s=5, tracking={"to": []}, log_every=7) == identity()


def test_rows_of_pairs():
    assert rows_of((0, 3), 2) == [0, 1, 6, 7]
    assert rows_of((0, 3), 1) == [0, 3]
