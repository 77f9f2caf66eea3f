"""`NAME=REFERENCE[:WEIGHT]`: one way to split it, for adapters and for results."""

import time
from pathlib import Path

import pytest

from tests.messages import raises
from tests.unit.adapters.make import make
from tuneyard.adapters.model.store import find_folder
from tuneyard.adapters.model.weighted import parse_merged, parse_named, parse_optional_weight
from tuneyard.core.errors import RequestError
from tuneyard.core.text.references import NamedReference, parse_reference, parse_sum, sum_parts
from tuneyard.eval.runs.find import parse_source

NOTHING = lambda _text: False  # noqa: E731


def there(*texts: str):
    return lambda text: text in texts


NAMED = {
    "rte": (None, "rte", None),
    "saves/rte": (None, "saves/rte", None),
    "mine=rte": ("mine", "rte", None),
    "mine=saves/rte": ("mine", "saves/rte", None),
    "mine=saves/rte:0.5": ("mine", "saves/rte", "0.5"),
    "rte=0.5": (None, "rte", "0.5"),
    "rte:0.5": (None, "rte", "0.5"),
    "rte=-.5": (None, "rte", "-.5"),
    "rte=+2": (None, "rte", "+2"),
    "rte=1e-3": (None, "rte", "1e-3"),
    "rte=1E+3": (None, "rte", "1E+3"),
    "rte=5.": (None, "rte", "5."),
    "rte=0,5": (None, "rte", "0,5"),
    "rte=50%": (None, "rte", "50%"),
    "rte=0.5@0-11,0.2@12-23": (None, "rte", "0.5@0-11,0.2@12-23"),
    "rte=": (None, "rte", ""),
    "rte:": (None, "rte", ""),
    "=0.5": (None, "", "0.5"),
    "=rte": ("", "rte", None),
    "mine=rte=0.5": ("mine", "rte", "0.5"),
    "mine=lr=1e-4:-2": ("mine", "lr=1e-4", "-2"),
    r"C:\saves\rte": (None, r"C:\saves\rte", None),
    r"C:\saves\rte:0.5": (None, r"C:\saves\rte", "0.5"),
    r"mine=C:\saves\rte=1e-3": ("mine", r"C:\saves\rte", "1e-3"),
    "D:/saves/rte": (None, "D:/saves/rte", None),
    "/runs/a:b/rte": (None, "/runs/a:b/rte", None),
    "/runs/a:b/rte:2": (None, "/runs/a:b/rte", "2"),
    "hf://org/rte": (None, "hf://org/rte", None),
    "": (None, "", None),
    "基=模型/甲:0.5": ("基", "模型/甲", "0.5"),
}


@pytest.mark.parametrize("text", NAMED)
def test_a_word_with_name_and_weight(text: str) -> None:
    assert parse_reference(text, NOTHING, named=True, weight="optional") == NAMED[text]


@pytest.mark.parametrize("text", ["lr=1e-4", "a:0.5", "a+b", "x=y/z:1", "0.5", "a=b+c:1"])
def test_what_is_there_is_never_split(text: str) -> None:
    whole = NamedReference(None, text, None)
    assert parse_reference(text, there(text), named=True, weight="optional") == whole
    assert parse_reference(f"m={text}", there(text), named=True, weight="optional") == ("m", text, None)
    assert parse_reference(f"m={text}:2", there(text), named=True, weight="optional") == ("m", text, "2")
    assert parse_sum(text, there(text)) == (None, [whole])
    assert parse_sum(f"m={text}", there(text)) == ("m", [whole])
    assert parse_sum(f"m={text}:2", there(text)) == ("m", [NamedReference(None, text, "2")])


SUMS = {
    "half=a:0.5+b:1": ("half", [("a", "0.5"), ("b", "1")]),
    "half=a=0.5+b=1": ("half", [("a", "0.5"), ("b", "1")]),
    "a:0.5+b:1": (None, [("a", "0.5"), ("b", "1")]),
    "a=0.5+b=1": (None, [("a", "0.5"), ("b", "1")]),
    "a:0.5+s/b=-1": (None, [("a", "0.5"), ("s/b", "-1")]),
    "a:1e+2+b:+1+c:1E+1": (None, [("a", "1e+2"), ("b", "+1"), ("c", "1E+1")]),
    r"x=C:\a:0.5+D:\b:1": ("x", [(r"C:\a", "0.5"), (r"D:\b", "1")]),
    "a+b": (None, [("a", None), ("b", None)]),
    "x=a:1+b": ("x", [("a", "1"), ("b", None)]),
    "a:1+": (None, [("a", "1"), ("", None)]),
}


@pytest.mark.parametrize("text", SUMS)
def test_a_sum(text: str) -> None:
    name, references = parse_sum(text, NOTHING)
    assert (name, [(each.reference, each.weight) for each in references]) == SUMS[text]


def test_a_folder_of_a_sum_may_have_a_plus() -> None:
    assert parse_sum("x=a+b:0.5", there("a+b")) == ("x", [NamedReference(None, "a+b", "0.5")])


def test_a_long_word_takes_no_time() -> None:
    began = time.monotonic()
    assert len(sum_parts("a:1+" * 100_000)) == 100_001
    parse_reference("=:" * 100_000, NOTHING, named=True, weight="optional")
    assert time.monotonic() - began < 1


def test_adapters_and_results_are_split_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("saves/lr=1e-4")
    make("a+b")
    Path("results=1").mkdir()
    assert parse_optional_weight("lr=1e-4") == ("lr=1e-4", 1.0)
    assert parse_optional_weight("lr=1e-4:2") == parse_merged("lr=1e-4=2") == ("lr=1e-4", 2.0)
    assert parse_named("mine=lr=1e-4") == ("mine", [("lr=1e-4", 1.0)])
    assert parse_named("a+b") == ("a+b", [("a+b", 1.0)])
    assert parse_named("x=a+b:-1e-3") == ("x", [("a+b", -0.001)])
    assert find_folder("mine=a+b") == Path("a+b")
    assert parse_source("base/d=results=1") == (parse_source("base/d=./results=1"))
    assert parse_source("results=1").model == ""


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a+b", "both=a:0.5+b:0.5"),
        ("x=a:1+b", "'b'; NAME_OR_DIR=WEIGHT"),
        ("rte=", "rte: weight; a number"),
        ("rte=0,5", 'rte: weight "0,5": expected a number'),
        ("rte:0.5@0-1", "only `tuneyard adapter merge` takes weights by layer"),
        ("=0.5", "NAME_OR_DIR=WEIGHT"),
    ],
)
def test_words_that_are_refused(
    text: str, facts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with raises(RequestError, facts):
        parse_named(text)
