"""Boolean options: `--x`, `--no-x`, `--x true`, `--x=false`, and `--x null` where the setting may be left open.

The settings library offers one of two: flags without values, or values without flags. What a value means is read by
pydantic, as in YAML and in the environment (true/false, yes/no, on/off, 1/0 in upper or lower case).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

BOOLEANS = ("bool", "{bool,null}")  # what the settings library shows as the value of `bool` and of `bool | None`


class Switch(argparse.Action):
    """One boolean option with its `--no-` form. Its value may be left out; the next option is never taken as one."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        negative = [f"--no-{name.removeprefix('--')}" for name in option_strings]
        super().__init__([*option_strings, *negative], dest, nargs="?", **more)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if option_string in self.option_strings[len(self.option_strings) // 2 :]:
            if values is not None:
                parser.error(f"{option_string} takes no value (got {values!r})")
            values = "false"
        value = "true" if values is None else str(values)
        # The settings library knows null in lower case only; pydantic takes the rest as it comes.
        setattr(namespace, self.dest, "null" if value.lower() == "null" else value)


def add_argument(parser: Any, *names: str, **options: Any) -> argparse.Action:
    """`ArgumentParser.add_argument` as CliSettingsSource calls it, of a parser or a group; booleans become switches."""
    if options.get("metavar") in BOOLEANS:
        options["action"] = Switch
    action: argparse.Action = parser.add_argument(*names, **options)
    return action
