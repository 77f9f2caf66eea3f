"""python -m core.cli.address   writes the repository's address of pyproject.toml into README and docs.

The address follows `git clone` or `git+` there, and a test compares them with pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from tuneyard.core.installation.checkout import ROOT

ADDRESS = re.compile(r"(?P<before>git clone |git\+)https?://[^\s\"'`]+")
PAGES = ("README*.md", "docs/**/*.md", "docs/ci/*.yml")


def of_the_repository() -> str:
    """The `Repository` under `[project.urls]`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Repository"])


def with_address(text: str, address: str) -> str:
    """The text of a page with this address wherever it clones or installs from one."""
    return ADDRESS.sub(lambda match: f"{match['before']}{address}", text)


def write_pages(root: Path, address: str) -> None:
    for pattern in PAGES:
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            changed = with_address(text, address)
            if changed != text:
                path.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    write_pages(ROOT, of_the_repository())
