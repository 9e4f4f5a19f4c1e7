"""The line of progress in Ray's dashboard: the status message of this command's own job.

Ray 2.60 gives a job no public way to say how far it is. Its record in the cluster's store has a `message`, though,
which the dashboard's list of jobs and `ray job list` show; Ray itself writes it when a job starts and ends
(ray/dashboard/modules/job/common.py). It is replaced here only while the record says that the job runs and nobody has
stopped it. A command that was not submitted as a job has no such line, and no failure here is the run's.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os

from ray_app.system.stopping import stopped

log = logging.getLogger(__name__)


@functools.cache
def job_id() -> str | None:
    """The submission id under which `ray job submit` started this process; None where it did not."""
    given = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    try:
        return str(json.loads(given)["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return None


def tell(line: str) -> None:
    """Make `line` the message of this process's job, if it is one and runs."""
    job = job_id()
    if job is None or stopped():
        return
    try:
        _write(job, line)
    except Exception as fault:  # another Ray may keep its jobs elsewhere: the log has every line too
        log.debug("the job's line could not be written: %s", fault)


def _write(job: str, line: str) -> None:
    from ray._private.ray_constants import KV_NAMESPACE_JOB
    from ray.dashboard.modules.job.common import JobInfo, JobInfoStorageClient, JobStatus
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

    key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=job)
    found = _internal_kv_get(key, namespace=KV_NAMESPACE_JOB)
    record = JobInfo.from_json(json.loads(found)) if found else None
    if record is not None and record.status == JobStatus.RUNNING and not stopped():
        told = dataclasses.replace(record, message=line)
        _internal_kv_put(key, json.dumps(told.to_json()), overwrite=True, namespace=KV_NAMESPACE_JOB)
