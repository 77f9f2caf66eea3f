"""Pictures of the pages in README.md: `make pictures`, after `make demo`.

Both are of the demo that is here, so that pictures and figures are of one run.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.browser import BROWSER, FLAGS, VIRTUAL_TIME
from tests.conftest import ROOT

IMAGES = ROOT / "docs/images"
REPORT = ROOT / "results/demo/verdict/report.html"
DATASET = "demo_rte_train"
RECIPE = "recipes/demo-rte.yaml"


def picture(page: Path, image: Path, width: int, height: int) -> None:
    """Write the top of a page as a PNG of this size in pixels."""
    profile = image.with_suffix(".profile")
    command = [
        str(BROWSER), *FLAGS, VIRTUAL_TIME, "--hide-scrollbars", f"--window-size={width},{height}",
        f"--user-data-dir={profile}", f"--screenshot={image}", page.resolve().as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(profile, ignore_errors=True)


def main() -> None:
    """Picture the report of the demo, and `data view` of its training rows."""
    if BROWSER is None:
        sys.exit("error: no Chromium here. Install chromium or google-chrome")
    if not REPORT.exists():
        sys.exit(f"error: {REPORT.relative_to(ROOT)} is missing. Run `make demo` first")
    view = ROOT / "results/demo/data-view.html"
    command = ["tuneyard", "data", "view", DATASET, "--recipe", RECIPE, "--out", str(view), "--force"]
    subprocess.run([sys.executable, "-m", *command], check=True, cwd=ROOT)
    picture(view, IMAGES / "data-view.png", 1280, 920)
    picture(REPORT, IMAGES / "report.png", 1000, 920)
    print(f"pictures: {IMAGES / 'data-view.png'}, {IMAGES / 'report.png'}")


if __name__ == "__main__":
    main()
