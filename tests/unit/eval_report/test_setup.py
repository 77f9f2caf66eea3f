"""The next command of a comparison carries its decision out."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.fake_runs import write_run
from tuneyard.adapters.model.store import open_adapter
from tuneyard.eval.compare.__main__ import compare_results
from tuneyard.eval.report.setup import next_command
from tuneyard.eval.runs.find import ScoredRunSource

GOLD = ["yes", "no"] * 60
PLACES = {"rte": "saves/my-rte", "mnli": "saves/my-mnli"}


def predicted(correct: int) -> list[str]:
    """Answers of which the first `correct` are correct."""
    wrong = ["no" if label == "yes" else "yes" for label in GOLD[correct:]]
    return GOLD[:correct] + wrong


def write(folder: Path, correct: dict[str, int], digest: str = "") -> Path:
    """Runs of the base, an adapter alone and a merge on one dataset, with the places of their parts."""
    weights = {"base": {}, "rte": {"rte": 1, "mnli": 0}, "rte=0.5,mnli=0.5": {"rte": 0.5, "mnli": 0.5}}
    for model, number in correct.items():
        hashes = {"adapters": {"rte": digest}}
        facts = {"base": "models/b", "adapters": PLACES, "weights": weights[model], "hashes": hashes}
        write_run(folder, model, "s", GOLD, predicted(number), majority=0.5, majority_label="yes", **facts)
    return folder


@pytest.mark.parametrize(
    ("correct", "command"),
    [
        (
            {"base": 60, "rte": 70, "rte=0.5,mnli=0.5": 115},
            "tuneyard adapter merge saves/my-rte=0.5 saves/my-mnli=0.5 --out saves/",
        ),
        ({"base": 60, "rte": 115}, "tuneyard adapter export saves/my-rte --to gguf --out rte.gguf"),
        ({"base": 60, "rte": 61}, "tuneyard eval chat --model models/b"),
    ],
)
def test_the_decision_has_a_command(tmp_path: Path, correct: dict[str, int], command: str) -> None:
    """So has that of a suite whose steps all decide so."""
    folder = write(tmp_path / "runs", correct)
    for datasets in (["s"], ["s", "t"]):
        compared = compare_results([ScoredRunSource(folder, "", name) for name in datasets], has_mean=False)
        assert " ".join(next_command(compared)).startswith(command)


def test_an_adapter_that_was_trained_again_is_not_shipped(working_folder: Path) -> None:
    digest = open_adapter(write_adapter(Path(PLACES["rte"]))).digest
    for scored in (digest, "another"):
        runs = write(working_folder / scored, {"base": 60, "rte": 115}, scored)
        assert bool(next_command(compare_results([ScoredRunSource(runs)]))) == (scored == digest)


def test_a_model_that_is_not_to_be_shipped_has_no_next_command(tmp_path: Path) -> None:
    """It is better than the base, and worse than always giving the commonest answer."""
    compared = compare_results([ScoredRunSource(write(tmp_path / "runs", {"base": 5, "rte": 40}))])
    (section,) = compared.comparison.deciding
    assert (*section.conclusion.better, section.conclusion.best) == ("rte", None)
    assert next_command(compared) == []


def test_a_model_that_was_compared_with_nothing_is_not_shipped(tmp_path: Path) -> None:
    assert next_command(compare_results([ScoredRunSource(write(tmp_path / "runs", {"rte": 115}))])) == []


def test_results_of_other_tools_have_no_next_command(tmp_path: Path) -> None:
    for model, number in {"base": 60, "rte": 115}.items():
        write_run(tmp_path, model, "s", GOLD, predicted(number), majority=0.5, majority_label="yes")
    assert next_command(compare_results([ScoredRunSource(tmp_path)])) == []
