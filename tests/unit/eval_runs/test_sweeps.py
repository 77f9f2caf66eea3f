"""A sweep's folder is compared on the examples that it did not choose on, and on no others."""

import pytest

from tests.fake_runs import write_run
from tests.json_files import write_json
from tests.messages import printed_line, raises
from tuneyard.core.errors import ContentError
from tuneyard.core.training.sweeps import points_file
from tuneyard.eval.compare.__main__ import compare_results
from tuneyard.eval.runs.find import ScoredRunSource, parse_source
from tuneyard.eval.runs.findings import ChosenOnTheseRows, Note
from tuneyard.eval.runs.sweeps import read_trained_sweep

GOLD = ["yes", "no", "yes", "no", "yes", "no"]
CHOSE = [0, 1, 2]


@pytest.fixture
def sweep(tmp_path):
    """Six examples, the first three chosen on; what is correct on them says nothing of the others."""
    answers = {
        "base": ["yes"] * 6,
        "mnli": ["no", "yes", "no", "no", "yes", "yes"],
        "rte=0.5,mnli=0.5": [*GOLD[:3], "yes", "yes", "no"],
        "rte": [*GOLD[:3], "yes", "no", "yes"],
        "rte=1,mnli=1": [*GOLD],
    }
    for model, given in answers.items():
        write_half(tmp_path / "s", model, given, CHOSE)
    for model in ("base", "rte", "mnli", "rte=0.5,mnli=0.5"):
        write_half(tmp_path / "s/held-out", model, answers[model], [3, 4, 5])
    write(tmp_path / "s", {"reported": ["base", "rte", "mnli", "rte=0.5,mnli=0.5"]})
    return tmp_path / "s"


def write_half(folder, model, given, rows):
    gold, answers = [GOLD[row] for row in rows], [given[row] for row in rows]
    groups = [str(row) for row in rows]
    write_run(folder, model, "d", gold, answers, groups, majority=2 / 3, settings={"rows": "halves"})


def write(folder, told, name="points.json"):
    write_json(folder / name, told)


def test_results_of_an_earlier_version_have_their_points_in_sweep_json(sweep):
    (sweep / "points.json").rename(sweep / "sweep.json")
    models = compare_results([parse_source(str(sweep / "sweep.json"))]).comparison.models
    assert sorted(models) == ["base", "mnli", "rte", "rte=0.5,mnli=0.5"]
    named = [ScoredRunSource(sweep / "base"), ScoredRunSource(sweep / "rte=1,mnli=1")]
    folders = (str(sweep / "base"), str(named[1].path))
    assert compare_results(named).findings[0] == ChosenOnTheseRows(folders)


def test_both_sweeps_may_be_in_one_folder_and_each_has_its_file(sweep):
    write(sweep, {"grid": {"lora_rank": ["4", "8"]}, "rows": []}, "sweep.json")
    assert points_file(sweep) == sweep / "points.json"
    (sweep / "points.json").unlink()
    assert points_file(sweep) is None


def test_base_singles_and_the_choice_on_the_other_half(sweep):
    comparison = compare_results([ScoredRunSource(sweep)]).comparison
    (section,) = comparison.datasets
    assert sorted(comparison.models) == ["base", "mnli", "rte", "rte=0.5,mnli=0.5"]
    assert section.n == 3
    shares = {model: round(3 * figure.value) for model, figure in section.figures.items()}
    assert shares == {"base": 1, "rte": 0, "mnli": 2, "rte=0.5,mnli=0.5": 2}
    assert section.baseline.accuracy == pytest.approx(2 / 3)


def test_it_is_said(sweep, capsys):
    findings = [*compare_results([ScoredRunSource(sweep)]).findings]
    moved = (sweep / "held-out").rename(sweep.parent / "moved")
    findings += compare_results([ScoredRunSource(moved)]).findings
    printed_line(capsys.readouterr().err, "note: ", sweep, "compared on its held-out half")
    assert not any(isinstance(finding, ChosenOnTheseRows | Note) for finding in findings)


def test_a_point_that_is_named_is_compared_on_the_half_that_chooses(sweep):
    named = [ScoredRunSource(sweep / "base"), ScoredRunSource(sweep / "rte=1,mnli=1")]
    compared = compare_results(named)
    assert compared.comparison.datasets[0].n == 3
    assert compared.findings[0] == ChosenOnTheseRows((str(sweep / "base"), str(named[1].path)))


def test_a_model_of_an_earlier_choice_is_left_out(sweep):
    write(sweep, {"reported": ["base", "rte", "mnli"]})
    models = compare_results([ScoredRunSource(sweep)]).comparison.models
    assert sorted(models) == ["base", "mnli", "rte"]


@pytest.mark.parametrize("told", [{}, {"reported": "x"}])
def test_a_damaged_sweep_is_named(sweep, told):
    write(sweep, told)
    with raises(ContentError, "points.json", "reported", "again"):
        compare_results([ScoredRunSource(sweep)])


@pytest.mark.parametrize(
    ("told", "fact"),
    [
        ({"grid": {"lora_rank": ["4", "8"]}, "rows": [], "failed": [{"run": "x"}]}, "x failed; recipe sweep"),
        ({"grid": {"lora_rank": ["4", "8"]}}, "rows"),
        ({"grid": 5, "rows": []}, "grid"),
        ({"grid": {"lora_rank": ["4", "8"]}, "rows": [{"run": "x"}]}, "x/results"),
    ],
)
def test_a_sweep_of_trainings_without_runs_to_compare_is_named(tmp_path, told, fact):
    write(tmp_path, told, "sweep.json")
    with raises(ContentError, fact):
        read_trained_sweep(tmp_path)
