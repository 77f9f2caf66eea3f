"""The documents build as a site, strictly: every link, anchor and page of the navigation is there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
LOADED = re.compile(
    r'<(?:script|img|iframe|link rel="?stylesheet"?)\b[^>]*\b(?:src|href)="?(https?://[^">]+)'
)
FILES = ("mkdocs.yml", "README.md", "README.zh.md")


def build(folder: Path, added: str = "") -> subprocess.CompletedProcess[str]:
    """Build the site of a copy of the documents, with a text added to verify.md, into `folder`/build/site."""
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    with (folder / "docs/verify.md").open("a") as page:
        page.write(added)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "build/site"
    written = {str(page.relative_to(site).with_suffix(".md")) for page in site.rglob("*.html")}
    sources = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    pages = {name.replace("README.md", "index.md") for name in sources} | {"start.md", "zh/start.md"}
    assert written == pages | {"404.md"}
    for page in site.rglob("*.html"):
        assert LOADED.findall(page.read_text(encoding="utf-8")) == [], page


def test_links_that_lead_nowhere_stop_the_build(tmp_path: Path) -> None:
    links = ("no-such-page.md", "verify.md#no-such-heading", "../README.md#nor-such-a-heading")
    done = build(tmp_path, "".join(f"\n[gone]({link})\n" for link in links))
    assert done.returncode == 1
    assert [link for link in links if link.rpartition("#")[2] not in done.stderr] == []
