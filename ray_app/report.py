"""Look at a run: did it learn, what from, what was thrown away, where the time went, and what to distrust.

    python -m ray_app.report runs/NAME                     writes runs/NAME/report.html, at any time of a run
    python -m ray_app.report runs/NAME --compare runs/OTHER --marks marks.jsonl --output elsewhere.html
    python -m ray_app.report runs/NAME --serve             the same over HTTP, with every row of the run
    python -m ray_app.report runs/NAME trace ID            what became of an instruction, a pair, a judgment, a verdict

The page is one file that needs no network: mail it, or put it beside a checkpoint. docs/report.md says how to read it.
"""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds, and to stop meanwhile is no failure either
    from ray_app.system.stopping import listen

    listen()

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from pydantic import Field

from ray_app.base.settings_parts import CommandSettings
from ray_app.command.load_settings import leave, run_command
from ray_app.errors import InputError


class ReportSettings(CommandSettings):
    """`python -m ray_app.report`: report.html of a run, or the lineage of one row."""

    stands_alone: ClassVar[str] = "RUN [trace ID] "

    run: str = Field(description="the run folder, or its URI; may stand alone, without --run")
    trace: str | None = Field(None, description="an id of the run: print what it came from and what came of it")
    output: str | None = Field(None, description="where the page goes; null: report.html in the run folder")
    compare: str | None = Field(None, description="another run folder, whose settings are set beside")
    serve: bool = Field(False, description="serve the page over HTTP instead, with every row of the run")
    host: str = Field(
        "127.0.0.1", description="with --serve: whom to listen to; the page shows the run to all that reach it"
    )
    port: int = Field(8266, ge=0, le=65535, description="with --serve")
    marks: str | None = Field(None, description="a reviewer's marks (JSONL that the page has exported) to go on with")


def main(settings: ReportSettings) -> int:
    """Write the page, or print a lineage."""
    from ray_app.findings import gather, lineage, naming, page
    from ray_app.findings.run_tables import RunTables
    from ray_app.loop.reporting import default_settings

    tables = RunTables(settings.run)
    if settings.trace is not None:
        print(lineage.told(lineage.trace(tables, settings.trace)))
        return 0
    limits, defaults = page.limits_of(tables.settings), default_settings()
    other = RunTables(settings.compare) if settings.compare else None
    marks = read_marks(settings.marks, tables.name) if settings.marks else []
    if settings.serve:
        from ray_app.findings import server

        service = server.application(
            tables, lambda names: page.render(tables, gather.look(tables, limits), defaults, other, marks, names)
        )
        print(f"report of {tables.name}: http://{settings.host}:{settings.port}", flush=True)
        server.serve(service, settings.host, settings.port)
        return 0
    alarms = gather.look(tables, limits)
    where = page.write(tables, alarms, defaults, output=settings.output, other=other, marks=marks)
    for alarm in alarms:
        print(f"alarm {alarm['name']} ({naming.where(alarm['iteration'], alarm['phase'])}): {alarm['message']}")
    print(f"report: {where}")
    return 0


def read_marks(file: str, run: str) -> list[dict[str, Any]]:
    """A reviewer's marks on this run. Raises InputError for a file that is none."""
    try:
        lines = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as fault:
        raise InputError(f"--marks: {file} cannot be read: {fault.strerror}") from fault
    marks = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            mark: dict[str, Any] = {name: str(row[name]) for name in ("run", "kind", "id", "mark")}
            if row.get("iteration") is not None:  # files of before said neither iteration, nor phase, nor set
                mark["iteration"] = int(row["iteration"])
            mark |= {name: str(row[name]) for name in ("phase", "set") if row.get(name)}
        except (ValueError, KeyError, TypeError) as fault:
            raise InputError(f"--marks: {file} line {number} is no mark of a report") from fault
        if mark["run"] == run:
            marks.append(mark)
    return marks


def named(arguments: Sequence[str]) -> list[str]:
    """`RUN [trace ID]` as options: what the command is about stands first, without a dash."""
    given = list(arguments)
    if given and not given[0].startswith("-"):
        given[:1] = ["--run", given[0]]
    if len(given) > 3 and given[2] == "trace":
        given[2:4] = ["--trace", given[3]]
    return given


def entry_point() -> NoReturn:
    """`ste-report`, and `python -m ray_app.report`."""
    leave(run_command(ReportSettings, main, named(sys.argv[1:])))


if __name__ == "__main__":
    entry_point()
