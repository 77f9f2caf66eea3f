"""Plug-ins by entry points: a broken package is named with its version."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.messages import raises
from tests.plug_ins import install, installing
from tuneyard.core import plugins
from tuneyard.core.errors import TuneyardError


def package(site: Path, name: str, entry: str, code: str) -> None:
    install(site, name, "tuneyard.metrics", entry, code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with installing(tmp_path, "tuneyard.metrics", monkeypatch):
        yield tmp_path


SHADOWED = ("core", "compiler", "recipes", "adapters", "eval")


def test_a_plugin_keeps_its_own_core_and_eval(tmp_path: Path) -> None:
    """`tuneyard` imports nothing by the bare names of its folders, and puts nothing on the path."""
    for name in SHADOWED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"WHOSE = 'the plug-in, {name}'\n")
    imports = "\n".join(f"import {name}" for name in SHADOWED)
    whose = ", ".join(f"{name}.WHOSE" for name in SHADOWED)
    package(tmp_path, "plug_words", "words = plug_words:words", f"{imports}\nwords = [{whose}]\n")
    program = (
        "from tuneyard.core import plugins\n"
        "from tuneyard.compiler import spec\n"
        "from tuneyard.eval import figures\n"
        "print(*plugins.load('tuneyard.metrics')['words'].value, sep='\\n')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [f"the plug-in, {name}" for name in SHADOWED]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        (
            "import not_there",
            "ModuleNotFoundError: No module named 'not_there'",
        ),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("other = 1", "AttributeError: module 'plug_broken' has no attribute 'metric'"),
        ("def (", "SyntaxError: "),
    ],
)
def test_a_broken_package_is_named(site: Path, code: str, said: str) -> None:
    package(site, "plug_broken", "broken = plug_broken:metric", code)
    with raises(plugins.PluginError, "'broken'", "plug_broken 1.2", "tuneyard.metrics", said):
        plugins.load("tuneyard.metrics")


def test_two_packages_with_one_name_are_both_named(site: Path) -> None:
    package(site, "plug_a", "same = plug_a:metric", "metric = 'a'\n")
    package(site, "plug_b", "same = plug_b:metric", "metric = 'b'\n")
    with raises(plugins.PluginError, "'same'", "plug_a 1.2", "plug_b 1.2"):
        plugins.load("tuneyard.metrics")


def test_what_a_plugin_raises_later_names_its_package(site: Path) -> None:
    package(site, "plug_late", "late = plug_late:metric", "def metric(): return 1 / 0\n")
    plugin = plugins.load("tuneyard.metrics")["late"]
    with (
        raises(TuneyardError, "late", "plug_late 1.2", "ZeroDivisionError"),
        plugin.guarded(),
    ):
        plugin.value()
