"""A process is ended with all that it started, stopped or not; one that only has its number is not."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

from ray_app.engine.ending import kill_tree

PARENT = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


def test_a_stopped_process_ends_with_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGSTOP)
        born = psutil.Process(parent.pid).create_time()
        assert not kill_tree(parent.pid, born - 60), "another process had this number"
        assert parent.poll() is None
        assert kill_tree(parent.pid, born)
        assert parent.wait(60) == -signal.SIGKILL
        psutil.wait_procs([child], timeout=60)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not kill_tree(parent.pid, born)
