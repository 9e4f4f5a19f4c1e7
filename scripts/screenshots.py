"""Pictures of a run's report, light and dark, wide and narrow, by its parts: for the documentation, and to look at.

    python scripts/screenshots.py runs/NAME [FOLDER]        # FOLDER: pictures/ in the run folder

Needs Playwright and a Chromium on the path (`make browser` brings both), and Pillow, which vLLM brings.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from ray_app.findings.page import PARTS
from ray_app.loop.reporting import write_report

WIDTHS = {"wide": 1280, "narrow": 420}
HEIGHT = 900


def take(browser: Browser, report: str, folder: Path, width: str, scheme: str) -> list[Path]:
    """A picture of the first screen and of each part as a reader sees it who follows its link."""
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(report)
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    made = []
    for part, _ in PARTS:
        page.click(f'nav a[href="#{part}"]')
        file = folder / f"{part}-{width}-{scheme}.png"
        page.screenshot(path=file)
        Image.open(file).convert("RGB").quantize(64).save(file, optimize=True)  # a third of the size
        made.append(file)
    page.close()
    return made


def main(run: str, folder: Path) -> None:
    """Write the run's report anew and take its pictures."""
    chromium = next(
        (at for name in ("chromium", "chromium-browser", "google-chrome") if (at := shutil.which(name))), None
    )
    if chromium is None:
        sys.exit("error: no Chromium on the path: scripts/fetch_tool.sh chromium")
    report = Path(write_report(run)).resolve().as_uri()
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                for file in take(browser, report, folder, width, scheme):
                    print(f"{file}: {file.stat().st_size // 1024} KiB")
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python scripts/screenshots.py runs/NAME [FOLDER]")
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) == 3 else Path(sys.argv[1]) / "pictures")
