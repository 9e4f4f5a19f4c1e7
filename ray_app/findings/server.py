"""The report behind HTTP, with every row of the run besides the samples: for runs too large for one file.

python -m ray_app.report runs/NAME --serve [--port 8266]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse

from ray_app.errors import InputError
from ray_app.findings.paging import page_of, tables_of
from ray_app.findings.reading import pairs_shown
from ray_app.findings.run_tables import RunTables

PAGE = 50


def application(tables: RunTables, render: Callable[[list[str]], str]) -> FastAPI:
    """The service. `render` makes the page from the names of the tables there are; it is made anew at every load, so it
    shows a living run as it is.
    """
    service = FastAPI(title=f"Report of {tables.name}")

    @service.get("/", response_class=HTMLResponse)
    def page() -> str:
        return render(tables_of(tables))

    @service.get("/rows")
    def rows(table: str, offset: int = 0, limit: int = PAGE, find: str = "") -> dict[str, Any]:
        try:
            found = page_of(tables, table, offset, limit, find)
            return {"rows": found, "pairs": pairs_shown(tables, found)}
        except InputError as fault:
            raise HTTPException(422, str(fault)) from fault

    return service


def serve(service: FastAPI, host: str, port: int) -> None:
    """Answer until the process is stopped."""
    import uvicorn

    uvicorn.run(service, host=host, port=port, log_level="warning")
