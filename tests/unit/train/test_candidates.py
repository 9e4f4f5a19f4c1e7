"""Which folders are candidates, and what a commit leaves behind."""

import json

import pytest

from ray_app.train.candidates import Candidate, folder_of, list_candidates, place
from ray_app.train.state import clear_fault, read_fault, write_fault
from ray_app.train.trainer import TrainResult, commit, read_record


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
