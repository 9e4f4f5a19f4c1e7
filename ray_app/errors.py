"""The two ways a command ends badly on purpose: exit code 2 (the input) and exit code 1 (the run)."""


class InputError(Exception):
    """Bad input or a bad setting. The message is one line that names the thing; the command exits 2."""


class RunError(Exception):
    """The run itself cannot go on (an empty training set, a lost lease). One line; the command exits 1."""


def last_line(fault: BaseException) -> str:
    """The last line of what a fault says, where Ray names the cause; the name of its kind where it says nothing."""
    lines = str(fault).strip().splitlines()
    return lines[-1].strip() if lines else type(fault).__name__


def first_line(fault: BaseException) -> str:
    """The first line of what a fault says; the name of its kind where it says nothing."""
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
