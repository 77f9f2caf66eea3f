"""Installed packages with entry points, for tests of plug-ins. Their names begin with `plug_`."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tuneyard.core import plugins


def documented(mark: str) -> str:
    """The one example of docs/extending.md that has this in it."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if mark in code]
    return code


def install(site: Path, name: str, group: str, entry: str, code: str) -> None:
    """Lay an installed distribution `name` 1.2 with one module of that name into a folder of sys.path.

    `entry` is its line in the group of entry points.
    """
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")


@contextmanager
def installing(
    site: Path, group: str, monkeypatch: pytest.MonkeyPatch, *caches: Any
) -> Iterator[Callable[[str, str], None]]:
    """`lay(name, code)` installs `plug_NAME`, whose entry NAME is what its module calls so.

    Plug-ins are forgotten before and after the block. `caches` are functions that keep some, too.
    """
    monkeypatch.syspath_prepend(site)
    forget(caches)

    def lay(name: str, code: str) -> None:
        install(site, f"plug_{name}", group, f"{name} = plug_{name}:{name}", code)

    yield lay
    forget(caches)


def forget(caches: tuple[Any, ...]) -> None:
    for cached in (plugins.load, *caches):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        del sys.modules[name]
