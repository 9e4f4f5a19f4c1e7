"""Ctrl-C and SIGTERM: how a command stops, whatever it is doing.

    listen()                       first of all; until `stoppable` nothing is begun, and a signal ends the process
    with stoppable(): …            the first signal raises `Stopped` in the main thread
    with last_act(act): …          what must not outlive the process; `act` may run twice, and in any thread
    stopped(), at_most(seconds)    for what closes itself on the way out
    code = ending()                the last acts, the one line, the exit code
    give_up(line)                  from any thread: the same way out, with a failure's line and exit code 1

What is open closes itself on the way out. The main thread may be where no exception reaches it, or closing may take too
long; so a thread hears the signals too, and ends the process by itself: in 9 s, in time for `ray job stop`, or at a
second signal. Its exit code is the same.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_S = 8.0  # for the way out
LAST_S = 1.0  # for the last acts, where the way out took too long
AGAIN_S = 0.5  # wrappers (timeout, uv run) pass a signal on that the terminal or they themselves also send to the group
IN_A_JOB, JOB_STOP = "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_STOP_WAIT_TIME_S"  # set by Ray, and read by `ray job stop`
CONTINUES = "the same command continues this run"
Act = Callable[[], None]


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came. Libraries that let Ctrl-C through let this through."""


class _State:
    """What this process has heard, and what it still has to do."""

    def __init__(self) -> None:
        self.limit_s = STOP_S
        self.number: int | None = None  # the first signal
        self.deadline = math.inf
        self.working = self.raised = self.told = False
        self.failed: str | None = None  # why the command gives up, where nobody has asked it to stop
        self.acts: list[Act] = []
        self.words = CONTINUES


_state = _State()
_uninstall: contextlib.ExitStack | None = None


def listen() -> None:
    """Hear SIGINT (unless whoever started this command wants it ignored) and SIGTERM. A second call changes nothing."""
    global _state, _uninstall
    if _uninstall is not None or threading.current_thread() is not threading.main_thread():
        return
    _state, _uninstall = _State(), contextlib.ExitStack()
    _state.limit_s = limit_s(os.environ)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _uninstall.callback(signal.signal, number, signal.signal(number, _hear))
    _uninstall.callback(_silence())
    _uninstall.callback(logging.disable, logging.root.manager.disable)
    _uninstall.callback(setattr, sys, "stdout", sys.stdout)
    # Python runs its handlers in the main thread, between two bytecodes; these bytes come at once, whatever that thread
    # is doing, and whoever has replaced the handlers.
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _uninstall.callback(theirs.close)
    _uninstall.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False))
    threading.Thread(target=_watch, args=(ours, _state), daemon=True, name="stopping").start()


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Around `ray.init`, which makes SIGTERM a SystemExit: inside, that is a stop; after it, SIGTERM is ours again."""
    try:
        yield
    except SystemExit as fault:
        if fault.code != signal.SIGTERM:
            raise
        raise _begun(signal.SIGTERM) from None
    finally:
        if _uninstall is not None:
            signal.signal(signal.SIGTERM, _hear)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A signal inside raises `Stopped`; the block's own `except` is to end with `ending`."""
    global _uninstall
    early = _uninstall is not None
    listen()
    _state.working = True
    try:
        yield
    finally:
        if _uninstall is not None:
            _uninstall.close()
            _uninstall = None
        if early:  # only the process's own end is left, and the usual way to die is right for that
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def last_act(act: Act) -> Iterator[None]:
    """Where the block is left by a stop, `act` runs before the process ends."""
    _state.acts.append(act)
    try:
        yield
    finally:
        if not stopped():
            _state.acts.remove(act)


def say_at_end(words: str) -> None:
    """What the one line is to say instead of `CONTINUES`."""
    _state.words = words


def stopped() -> bool:
    """Whether a signal has come."""
    return _state.number is not None


def give_up(line: str) -> None:
    """Stop the command as SIGTERM does, wherever its main thread is, with `failed: line` and exit code 1. From any
    thread; does nothing outside `stoppable`, or where a stop is under way.
    """
    if _uninstall is None or not _state.working or stopped():
        return
    _state.failed = line
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)


def at_most(seconds: float) -> float:
    """`seconds`; after a stop no more than half of what is left, for there is more to be closed."""
    return max(0.0, min(seconds, (_state.deadline - time.monotonic()) / 2))


def interrupted(fault: BaseException | None) -> bool:
    """Whether a stop was what went wrong first: what it interrupts may fail to clean up with an error of its own."""
    while fault is not None and not stopped() and not isinstance(fault, KeyboardInterrupt):
        fault = fault.__context__
    return fault is not None


def ending() -> int:
    """Do what is left to be done, say the one line, and return the exit code: 130 or 143."""
    _run_acts(at_most(STOP_S))
    if not _state.told:
        _state.told = True
        print(_line(), file=sys.stderr, flush=True)
    return _code()


def limit_s(environment: Mapping[str, str]) -> float:
    """Seconds for the way out. `ray job stop` sends SIGKILL 3 s after SIGTERM, unless its cluster says otherwise."""
    if IN_A_JOB not in environment:
        return STOP_S
    try:
        given = float(environment.get(JOB_STOP, "3"))
    except ValueError:
        given = 3.0
    return max(0.5, min(STOP_S, given - 1.2 * LAST_S))


def _hear(number: int, frame: FrameType | None) -> None:
    fault = _begun(number)
    if not _state.working:
        _say_and_exit()
    if not _state.raised:
        _state.raised = True
        raise fault


def _begun(number: int) -> Stopped:
    # A stop is no failure, and what it breaks is no news: log lines, and what Ray prints of its actors' ends.
    logging.disable()
    sys.stdout = io.StringIO()
    _note(number)
    return Stopped()


def _note(number: int) -> None:
    if _state.number is None:
        _state.number, _state.deadline = number, time.monotonic() + _state.limit_s


def _watch(signals: socket.socket, state: _State) -> None:
    """Ends the process at the deadline or at a second signal; ends itself when nobody listens any more."""
    first: float | None = None
    while True:
        signals.settimeout(None if first is None else max(0.01, state.deadline - time.monotonic()))
        try:
            numbers = signals.recv(64)
        except TimeoutError:
            break
        if not numbers:
            return
        number = next((number for number in numbers if number in SIGNALS), None)
        if number is not None and first is None:
            first = time.monotonic()
            _note(number)
        elif number is not None and first is not None and time.monotonic() - first > AGAIN_S:
            break
    _run_acts(LAST_S)
    _say_and_exit()


def _run_acts(seconds: float) -> None:
    """All at once: one that hangs keeps no other from its end."""
    threads = [threading.Thread(target=act, daemon=True) for act in _state.acts]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _say_and_exit() -> None:
    """Without Python's streams, whose locks the main thread may hold."""
    if not _state.told:
        _state.told = True
        cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # a bar of progress hides it
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}{_line()}\n".encode())
    os._exit(_code())


def _line() -> str:
    if _state.failed is not None:
        return f"failed: {_state.failed}"
    return f"{'stopped' if _state.number == signal.SIGTERM else 'interrupted'}; {_state.words}"


def _code() -> int:
    if _state.failed is not None:
        return 1
    return 128 + (_state.number or signal.SIGINT)


def _silence() -> Act:
    """After a stop, what breaks in callbacks and threads, where nobody can catch it, is no news; returns the undo."""
    hooks = sys.unraisablehook, threading.excepthook

    def unraisable(fault: Any) -> None:
        if not stopped():
            hooks[0](fault)

    def in_thread(fault: Any) -> None:
        if not stopped():
            hooks[1](fault)

    def restore() -> None:
        sys.unraisablehook, threading.excepthook = hooks

    sys.unraisablehook, threading.excepthook = unraisable, in_thread
    return restore
