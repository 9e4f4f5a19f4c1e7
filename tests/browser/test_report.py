"""report.html in Chromium: no error in its console, readable by keyboard, wide and narrow, light and dark.

`make browser` runs it; it needs Playwright and a Chromium on the path, and is no part of `make test`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import large_run
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import recorded
from clusters import free_ports
from playwright.sync_api import Error, sync_playwright

from ray_app.findings import page as report_page
from ray_app.findings.run_tables import RunTables
from ray_app.loop.reporting import write_report
from ray_app.report import read_marks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
H100 = recorded.ROOT / "tests" / "fixtures" / "h100_modified"
PAIRS = 100_000
LARGEST = 5 * 1024 * 1024  # bytes of a page
Make = Callable[[Path], Path]  # of a run's folder, inside another
VIEWS = [(1280, "light"), (1280, "dark"), (420, "light"), (420, "dark")]


def recorded_run(where: Path) -> Path:
    """The run of the recorded folders in pairwise mode: what the demo makes, with a scripted engine."""
    with tarfile.open(recorded.FOLDERS) as packed:
        packed.extractall(where, filter="data")
    return where / "runs" / "pairwise"


def h100_run(where: Path) -> Path:
    """The run of an H100 that a shortcut fooled, without the texts of its data."""
    return Path(shutil.copytree(H100, where / H100.name))


def large(where: Path) -> Path:
    large_run.write(where / "large", PAIRS)
    return where / "large"


TWO = [VIEWS[0], VIEWS[3]]  # of the other runs: every width and every scheme is among them
OPENED = [(recorded_run, view) for view in VIEWS] + [
    (make, view) for make in (h100_run, large) for view in TWO[: 2 if make is h100_run else 1]
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], str]:
    """Where the page of a run lies; each is written once."""

    @functools.cache
    def written(make: Make) -> str:
        page = Path(write_report(str(make(tmp_path_factory.mktemp("browser")))))
        assert page.stat().st_size <= LARGEST
        return page.resolve().as_uri()

    return written


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The recorded run behind HTTP; in one of its pairs a response is so long that the page shows it in part."""
    run = recorded_run(tmp_path)
    (file,) = (run / "pairs").glob("shard-*.parquet")
    rows = pq.read_table(file)
    texts = rows.column("chosen").to_pylist()
    texts[3] = "x " * 3000 + "A Needle in it." + " y" * 3000
    pq.write_table(rows.set_column(rows.schema.get_field_index("chosen"), "chosen", pa.array(texts)), file)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "ray_app.report", str(run), "--serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=recorded.ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    assert server.stdout.readline().startswith("report of pairwise")
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on the path: make browser fetches it")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=OPENED, ids=lambda one: f"{one[0].__name__}-{one[1][0]}-{one[1][1]}")
def page(browser: Any, reports: Callable[[Make], str], request: pytest.FixtureRequest) -> Iterator[Any]:
    """The open page with its figures drawn. Fails a test that leaves an error in the console, or fetches anything."""
    make, (width, scheme) = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    faults: list[str] = []
    opened.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else faults.append(asked.url)
    )
    opened.goto(reports(make))
    opened.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    yield opened
    opened.close()
    assert faults == []


def test_it_fits_and_its_figures_are_drawn(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    figures = page.locator("figure")
    assert figures.count() > 5
    assert page.locator("figure .main-svg").count() >= figures.count()


def test_it_opens_at_its_top_with_each_row_once(page: Any) -> None:
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("location.hash") == ""
    assert page.evaluate("new Set(data.samples.map(key)).size === data.samples.length")


def test_samples_are_read_and_marked_by_keyboard(page: Any) -> None:
    page.keyboard.press("g")
    assert page.locator("#sample button[aria-pressed=true]").count() == 0, "a row that is out of sight is not marked"
    page.locator("nav a", has_text="What did it learn from?").press("Enter")
    page.locator(".reader").scroll_into_view_if_needed()
    page.keyboard.press("j")
    second = page.locator("#sample h3").inner_text()
    page.keyboard.press("g")
    assert page.locator("#sample button[aria-pressed=true]").inner_text() == "good"
    page.keyboard.press("k")
    assert page.locator("#sample h3").inner_text() != second
    page.keyboard.press("/")
    page.keyboard.type(second.split()[-1])
    page.keyboard.press("Escape")
    assert page.locator("#sample h3").inner_text() == second
    with page.expect_download() as begun:
        page.click("#export")
    (mark,) = [json.loads(line) for line in Path(begun.value.path()).read_text().splitlines()]
    kind, identity = second.rsplit(" ", 1)
    place = {name: mark[name] for name in ("iteration", "phase", "set") if name in mark}
    assert mark == {"run": page.locator("h1").inner_text(), "kind": kind, "id": identity, **place, "mark": "good"}
    assert page.locator("#list .mark", has_text="good").count() == 1, "one row is marked, not those of other iterations"


def test_every_control_is_reached_by_tab(page: Any) -> None:
    """From the link that skips the parts to the list of samples, whose focus is seen."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    focused = "(e => e.id || e.dataset.kind || e.dataset.find || e.tagName)(document.activeElement)"
    reached: list[str] = []
    while "list" not in reached and len(reached) < 60:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
    assert {"training row", "judgment", "kind", "tag", "search", "export", "list"} <= set(reached)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.parametrize("page", [(h100_run, view) for view in TWO], indirect=True, ids=["wide", "narrow"])
def test_the_shortcut_of_the_h100_run_is_seen_at_once(page: Any) -> None:
    """Before any click: the first sentences say what to distrust; the alarms follow, with their rows."""
    learned = page.locator("#verdict").inner_text()
    assert "Distrust it for:" in learned
    assert {"shortcut length", "synthetic only", "meta talk"} <= set(
        learned.partition("for: ")[2].partition(" (")[0].split(", ")
    )
    assert page.locator("#verdict li").first.bounding_box()["y"] < page.viewport_size["height"]
    alarm = page.locator("#alarms article", has_text="shortcut length")
    assert "83% of the chosen responses are the longer ones" in alarm.inner_text()
    alarm.locator("[data-find]").press("Enter")
    assert page.locator("#sample h3").inner_text().startswith("pair ")
    assert "alarm: shortcut_length" in page.locator("#sample").inner_text()


def test_a_newcomers_questions_are_two_clicks_away(page: Any) -> None:
    """What it learned from, with a judgment's own pair; what was left out; where the time went; whether to trust it."""
    page.click('nav a[href="#samples"]')
    assert "training rows from" in page.locator("#samples").inner_text()
    page.click('[data-kind="training row"]')
    assert page.locator("#sample h3").inner_text().startswith("training row ")
    page.click('[data-kind="judgment"]')
    last = max(tag for tag in page.locator("#tag option").all_inner_texts() if tag.startswith("iteration "))
    page.select_option("#tag", last)  # of the H100's earlier judgments the pairs were not kept
    names = page.locator("#sample dt").all_inner_texts()
    assert names[:3] == ["judgment", "verdict", "instruction"]
    assert {name.split(",")[0] for name in names[3:5]} == {"shown first (A)", "shown second (B)"}
    page.click('nav a[href="#lost"]')
    assert "never judged right" in page.locator("#lost").inner_text()
    page.click('nav a[href="#time"]')
    assert page.locator("#time figure").count() == 2
    top = page.locator("#time h2").bounding_box()["y"]
    bar = page.locator("nav").bounding_box()
    assert top >= 0
    assert bar["y"] + bar["height"] <= top or bar["y"] < 0, "the bar of links hides no heading"
    page.click('nav a[href="#alarms"]')
    page.click("#alarms [data-find] >> nth=0")
    assert "alarm: " in page.locator("#sample").inner_text()


@pytest.fixture
def twice(tmp_path: Path, browser: Any) -> Iterator[tuple[Any, str]]:
    """A wide page of a run of two iterations whose judgments have the same ids, with a lost row; and its address."""
    run = recorded_run(tmp_path)
    shutil.copytree(run / "iter_01", run / "iter_02")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    second = [{**line, "iteration": 2} for line in lines if line["iteration"] == 1]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, *second]))
    known = RunTables(str(run)).rows(str(run / "instructions"))
    detail = str({"chosen": "one\ntwo", "rejected": "three"})
    lost = [
        {"id": row["instruction_id"], "stage": "pairs", "reason": "cut_off_chosen", "detail": detail} for row in known
    ]
    pq.write_table(pa.Table.from_pylist(lost), run / "pairs" / "quarantine-00000.parquet")
    address = Path(write_report(str(run))).resolve().as_uri()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page(), address
    context.close()


def opened(page: Any, address: str) -> None:
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)


def test_a_mark_is_of_one_row_and_stays(twice: tuple[Any, str]) -> None:
    """Marked on one iteration's judgment, taken away again after the page was closed; the export names the place."""
    page, address = twice
    opened(page, address)
    page.click('[data-kind="judgment"]')
    page.keyboard.press("b")
    place = page.evaluate("shown[at].iteration")
    opened(page, address)
    marked = page.evaluate(
        "data.samples.filter((row) => markOf(row)).map((row) => [row.kind, row.iteration, markOf(row)])"
    )
    assert marked == [["judgment", place, "bad"]]
    with page.expect_download() as begun:
        page.click("#export")
    (line,) = [json.loads(text) for text in Path(begun.value.path()).read_text().splitlines()]
    assert line["iteration"] == place
    page.select_option("#tag", "bad")
    assert page.locator("#list li").count() == 1
    page.locator("#list").focus()
    page.keyboard.press("x")
    opened(page, address)
    assert page.evaluate("data.samples.every((row) => !markOf(row))")


def test_marks_of_before_name_every_row_of_their_id(twice: tuple[Any, str], tmp_path: Path) -> None:
    page, address = twice
    opened(page, address)
    row = page.evaluate("data.samples.find((row) => row.kind === 'judgment' && row.iteration === 2)")
    old = {"run": "pairwise", "kind": "judgment", "id": row["id"], "mark": "unsure"}
    elsewhere = {**old, "id": "not in the page"}
    new = {**old, "kind": "training row", "id": "only this", "iteration": 7}
    (tmp_path / "marks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (old, elsewhere, new)))
    marks = read_marks(str(tmp_path / "marks.jsonl"), "pairwise")
    opened(
        page,
        Path(report_page.write(RunTables(str(tmp_path / "runs" / "pairwise")), [], {}, marks=marks)).resolve().as_uri(),
    )
    marked = page.evaluate("data.samples.filter((row) => markOf(row)).map((row) => [row.kind, row.id, row.iteration])")
    assert sorted(marked) == [["judgment", row["id"], 1], ["judgment", row["id"], 2]]
    with page.expect_download() as begun:
        page.click("#export")
    lines = [json.loads(text) for text in Path(begun.value.path()).read_text().splitlines()]
    assert sorted((line["id"], line.get("iteration", 0)) for line in lines) == sorted(
        [(row["id"], 1), (row["id"], 2), ("not in the page", 0), ("only this", 7)]
    )


def test_a_row_has_an_address(twice: tuple[Any, str]) -> None:
    page, address = twice
    opened(page, address)
    page.click('[data-kind="evaluation"] >> nth=0')
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    chosen, named = page.evaluate("[at, key(shown[at])]")
    assert chosen == 1
    opened(page, page.evaluate("location.href"))
    assert page.evaluate("key(shown[at])") == named
    page.wait_for_function("scrollY > 0")
    box = page.locator("#sample h3").bounding_box()
    assert 0 <= box["y"] < 900
    opened(page, f"{address}#row=judgment%7Cnowhere")
    assert "not in this page" in page.locator("#count").inner_text()


def test_what_tells_rows_apart_is_in_the_list(twice: tuple[Any, str]) -> None:
    """Wrong verdicts are wrong; counts say what is a sample; a lost row has names; prompts are folded, by role."""
    page, address = twice
    opened(page, address)
    page.click('[data-kind="evaluation"][data-tag="wrong"]')
    assert set(page.locator("#list .outcome").all_inner_texts()) == {"✗"}
    assert "verdict A, gold B" in page.locator("#list").inner_text()
    page.click('[data-kind="quarantine"]')
    assert page.locator("#count").inner_text().startswith("sample: 5 of ")
    assert page.locator('[data-kind="quarantine"]').inner_text().startswith("lost rows (5 of ")
    assert page.locator("#sample dt").all_inner_texts() == ["why it was lost", "instruction", "chosen", "rejected"]
    assert page.locator("#sample dd").nth(2).inner_text() == "one\ntwo"
    for kind in ("training row", "judgment"):
        page.click(f'[data-kind="{kind}"]')
        assert page.locator("#list small").first.inner_text() in page.locator("#sample dd").first.inner_text()
        assert not page.locator("#sample .turn").first.is_visible()
    page.click("#sample summary")
    assert page.locator("#sample h4").all_inner_texts() == ["system", "user"]
    asked = page.locator("#sample .turn").all_inner_texts()[-1]
    for text in page.locator("#sample dd").all_inner_texts()[2:5]:
        assert text in asked, "the judge's prompt holds the instruction and both responses"


def test_a_served_page_loads_and_searches_every_table(browser: Any, served: str) -> None:
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    for _ in range(100):  # it says its address, then listens
        with contextlib.suppress(Error):
            page.goto(served)
            break
        page.wait_for_timeout(100)
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    page.select_option("#table", "ratings 1 rewardbench2")
    page.click("#more")
    page.wait_for_function("document.getElementById('count').textContent.includes('13 came')")
    assert "score" in page.locator("#sample dt").all_inner_texts()
    page.select_option("#table", "judgments 1")
    page.click("#more")
    page.wait_for_function("document.getElementById('count').textContent.includes('37 came')")
    assert "instruction" in page.locator("#sample dt").all_inner_texts()
    page.select_option("#table", "pairs")
    page.fill("#search", "a needle IN it")
    page.click("#more")
    page.wait_for_function("document.getElementById('count').textContent.includes('1 came')")
    assert "A Needle in it." in page.locator("#sample").inner_text()
    page.close()
    assert faults == []


def test_a_kind_is_picked_and_the_parts_are_one_click_away(page: Any) -> None:
    page.select_option("#kind", "judgment")
    assert page.locator("#sample h3").inner_text().startswith("judgment ")
    for link in page.locator("nav a").all():
        link.click()
        target = link.get_attribute("href").removeprefix("#")
        assert page.evaluate(f"location.hash === '#{target}' && !!document.getElementById('{target}')")
