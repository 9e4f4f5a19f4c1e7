"""Reaching Ray: the cluster at RAY_ADDRESS (or of `ray job submit`), or a local one that is started and stopped."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import site
import socket
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.data
from ray._private.parameter import RayParams
from ray.job_config import JobConfig

from ray_app.errors import InputError, RunError, first_line
from ray_app.system import scheduling
from ray_app.system.children import end_children
from ray_app.system.cluster_settings import RaySettings
from ray_app.system.stopping import keeping_sigterm, last_act, stopped

NAMESPACE = "self-taught-evaluators"
NODE_GROUP = "ray.io/node-group"  # set by Ray from the node type that `ray up` or KubeRay gives a node
CONNECT_S = 10.0
STARTS = 3
CORE_FATAL = 3  # ray::RayLogLevel::FATAL
log = logging.getLogger(__name__)


@contextlib.contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """A connection to Ray for the length of the block. Raises InputError when the named cluster is not there."""
    # Engines that lose their actor must not live on, holding GPU memory.
    os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    _quiet_core()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; silences a warning
    # While Ray waits for an answer, it looks for signals once a second: too late for `ray job stop`, which gives three.
    os.environ.setdefault("RAY_get_check_signal_interval_milliseconds", "100")
    address = settings.address or os.environ.get("RAY_ADDRESS")
    options = {"namespace": NAMESPACE, "log_to_driver": settings.worker_logs, "logging_level": "WARNING"}
    if not (address or "").startswith("ray://"):  # the server of a Ray client makes the job, from its own ray_app
        options["job_config"] = _JobOfThisCode()
    with contextlib.ExitStack() as at_end:
        if address:
            with keeping_sigterm():
                _connect(address, settings, options)
        else:
            at_end.enter_context(scheduling.yielding())
            at_end.enter_context(last_act(end_children))
            with keeping_sigterm():
                _start_local(settings, options)
        at_end.callback(_disconnect)
        _quiet_ray_data()
        yield


def _quiet_core() -> None:
    """Ray's C++ core tells of every actor that is killed on the driver's terminal, unless its level is raised.

    It reads the level from this variable when it starts (RayLog::InitSeverityThreshold, src/ray/util/logging.cc), and
    tells that it did at the level that it has until then: INFO, so the line would open every command. No variable
    changes that one, so the level itself is raised first. What the user has set still holds.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with contextlib.suppress(OSError, ValueError):  # another Ray may name it differently: then the line is there again
        core = ctypes.CDLL(ray._raylet.__file__)
        ctypes.c_int.in_dll(core, "_ZN3ray6RayLog19severity_threshold_E").value = CORE_FATAL


def _connect(address: str, settings: RaySettings, options: dict[str, object]) -> None:
    _require_listener(address)
    runtime_env = {"working_dir": settings.working_dir} if settings.working_dir else None
    try:
        ray.init(address=address, runtime_env=runtime_env, **options)
    except (ConnectionError, ValueError) as fault:
        raise InputError(f"no Ray cluster answers at {address}: {first_line(fault)}") from fault
    log.info("using the Ray cluster at %s: %s", address, resources())


def _require_listener(address: str) -> None:
    """Raises InputError when nothing listens at HOST:PORT: Ray itself would try for a quarter of an hour."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        return  # auto, or a client address: Ray is quick to say that these are not there
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as fault:
        raise InputError(f"no Ray cluster answers at {address}: {fault}") from fault


def _start_local(settings: RaySettings, options: dict[str, object]) -> None:
    # Actors run with this process's environment: they must find ray_app wherever the command was started.
    root = Path(__file__).resolve().parents[2]
    installed = {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
    if path := python_path(root, os.environ.get("PYTHONPATH", ""), installed):
        os.environ["PYTHONPATH"] = path
    # Ray warns when it starts more worker processes than this machine has cores; ours mostly wait.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
    # Here the engines are the work: with Ray's 15 every other process of this machine would run before them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # says that the default is on
    _tell_of_cluster()
    others = [child.pid for child in psutil.Process().children()]
    for attempt in range(1, STARTS + 1):
        try:
            with _lean_node(settings):
                ray.init(
                    address="local",  # else Ray joins a cluster that `ray start` began here, and refuses `num_cpus`
                    num_cpus=settings.num_cpus or max(4, os.cpu_count() or 1),
                    object_store_memory=int(settings.object_store_gib * 2**30),
                    include_dashboard=settings.dashboard,
                    **options,
                )
            break
        except Exception as fault:  # Ray gives its own node thirty seconds, too few on a machine that does much else
            if "timed out during startup" not in str(fault):
                raise
            end_children(but=others)
            ray.shutdown()
            if attempt == STARTS:
                raise RunError(f"a local Ray did not start {STARTS} times: {first_line(fault)}") from fault
            log.warning("a local Ray did not start in time, and is started again")
    dashboard = f"; dashboard http://{ray._private.worker.get_dashboard_url()}" if settings.dashboard else ""
    log.info("started a local Ray: %s%s", resources(), dashboard)


def _tell_of_cluster() -> None:
    """Of a cluster that `ray start` began on this machine, and that is not meant as long as nobody names it."""
    address = ray._private.utils.read_ray_address()
    if not address:
        return
    with contextlib.suppress(InputError):  # a file that a cluster has left
        _require_listener(address)
        log.info("the Ray cluster at %s is not used: --ray.address %s or auto would", address, address)


def _disconnect() -> None:
    # A stopped process just ends: its local Ray is killed, a cluster ends what it ran there. There, shutting down
    # while work was under way ended the process with exit code 1 and no word, 5 times of 46.
    if not stopped():
        ray.shutdown()


def python_path(root: Path, given: str, installed: Collection[Path]) -> str:
    """PYTHONPATH with the folder that holds ray_app first, unless it is one of `installed`: Python searches those by
    itself, and on PYTHONPATH they would hide modules of the standard library. Pure.
    """
    paths = [path for path in given.split(os.pathsep) if path]
    return os.pathsep.join(paths if root in installed or str(root) in paths else [str(root), *paths])


class _JobOfThisCode(JobConfig):  # type: ignore[misc]  # Ray is untyped
    """A job whose workers search the driver's folders only where this process searches them too.

    Ray makes its workers search the working folder before all others. A console command does not search it: one that is
    started in a checkout would have its workers run the code of that checkout, and not its own.
    """

    _py_driver_sys_path: list[str]

    def _serialize(self) -> str:
        searched = {os.path.abspath(path) for path in sys.path}
        self._py_driver_sys_path = [path for path in self._py_driver_sys_path if path in searched]
        serialized: str = super()._serialize()
        return serialized


@contextlib.contextmanager
def _lean_node(settings: RaySettings) -> Iterator[None]:
    """What a local Ray needs, in settings that `ray.init` has no arguments for.

    Its agent takes any port: the default is a fixed one, and beside another Ray, or the agent that a killed one leaves
    behind for some seconds, a start would wait 3 s for it, in vain. Two processes are left out where nobody reads what
    they tell: the log monitor, which forwards workers' logs, and the autoscaler, whose state the dashboard shows.
    """
    original = RayParams.__init__
    RayParams.__init__ = functools.partialmethod(
        original,
        dashboard_agent_listen_port=0,
        include_log_monitor=settings.worker_logs,
        no_monitor=not settings.dashboard,
    )
    try:
        yield
    finally:
        RayParams.__init__ = original


def _quiet_ray_data() -> None:
    # Ray Data's own progress speaks of blocks and operators, several lines a second; ours speaks of rows and tokens.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Use 'expr' instead of 'fn'")
    # Restarts of a map actor have no other argument yet in Ray 2.60.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


def may_grow(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether more nodes may come than `ray.nodes()` shows: a launcher labels the nodes it makes. Pure."""
    return any(NODE_GROUP in (node.get("Labels") or {}) for node in nodes if node["Alive"])


def resources() -> str:
    """CPUs and GPUs of the cluster, in words."""
    total = ray.cluster_resources()
    return f"{total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
