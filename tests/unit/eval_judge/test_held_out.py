"""A sweep's folder is compared on the examples that it did not choose on, and on no others."""

import json

import pytest

from tests.fake_runs import write_run
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.compare import compare_results

GOLD = ["yes", "no", "yes", "no", "yes", "no"]
CHOSE = [0, 1, 2]


@pytest.fixture
def sweep(tmp_path):
    """Six examples, the first three chosen on; what is correct on them says nothing of the others."""
    answers = {
        "base": ["yes"] * 6,
        "rte=0,mnli=1": ["no", "yes", "no", "no", "yes", "yes"],
        "rte=0.5,mnli=0.5": [*GOLD[:3], "yes", "yes", "no"],
        "rte=1,mnli=0": [*GOLD[:3], "yes", "no", "yes"],
        "rte=1,mnli=1": [*GOLD],
    }
    for model, given in answers.items():
        write_run(tmp_path / "s", model, "d", GOLD, given, [str(n) for n in range(6)], majority=0.9)
    points = {
        "base": [0, 0], "rte=0,mnli=1": [0, 1], "rte=0.5,mnli=0.5": [0.5, 0.5],
        "rte=1,mnli=0": [1, 0], "rte=1,mnli=1": [1, 1],
    }  # fmt: skip
    told = {"axes": ["rte", "mnli"], "points": points, "ship": "rte=0.5,mnli=0.5"}
    write(tmp_path / "s", {**told, "rows_to_choose_on": {"d": CHOSE}})
    return tmp_path / "s"


def write(folder, told):
    (folder / "sweep.json").write_text(json.dumps(told))


def test_base_singles_and_the_choice_on_the_other_half(sweep):
    comparison = compare_results([str(sweep)]).comparison
    (section,) = comparison.sets
    assert comparison.models == ["base", "rte", "mnli", "rte=0.5,mnli=0.5"]
    assert section.n == 3
    shares = {model: round(3 * figure.value) for model, figure in section.figures.items()}
    assert shares == {"base": 1, "rte": 0, "mnli": 2, "rte=0.5,mnli=0.5": 2}
    assert section.majority == pytest.approx(2 / 3), "of the held-out half, not of results.json"


def test_it_is_said(sweep, capsys):
    said = compare_results([str(sweep)]).warnings
    assert any("examples that it did not choose on" in text for text in said)


def test_a_point_that_is_named_is_compared_on_all(sweep):
    named = [str(sweep / "base"), str(sweep / "rte=1,mnli=1")]
    (section,) = compare_results(named).comparison.sets
    assert section.n == 6


def test_a_single_adapter_that_was_chosen_stands_once(sweep):
    told = json.loads((sweep / "sweep.json").read_text())
    write(sweep, {**told, "ship": "rte=1,mnli=0"})
    assert compare_results([str(sweep)]).comparison.models == ["base", "rte", "mnli"]


@pytest.mark.parametrize("name", ["points", "axes", "rows_to_choose_on"])
@pytest.mark.parametrize("value", [None, "x"])
def test_a_damaged_sweep_is_named(sweep, name, value):
    told = json.loads((sweep / "sweep.json").read_text())
    write(sweep, {**told, name: value} if value else {k: v for k, v in told.items() if k != name})
    with raises(ContentError, "sweep.json", name):
        compare_results([str(sweep)])
