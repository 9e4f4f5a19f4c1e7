"""Which folders are candidates, and what a commit leaves behind."""

import json

import pytest

from ray_app.errors import InputError
from ray_app.train.candidates import Candidate, folder_of, list_candidates, place
from ray_app.train.job import Job
from ray_app.train.selection import Score, best
from ray_app.train.settings import TrainSettings
from ray_app.train.state import clear_fault, read_fault, write_fault
from ray_app.train.trainer import TrainResult, Validation, _absolute, commit, judge_candidates, read_record


def candidate(work, step):
    from fsspec.core import url_to_fs

    path = folder_of(work, step)
    found = Candidate(step, 1.0, 100 * step, 0.5, path)
    filesystem, root = url_to_fs(path)
    filesystem.makedirs(root, exist_ok=True)
    filesystem.pipe_file(f"{root}/model.safetensors", b"weights %d" % step)
    filesystem.pipe_file(f"{root}/candidate.json", json.dumps(found.__dict__).encode())
    return found


def result(candidates, selected):
    return TrainResult(
        rows=4, steps=3, epochs=1.0, tokens=9, seconds=1.0, losses=[1.0], metrics=[{"loss": 1.0}],
        candidates=candidates, selected=selected,
    )  # fmt: skip


@pytest.fixture(params=["disk", "memory"])
def place_of_work(request, tmp_path):
    return str(tmp_path) if request.param == "disk" else f"memory://{tmp_path.name}"


def test_only_complete_folders_are_candidates(tmp_path):
    work = str(tmp_path)
    good = candidate(work, 2)
    candidate(work, 3)
    (tmp_path / "candidates/step-000003/candidate.json").unlink()  # killed before the marker
    (tmp_path / "candidates/step-000004.partial").mkdir()
    (tmp_path / "candidates/step-000004.partial/candidate.json").write_text("{}")  # killed before the move
    assert list_candidates(work) == [good]


def test_a_commit_keeps_last_and_best_and_is_found_again(place_of_work):
    from fsspec.core import url_to_fs

    work, checkpoint = f"{place_of_work}/work", f"{place_of_work}/checkpoint"
    candidates = [candidate(work, step) for step in (1, 2, 3)]
    done = result(candidates, selected=2)
    commit(done, checkpoint, "fit-a", work)
    filesystem, root = url_to_fs(checkpoint)
    assert filesystem.cat_file(f"{root}/model.safetensors") == b"weights 2"
    assert [c.step for c in list_candidates(work)] == [3]
    assert read_record(checkpoint, "fit-a") == done
    assert read_record(checkpoint, "fit-b") is None


def test_a_checkpoint_selected_by_another_validation_is_refused(place_of_work):
    work, checkpoint = f"{place_of_work}/work", f"{place_of_work}/checkpoint"
    done = result([candidate(work, step) for step in (1, 2)], selected=1)
    commit(done, checkpoint, "fit-a", work, "validation-a")
    assert read_record(checkpoint, "fit-a", "validation-a") == done
    assert read_record(checkpoint, "fit-b", "validation-b") is None
    with pytest.raises(InputError, match="other validation settings"):
        read_record(checkpoint, "fit-a", "validation-b")


class Judge:
    """Scores by step; dies at one of them, as a killed driver would."""

    def __init__(self, accuracies, dies_at=None):
        self.accuracies, self.dies_at, self.judged = accuracies, dies_at, []

    def __call__(self, one):
        if one.step == self.dies_at:
            raise KeyboardInterrupt
        self.judged.append(one.step)
        return Score(one.step, self.accuracies[one.step], 0.5, 10)


def job(work):
    return Job(TrainSettings(), "m", "n", 0, [], work, 3, 3)


def test_scores_of_a_killed_call_are_used_again_but_not_those_of_another_validation(place_of_work):
    for step in (1, 2, 3):
        candidate(place_of_work, step)
    accuracies = {1: 0.5, 2: 0.75, 3: 0.7}
    with pytest.raises(KeyboardInterrupt):
        judge_candidates(job(place_of_work), Validation(Judge(accuracies, dies_at=3), "a"), 0)
    again = Judge(accuracies)
    scores = judge_candidates(job(place_of_work), Validation(again, "a"), 0)
    assert again.judged == [3]
    assert best(scores).step == 2
    other = Judge(accuracies)
    judge_candidates(job(place_of_work), Validation(other, "b"), 0)
    assert other.judged == [1, 2, 3]


def test_candidates_after_the_fall_are_not_judged(place_of_work):
    for step in (1, 2, 3):
        candidate(place_of_work, step)
    judge = Judge({1: 0.5, 2: 0.4, 3: 0.9})
    assert [s.step for s in judge_candidates(job(place_of_work), Validation(judge), 1)] == [1, 2]


def test_placing_again_after_a_kill_replaces_the_folder(place_of_work):
    from fsspec.core import url_to_fs

    work, checkpoint = f"{place_of_work}/work", f"{place_of_work}/checkpoint"
    place(candidate(work, 1), checkpoint)
    place(candidate(work, 2), checkpoint)
    filesystem, root = url_to_fs(checkpoint)
    assert filesystem.cat_file(f"{root}/model.safetensors") == b"weights 2"


def test_a_fault_is_kept_until_the_next_call(place_of_work):
    assert read_fault(place_of_work) is None
    write_fault(place_of_work, "memory", "out of it")
    assert read_fault(place_of_work) == ("memory", "out of it")
    clear_fault(place_of_work)
    assert read_fault(place_of_work) is None


@pytest.mark.parametrize(
    ("given", "meant"), [("/a/../b", "/b"), ("file:///a/b", "/a/b"), ("s3://bucket/run", "s3://bucket/run")]
)
def test_the_place_of_a_fit_is_a_path_or_a_stores_address(given: str, meant: str) -> None:
    assert _absolute(given) == meant
