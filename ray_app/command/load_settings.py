"""What every command shares: settings from YAML, environment and `--dotted.option`; exit codes; one-line errors.

    def main(settings: IterateSettings) -> int: ...
    if __name__ == "__main__":
        leave(run_command(IterateSettings, main))

Later sources win: defaults, the YAML file named by `--config`, the environment (`STE_TRAIN__LR=1e-6`), the
command line (`--train.lr 1e-6`). Unknown keys are errors that name the nearest known key.
Exit codes: 0 done, 2 bad input or settings (one line, no traceback), 1 failure, 130 Ctrl-C, 143 SIGTERM (`stopping`).
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from ray_app.base.settings_parts import CommandSettings
from ray_app.command.reference import help_text, section_of
from ray_app.command.switches import add_argument
from ray_app.errors import InputError, RunError, first_line
from ray_app.system.output import outliving_readers
from ray_app.system.stopping import ending, interrupted, stoppable

S = TypeVar("S", bound=CommandSettings)
ENVIRONMENT, OPTION = "environment: ", "--"  # what stands before a setting's name, by where its value came from


def load_settings(cls: type[S], argv: Sequence[str]) -> S:
    """The settings of one command. Raises InputError (one line) for a missing file, an unknown key, a bad value."""
    arguments, config = _take_config(list(argv))
    layers: list[tuple[str, dict[str, Any]]] = [(f"{config}: ", _read_yaml(config))] if config else []
    try:
        environment = EnvSettingsSource(cls)()
    except SettingsError as fault:
        raise InputError(f"environment: {first_line(fault)}") from fault
    layers += [(ENVIRONMENT, environment), (OPTION, _command_line(cls, arguments))]
    merged: dict[str, Any] = {}
    for place, layer in layers:
        _merge(merged, _by_present_names(cls, layer, place))
    try:
        return _build(cls, merged)
    except ValidationError as fault:
        raise InputError(_one_line(cls, fault, layers)) from fault


def _by_present_names(section: type[BaseModel], values: dict[str, Any], place: str) -> dict[str, Any]:
    """One place's settings with older names replaced, so that a later place wins whichever name it uses."""
    renamed = dict(values)
    for name, value in values.items():
        field = section.model_fields.get(name)
        inner = section_of(field.annotation) if field else None
        if inner is not None and isinstance(value, dict):
            renamed[name] = _by_present_names(inner, value, f"{place}{name}.")
    if not hasattr(section, "older_names"):
        return renamed
    try:
        found: dict[str, Any] = section.older_names(renamed)
    except ValueError as fault:
        raise InputError(f"{place.removesuffix('.')}: {fault}") from fault
    return found


def run_command(cls: type[S], main: Callable[[S], int], argv: Sequence[str] | None = None) -> int:
    """Load the settings, run `main`, and turn how it ends into an exit code."""
    with outliving_readers(), stoppable():
        try:
            arguments = sys.argv[1:] if argv is None else argv
            if (section := asked_for_help(arguments)) is not None:
                print(help_text(cls, program(cls, sys.argv[0]), section))
                return 0
            _start_logging(os.environ.get("STE_LOG_LEVEL", "INFO"))
            return main(load_settings(cls, arguments))
        except BaseException as fault:
            if interrupted(fault):
                return ending()
            if isinstance(fault, InputError):
                print(f"error: {fault}", file=sys.stderr)
                return 2
            if isinstance(fault, RunError):
                print(f"failed: {fault}", file=sys.stderr)
            elif isinstance(fault, Exception):
                traceback.print_exc()
            else:
                raise
            return 1


def asked_for_help(arguments: Sequence[str]) -> str | None:
    """The section that `--help` or `-h` asks for, "" for the command itself; None where neither is there."""
    for index, argument in enumerate(arguments):
        name, _, section = argument.partition("=")
        if name in ("--help", "-h"):
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            return (section or ("" if following.startswith("-") else following)).lstrip("-").rstrip(".…")
    return None


def program(cls: type[Any], started_as: str) -> str:
    """How this command was called: by the name that an installed package has, or as a module."""
    name = Path(started_as).name
    return name if name.startswith("ste-") else f"python -m ray_app.{cls.__name__.removesuffix('Settings').lower()}"


def leave(code: int) -> NoReturn:
    """End this process with `code`, with all that it printed written out.

    The interpreter's own tear-down is left out: Ray keeps native threads after `ray.shutdown()`, and one that runs into
    C++ statics being destroyed ends finished work with a segmentation fault. It was seen once at the end of a test run;
    the core file of a Ray worker shows how: its io thread logs while `exit` destroys the loggers.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a reader that is gone (`… | head`) wants no more
            stream.flush()
    os._exit(code)


def _start_logging(level: str) -> None:
    try:
        logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("aiobotocore").setLevel(logging.WARNING)  # says anew for every client where its keys are
    except ValueError as fault:
        raise InputError(f"STE_LOG_LEVEL: {fault}") from fault


def _build(cls: type[S], values: dict[str, Any]) -> S:
    class Only(cls):  # type: ignore[valid-type,misc]  # known when it runs
        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, **_: Any) -> tuple[Any, ...]:
            return (init_settings,)

    built = Only(**values)
    return typing.cast(S, built)


def _take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise InputError("--config needs a file")
            return arguments[:index] + arguments[index + 2 :], Path(arguments[index + 1])
        if argument.startswith("--config="):
            return arguments[:index] + arguments[index + 1 :], Path(argument.split("=", 1)[1])
    return arguments, None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"config file {path} does not exist")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"config file {path}{where} is not YAML: {getattr(fault, 'problem', fault)}") from fault
    if not isinstance(values, dict):
        raise InputError(f"config file {path} holds no settings")
    odd = next((key for key in values if not isinstance(key, str)), None)
    if odd is not None:
        raise InputError(f"config file {path}: {odd!r} is not the name of a setting")
    return {key: _own_copies(inner) for key, inner in values.items()}


def _own_copies(value: Any) -> Any:
    """The same tree with nothing shared: an alias (`judge: *model`) is the very object of its anchor in PyYAML, and an
    option that changes one role would change every role with that anchor.
    """
    if isinstance(value, dict):
        return {key: _own_copies(inner) for key, inner in value.items()}
    return [_own_copies(inner) for inner in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-6 as a string; settings mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    __import__("re").compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _command_line(cls: type[S], arguments: list[str]) -> dict[str, Any]:
    arguments = _repeat_flags(cls, arguments)
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(
            cls,
            cli_parse_args=arguments,
            cli_exit_on_error=False,
            add_argument_method=add_argument,
        )
        return source()
    except SettingsError as fault:
        text = str(fault).removeprefix("error parsing CLI: ")
        unknown = [a for a in arguments if a.startswith("--") and a.split("=")[0] in text]
        hint = _nearest_option(cls, unknown[0].split("=")[0]) if unknown and "unrecognized" in text else ""
        raise InputError(f"{text.splitlines()[0]}{hint}") from fault


def _repeat_flags(cls: type[BaseModel], arguments: list[str]) -> list[str]:
    """`--benchmark a b` as `--benchmark a --benchmark b`: the settings library takes one value a flag."""
    lists = {f"--{name}" for name, field in cls.model_fields.items() if typing.get_origin(field.annotation) is list}
    out: list[str] = []
    flag = ""
    for argument in arguments:
        if argument.startswith("--"):
            flag = argument if argument in lists else ""
        elif flag and out[-1] != flag:
            out.append(flag)
        out.append(argument)
    return out


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def known_options(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted setting of a tree."""
    names: list[str] = []
    for name, field in cls.model_fields.items():
        names.append(prefix + name)
        inner = section_of(field.annotation)
        if inner is not None:
            names += known_options(inner, f"{prefix}{name}.")
    return names


def _nearest_option(cls: type[BaseModel], option: str) -> str:
    near = difflib.get_close_matches(option.lstrip("-"), known_options(cls), n=1)
    return f"; did you mean --{near[0]}?" if near else ""


def _one_line(cls: type[BaseModel], fault: ValidationError, layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    errors = fault.errors()
    error = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    # Union members appear in a location as their class name; a user knows only the keys.
    name = ".".join(str(part) for part in error["loc"])
    where = _place(error["loc"], layers)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known_options(cls), n=1)
        return f"{where.removesuffix(OPTION)}unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"{where.removesuffix(OPTION)}setting {name} is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error.get("input"))
    value = f" (got {shown if len(shown) < 80 else shown[:77] + '...'})" if error["type"] != "value_error" else ""
    return f"{where if name else ''}{name + ': ' if name else ''}{message}{value}"


def _place(location: Sequence[int | str], layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Where a value came from: the last place that gives it; of what is given nowhere, the config file."""
    given = [place for place, layer in layers if location and _value_at(layer, location) is not None]
    config = [place for place, _ in layers if place not in (ENVIRONMENT, OPTION)]
    return (given or config or [""])[-1]


def _value_at(layer: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        layer = layer.get(part) if isinstance(layer, dict) else None
    return layer
