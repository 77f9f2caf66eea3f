"""Pictures, table and verdict of the demo in README.md and README.zh.md: `make pictures`, after `make demo`.

All are of the demo that is here, so that pictures and figures are of one run.
"""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from testing import ROOT
from testing.browser import BROWSER, FLAGS, VIRTUAL_TIME

IMAGES = ROOT / "docs/images"
REPORT = ROOT / "results/demo/verdict/report.html"
CHINESE_REPORT = ROOT / "results/demo-zh/report.html"
TABLE = re.compile(r"^\| (?:accuracy|准确率).*?(?=\n\n)", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(r"^> .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
WIDTH = 130
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


def tuneyard(*words: object) -> None:
    """Run a command of ours in the checkout."""
    subprocess.run([sys.executable, "-m", "tuneyard", *map(str, words)], check=True, cwd=ROOT)


def quote_report(readme: Path, table: Path) -> None:
    """Put the first sentence of a comparison and its table of figures into a README."""
    report = table.read_text(encoding="utf-8")
    verdict = report.partition("\n")[0]
    lines = textwrap.wrap(verdict, WIDTH, break_long_words=False, break_on_hyphens=False)
    quote = "\n".join(f"> {line}" for line in lines)
    figures = TABLE.search(report)
    text = readme.read_text(encoding="utf-8")
    if figures is None or not TABLE.search(text) or not QUOTE.search(text):
        sys.exit(f"error: no table of figures and quoted verdict in {table} or {readme}")
    text = TABLE.sub(lambda _unused: figures[0], text, count=1)
    text = QUOTE.sub(lambda _unused: quote, text, count=1)
    readme.write_text(text, encoding="utf-8")


def main() -> None:
    """Picture the reports of the demo and `data view` of its training rows. Quote the figures."""
    if BROWSER is None:
        sys.exit("error: no Chromium here. Install chromium or google-chrome")
    if not REPORT.exists():
        sys.exit(f"error: {REPORT.relative_to(ROOT)} is missing. Run `make demo` first")
    view = ROOT / "results/demo/data-view.html"
    tuneyard("data", "view", DATASET, "--recipe", RECIPE, "--out", view, "--force")
    tuneyard("eval", "compare", "results/demo", "--lang", "zh", "--out", CHINESE_REPORT.parent, "--force")
    picture(view, IMAGES / "data-view.png", 1280, 920)
    picture(REPORT, IMAGES / "report.png", 1000, 920)
    picture(CHINESE_REPORT, IMAGES / "report.zh.png", 1000, 920)
    quote_report(ROOT / "README.md", REPORT.with_name("table.md"))
    quote_report(ROOT / "README.zh.md", CHINESE_REPORT.with_name("table.md"))
    print(f"pictures: {IMAGES}; table and verdict: README.md, README.zh.md")


if __name__ == "__main__":
    main()
