"""The way of a row in CONTRIBUTING.md: its functions exist, and a compile calls them in this order."""

import importlib
import re
import sys
from pathlib import Path
from types import CodeType, FrameType

import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.unit.compiler.conftest import ROWS
from tuneyard.compiler.cli import cli

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FUNCTION = r"`((?:compiler|core)/[\w/]+\.py):([\w.]+)`"
NAMED = re.findall(FUNCTION, PAGE)
STEPS = re.findall(rf"^\|.*\| {FUNCTION} \|", PAGE, re.M)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_functions_of_the_way_are_in_their_files(path, name):
    module = "tuneyard." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    value = importlib.import_module(module)
    for attribute in name.split("."):
        value = getattr(value, attribute)
    assert value.__module__ == module


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_compile_calls_the_steps_in_the_order_of_the_way(bench, suffix):
    source = bench.rows("train.jsonl", ROWS)
    if suffix == "csv":
        source = bench.write("train.csv", "sentence1,sentence2,label,idx\na fox ran,an animal ran,0,0\n")
    called: dict[CodeType, None] = {}

    def record(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called.setdefault(frame.f_code)

    sys.setprofile(record)
    try:
        result = invoke(cli, "compile", "rte", "--source", f"train={source}", "--out", bench.out)
    finally:
        sys.setprofile(None)
    assert result.exit_code == 0
    calls = []
    for code in called:
        path = Path(code.co_filename).resolve()
        if path.is_relative_to(ROOT):
            calls.append((str(path.relative_to(ROOT)), code.co_qualname.removesuffix(".__init__")))
    assert len(STEPS) == 21
    assert [step for step in calls if step in STEPS] == STEPS
