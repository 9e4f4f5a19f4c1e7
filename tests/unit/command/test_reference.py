"""`--help`, its sections, and docs/settings.md: every setting is described, nothing heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from loop_runs import ROOT
from pydantic import BaseModel

from ray_app.command import reference
from ray_app.command.load_settings import run_command
from ray_app.command.settings import EvaluateSettings, JudgeSettings
from ray_app.loop.config import IterateSettings
from ray_app.report import ReportSettings

COMMANDS = (IterateSettings, JudgeSettings, EvaluateSettings, ReportSettings)


def every(cls: type[BaseModel], defaults: BaseModel | None = None, prefix: str = "") -> Iterator[reference.Setting]:
    for row in reference.settings_of(cls, defaults, prefix):
        yield row
        if row.section is not None:
            yield from every(row.section, row.inner, f"{row.name}.")


@pytest.mark.parametrize("cls", COMMANDS)
def test_every_setting_is_described(cls: type[BaseModel]) -> None:
    assert [row.name for row in every(cls) if not row.description] == []


def test_the_page_is_that_of_the_tree() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == reference.markdown(reference._commands()), "python -m ray_app.command.reference > docs/settings.md"


def test_links_of_the_page_have_their_headings() -> None:
    lines = reference.markdown(reference._commands()).splitlines()
    headings = {reference.anchor(line.lstrip("# ")) for line in lines if line.startswith("#")}
    links = {line.split("](#")[1].split(")")[0] for line in lines if "](#" in line}
    assert links
    assert links <= headings


@pytest.mark.parametrize("cls", COMMANDS)
def test_help_fits_a_screen(cls: type[BaseModel], capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run_command(cls, lambda _: 1, ["--help"]) == 0  # type: ignore[type-var]
    told = capsys.readouterr().out.splitlines()
    assert len(told) <= 40
    assert max(map(len, told)) <= 100
    for name in cls.model_fields:
        assert any(line.startswith(f"  --{name}") for line in told), name


def test_help_of_a_section_shows_the_defaults_that_its_parent_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(IterateSettings, lambda _: 1, ["--help", "evaluation.generation"]) == 0
    told = capsys.readouterr().out
    assert "--evaluation.generation.temperature" in told
    assert "default 0]" in told
    assert run_command(IterateSettings, lambda _: 1, ["--help", "train"]) == 0
    assert "--train.zero.…" in capsys.readouterr().out
    assert run_command(IterateSettings, lambda _: 1, ["--help", "all"]) == 0
    assert "--train.zero.offload.optimizer" in capsys.readouterr().out


def test_a_section_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(IterateSettings, lambda _: 1, ["--help", "trian"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --help trian: no section 'trian'; there are: ray, shards")
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", ["iterate", "judge", "evaluate", "report"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\ntry:\n    runpy.run_module('ray_app.{command}', "
        "run_name='__main__')\nexcept SystemExit:\n    pass\n"
    )
    probe = (
        "import os; os._exit = lambda code: print('LOADED', {'ray', 'torch', 'scipy'} & set(sys.modules)) or exit(0)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", f"import sys\n{probe}{code}"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.stdout.splitlines()[-1] == "LOADED set()", found
