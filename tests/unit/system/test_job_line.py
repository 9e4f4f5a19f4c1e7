"""The job's line: written over Ray's own record of a running job, and over no other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from ray.dashboard.modules.job.common import JobInfo, JobInfoStorageClient, JobStatus
from ray.experimental import internal_kv

from ray_app.system import job_line

Store = dict[str, bytes]
KEY = JobInfoStorageClient.JOB_DATA_KEY.format(job_id="mine")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Stands for the cluster's store; this process is the job `mine`."""
    kept: Store = {}
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key, namespace: kept.get(key))

    def put(key: str, value: bytes, overwrite: bool, namespace: str) -> None:
        kept[key] = value

    monkeypatch.setattr(internal_kv, "_internal_kv_put", put)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "mine"}}))
    monkeypatch.setattr(job_line, "stopped", lambda: False)  # whatever other tests have done in this process
    job_line.job_id.cache_clear()
    yield kept
    job_line.job_id.cache_clear()


def record(status: JobStatus) -> JobInfo:
    return JobInfo(status=status, entrypoint="python -m ray_app.iterate", start_time=7, metadata={"a": "b"})


def test_a_running_job_has_the_line_and_keeps_the_rest(store: Store) -> None:
    before = record(JobStatus.RUNNING)
    store[KEY] = json.dumps(before.to_json()).encode()
    job_line.tell("pairs: 3 of 4 rows")
    after = JobInfo.from_json(json.loads(store[KEY]))
    assert after.message == "pairs: 3 of 4 rows"
    assert {**after.to_json(), "message": before.message} == before.to_json()


@pytest.mark.parametrize("status", [JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.PENDING])
def test_a_job_that_does_not_run_is_left_alone(store: Store, status: JobStatus) -> None:
    store[KEY] = json.dumps(record(status).to_json()).encode()
    before = dict(store)
    job_line.tell("too late")
    assert store == before


def test_a_stopped_process_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store[KEY] = json.dumps(record(JobStatus.RUNNING).to_json()).encode()
    before = dict(store)
    monkeypatch.setattr(job_line, "stopped", lambda: True)
    job_line.tell("stopped")
    assert store == before


@pytest.mark.parametrize("given", ["", "no json", "[]", "{}", '{"metadata": {}}'])
def test_what_is_no_job_has_no_line(store: Store, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", given)
    job_line.job_id.cache_clear()
    job_line.tell("nobody reads it")
    assert store == {}


def test_a_store_of_another_kind_is_no_failure(store: Store) -> None:
    store[KEY] = b"not a record"
    job_line.tell("a line")
    assert store[KEY] == b"not a record"
