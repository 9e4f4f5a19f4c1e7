"""The loop as its user runs it: a config file, `python -m ray_app.iterate` as a process, and its run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS_DIR = ROOT / "configs"
DEMO = CONFIGS_DIR / "demo"

# Not the paper's settings: just enough for a 135M model on two CPU workers to take a few steps.
SMALL_TRAINING = {
    "lr": 1e-4,
    "lr_min": 1e-5,
    "warmup_steps": 1,
    "epochs": 1,
    "sequence_length": 1024,
    "tokens_per_batch": 1024,
    "recompute": "none",
    "workers": 2,
    "use_gpu": False,
    "checkpoint_every": 0,
}


def scripted(model: str = "scripted", **script: Any) -> dict[str, Any]:
    """An engine section with the scripted engine. `max_num_seqs` is small, so that a delay spreads the requests out."""
    return {"model": model, "kind": "scripted", "cpus": 0.5, "max_num_seqs": 2, "script": script}


def held(role: str, prompt: str, until: Path | None = None) -> list[str]:
    """Options with which the scripted engines of `role` answer no request whose prompt this expression finds (before
    `until` is there): the stage cannot come to its end, however slow a test is to see how far it is.
    """
    return [f"--{role}.script", json.dumps({"hold": prompt} | ({"until": str(until)} if until else {}))]


def base_settings(folder: Path) -> dict[str, Any]:
    """A loop over the demo's instructions with scripted engines and no training; one evaluation set."""
    return {
        "name": "run",
        "runs": str(folder),
        "iterations": 0,
        "ray": {"num_cpus": 4, "object_store_gib": 0.1, "dashboard": False},
        "generator": scripted(),
        "judge": scripted(),
        "prompts": {"judge": "judge_pairwise_small"},
        "instructions": {"source": str(DEMO / "instructions.jsonl"), "heldout_fraction": 0},
        "evaluation": {"validation": f"validation={DEMO / 'validation.jsonl'}", "limit": 8},
        "train": SMALL_TRAINING,
    }


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`base` with `more` on top, section by section."""
    both = dict(base)
    for key, value in more.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = merged(base[key], value) if nested else value
    return both


def _hear_interrupts() -> None:
    """A test run that a shell put in the background hands an ignored SIGINT down to the commands it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Ended:
    """A command that came to its end."""

    code: int
    output: str
    errors: str

    @property
    def one_line(self) -> str:
        """The error the user sees. Fails when there is more or less than that line, log lines aside."""
        lines = [line for line in self.errors.splitlines() if line.startswith(("error: ", "failed: "))]
        assert len(lines) == 1, self.errors
        assert "Traceback" not in self.errors, self.errors
        return lines[0]


# The trial of a seed (`ray_app.train.trial`) takes a third of a small run. The first run of a session makes it, and the
# others find it in their folder, as a command does that goes on; for other settings the product makes another one.
TRIAL = "seed_trial.json"
TRIALS = Path(tempfile.gettempdir()) / f"ste-trials-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"


def trial_of(settings: dict[str, Any]) -> Path:
    """Where the trial of runs like this one lies, once there has been one."""
    decides = {name: settings.get(name) for name in ("judge", "train", "judging", "prompts")}
    return TRIALS / f"{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]}.json"


class Loop:
    """One run folder and the command that works on it."""

    def __init__(self, folder: Path, settings: dict[str, Any], base: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.settings = merged(base_settings(folder) if base is None else base, settings)
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(self.settings))
        self.run = folder / self.settings["name"]
        self.trial, self.known_trial = self.run / TRIAL, trial_of(self.settings)
        self.prefix: list[str] = []  # of the command
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        """The command in the background, in a process group of its own. Its output goes to files: pipes would block."""
        number = len(self.processes)
        if self.known_trial.is_file() and not self.trial.exists():
            self.run.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.known_trial, self.trial)
        command = [*self.prefix, sys.executable, "-m", "ray_app.iterate", "--config", str(self.config), *options]
        with open(self.folder / f"out-{number}", "w") as out, open(self.folder / f"err-{number}", "w") as err:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(),
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )
        self.processes.append(process)
        return process

    def ended(self, process: subprocess.Popen[str], timeout: float = 800) -> Ended:
        """Wait for the end of a command."""
        code = process.wait(timeout)
        number = self.processes.index(process)
        if self.trial.is_file() and not self.known_trial.exists():
            TRIALS.mkdir(exist_ok=True)
            shutil.copy(self.trial, half := self.known_trial.with_suffix(f".{os.getpid()}"))
            half.replace(self.known_trial)
        return Ended(code, (self.folder / f"out-{number}").read_text(), (self.folder / f"err-{number}").read_text())

    def __call__(self, *options: str, timeout: float = 800) -> Ended:
        """Run the command to its end."""
        return self.ended(self.start(*options), timeout)

    def succeeds(self, *options: str, timeout: float = 800) -> Ended:
        """Run the command; it must exit 0."""
        ended = self(*options, timeout=timeout)
        assert ended.code == 0, ended.errors[-4000:]
        return ended

    def killed_when(
        self, reached: Callable[[], bool], how: signal.Signals = signal.SIGKILL, options: Sequence[str] = ()
    ) -> Ended:
        """Start the command and send its driver, and only that, a signal as soon as `reached`."""
        process = self.start(*options)
        self.wait_for(process, reached)
        os.kill(process.pid, how)
        return self.ended(process, 120)

    def wait_for(self, process: subprocess.Popen[str], reached: Callable[[], bool], timeout: float = 600) -> None:
        """Wait until `reached`. Fails when the command ends first."""
        deadline = time.monotonic() + timeout
        while not reached():
            assert process.poll() is None, f"the command ended too early: {self.ended(process)}"
            assert time.monotonic() < deadline, f"never reached: {sorted(self.files())}"
            time.sleep(0.02)

    def files(self, pattern: str = "**/*.parquet") -> dict[str, tuple[str, int]]:
        """{path in the run folder: (content hash, time of the last write)} of what matches."""
        found = {}
        for file in sorted(self.run.glob(pattern)):
            if file.is_file() and not file.name.startswith(".tmp-"):
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                found[str(file.relative_to(self.run))] = (digest, file.stat().st_mtime_ns)
        return found

    def rows(self, directory: str, prefix: str = "shard") -> list[dict[str, Any]]:
        """All rows of a table."""
        tables = [pq.read_table(file) for file in sorted((self.run / directory).glob(f"{prefix}-*.parquet"))]
        rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist() if tables else []
        return rows

    def stop(self) -> None:
        """End what is left of every command: its session, for Ray's processes have process groups of their own."""
        for process in self.processes:
            end_session(process.pid)
            process.wait(60)


def end_session(session: int) -> None:
    """Kill what is left of a command: all processes of the session that it leads."""
    for other in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getsid(other.pid) == session:
                other.kill()


def environment() -> dict[str, str]:
    """This process's environment, less what would lead the command to another cluster or other settings."""
    kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS" and not k.startswith("STE_")}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
