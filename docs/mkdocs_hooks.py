"""Hooks of mkdocs (mkdocs.yml): the two READMEs above docs/ are pages of the site, and links lead to them."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
STARTS = {"README.md": "start.md", "README.zh.md": "zh/start.md"}
LINK = re.compile(r"\]\((?P<path>[^):#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the READMEs to the files of the site."""
    for source, page in STARTS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a page with its links as the site has them, and its fences without our marks (`console gpu`)."""
    here = page.file.src_uri
    source = next((source for source, start in STARTS.items() if start == here), f"docs/{here}")

    def follow(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        path = STARTS.get(target) or posixpath.relpath(target, "docs")
        return f"]({posixpath.relpath(path, posixpath.dirname(here) or '.')}{link['anchor'] or ''})"

    return re.sub(r"^```console (?:gpu|lf|way)$", "```console", LINK.sub(follow, markdown), flags=re.M)
