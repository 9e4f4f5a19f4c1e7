"""`--help`, `--help SECTION` and docs/settings.md: all three are made from the settings tree itself. Pure.

python -m ray_app.command.reference > docs/settings.md    (a test holds the file to it)
"""

from __future__ import annotations

import shutil
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ray_app.base.settings_parts import CommandSettings
from ray_app.errors import InputError

NARROWEST, WIDEST, NAME_WIDTH = 60, 110, 26
ALL = "all"


@dataclass(frozen=True)
class Setting:
    """One line of the tree. `section` is the class of a section, None for a single value."""

    name: str
    values: str
    default: str
    description: str
    section: type[BaseModel] | None
    inner: BaseModel | None  # the section's default, where it has one: its values are the defaults of the lines below


def settings_of(cls: type[BaseModel], defaults: BaseModel | None = None, prefix: str = "") -> Iterator[Setting]:
    """The settings of one section, in the order of its class; `defaults` is what its parent sets it to."""
    for name, field in cls.model_fields.items():
        value = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
        section = section_of(field.annotation)
        inner = value if isinstance(value, BaseModel) else None
        default = "required" if defaults is None and field.is_required() else shown(value)
        yield Setting(prefix + name, values_of(field), default, described(field, section), section, inner)


def described(field: FieldInfo, section: type[BaseModel] | None) -> str:
    """A field's own words; of a section that has none, the first sentence of its class."""
    lines = (section.__doc__ or "").strip().splitlines() if section is not None else []
    return field.description or (lines[0].split(". ")[0].rstrip(".") if lines else "")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The class of a section, also of one that may be null."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return next((found for part in typing.get_args(annotation) if (found := section_of(part))), None)
    return None


def values_of(field: FieldInfo) -> str:
    """What may be given, in a user's words."""
    return _values(field.annotation)


def _values(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin is typing.Union or isinstance(annotation, types.UnionType):
        return " | ".join(_values(part) for part in parts)
    if origin is dict:
        return "mapping"
    if origin in (list, tuple):
        return f"list of {_values(parts[0])}"
    names = {bool: "true | false", int: "integer", float: "number", str: "text", type(None): "null"}
    return names.get(annotation, "section" if section_of(annotation) else str(annotation))


def shown(value: Any) -> str:
    """A default as YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(shown(part) for part in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    return '""' if value == "" else str(value)


def help_text(cls: type[BaseModel], program: str, section: str = "", width: int | None = None) -> str:
    """The help of a command, or of one section of its settings (`train.lora`), or of all. Raises InputError for a
    section that there is not.
    """
    columns = width or min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    if section == ALL:
        found = list(_tree(cls, None, ""))
        return "\n\n".join(_block(title, rows, columns) for title, rows in found)
    if section:
        target, defaults = _section(cls, section)
        return _block(section, list(settings_of(target, defaults, f"{section}.")), columns)
    rows = list(settings_of(cls))
    single, sections = [row for row in rows if row.section is None], [row for row in rows if row.section]
    first = (cls.__doc__ or "").strip().splitlines()[0].replace("`", "")
    takes = cls.stands_alone if issubclass(cls, CommandSettings) else ""
    lines = [textwrap.fill(first, columns), "", f"usage: {program} {takes}[--config FILE] [--NAME VALUE …]", ""]
    lines += [_line("--config", "YAML file of settings; environment and options come after it", columns)]
    lines += [_setting_line(row, columns) for row in single]
    if sections:
        lines += ["", f"sections (--help {sections[0].name} tells one, --help {ALL} all; docs/settings.md):"]
    lines += [_line(f"--{row.name}.…", row.description, columns) for row in sections]
    return "\n".join(lines)


def _section(cls: type[BaseModel], dotted: str) -> tuple[type[BaseModel], BaseModel | None]:
    defaults: BaseModel | None = None
    for name in dotted.split("."):
        rows = {row.name: row for row in settings_of(cls, defaults)}
        row = rows.get(name)
        if row is None or row.section is None:
            known = ", ".join(key for key, row in rows.items() if row.section)
            raise InputError(f"--help {dotted}: no section {name!r}; there are: {known or 'none'}, {ALL}")
        cls, defaults = row.section, row.inner
    return cls, defaults


def _tree(cls: type[BaseModel], defaults: BaseModel | None, prefix: str) -> Iterator[tuple[str, list[Setting]]]:
    rows = list(settings_of(cls, defaults, prefix))
    yield prefix.removesuffix("."), [row for row in rows if row.section is None]
    for row in rows:
        if row.section is not None:
            yield from _tree(row.section, row.inner, f"{row.name}.")


def _block(title: str, rows: list[Setting], width: int) -> str:
    lines = [f"{title}:"] if title else []
    return "\n".join(lines + [_setting_line(row, width) for row in rows])


def _setting_line(row: Setting, width: int) -> str:
    if row.section is not None:
        return _line(f"--{row.name}.…", row.description, width)
    said = {"required": " [required]", "null": "", "false": "", '""': ""}.get(row.default, f" [default {row.default}]")
    choices = {part for part in row.values.split(" | ")} - {"text", "integer", "number", "true", "false", "null"}
    values = f" ({row.values.removesuffix(' | null')})" if choices else ""
    return _line(f"--{row.name}", f"{row.description}{values}{said}", width)


def _line(name: str, text: str, width: int) -> str:
    space = " " * NAME_WIDTH
    first = f"  {name:<{NAME_WIDTH - 2}}" if len(name) < NAME_WIDTH - 2 else f"  {name}\n{space}"
    return first + textwrap.fill(text, width, initial_indent=space, subsequent_indent=space).lstrip()


def markdown(commands: dict[str, type[BaseModel]]) -> str:
    """docs/settings.md: a table a section, shared sections (engines, sampling) once."""
    parts = [INTRODUCTION]
    told: dict[tuple[type[BaseModel], str], str] = {}
    for command, cls in commands.items():
        parts.append(f"## `{command}`\n\n{_table(cls, None, '', command, told)}")
    return "\n\n".join(parts) + "\n"


def _table(
    cls: type[BaseModel],
    defaults: BaseModel | None,
    prefix: str,
    command: str,
    told: dict[tuple[type[BaseModel], str], str],
) -> str:
    rows = list(settings_of(cls, defaults, prefix))
    lines = ["| setting | values | default | what it is |", "| --- | --- | --- | --- |"]
    below = []
    for row in rows:
        default = f"`{row.default}`" if row.section is None else "" if row.inner is not None else f"`{row.default}`"
        lines.append(f"| `{row.name}` | {_cell(row.values)} | {default} | {_cell(row.description)} |")
        if row.section is None:
            continue
        key = (row.section, repr(row.inner))
        title = f"### `{row.name}` ({command.removeprefix('python -m ray_app.')})"
        if key in told:
            below.append(f"{title}\n\nAs [`{told[key]}`](#{anchor(told[key])}).")
        else:
            told[key] = title.removeprefix("### ").replace("`", "")
            below.append(f"{title}\n\n{_table(row.section, row.inner, f'{row.name}.', command, told)}")
    return "\n\n".join(["\n".join(lines), *below])


def anchor(title: str) -> str:
    """The anchor that GitHub and mkdocs give a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


INTRODUCTION = """# Settings

Made from the settings tree by `python -m ray_app.command.reference`; a test keeps it so.

Later sources win: defaults, the YAML file of `--config`, the environment (`STE_TRAIN__LR=1e-6`), the command line
(`--train.lr 1e-6`). A boolean option takes `true` or `false`, none at all (true), or its `--no-` form. `--help SECTION`
tells the same on a terminal."""


def _commands() -> dict[str, type[BaseModel]]:
    from ray_app.command.settings import EvaluateSettings, JudgeSettings
    from ray_app.loop.config import IterateSettings

    return {
        "python -m ray_app.iterate": IterateSettings,
        "python -m ray_app.judge": JudgeSettings,
        "python -m ray_app.evaluate": EvaluateSettings,
    }


if __name__ == "__main__":
    print(markdown(_commands()), end="")
