"""Replicates on the command line: what is shown, and what is refused."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
from click.testing import CliRunner
from scipy.stats import t as student

from tests.conftest import ROOT
from tests.fake_runs import answers, write_run
from tests.messages import raises
from tests.unit.eval_judge.test_sections import make
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare import cli
from tuneyard.eval.judge.questions.replicates import Replicates, compare_replicates, parse_replicates
from tuneyard.eval.read.scored_run import ScoredRun, by_dataset

SCHEMA = json.loads((ROOT / "core" / "schemas" / "comparison.json").read_text(encoding="utf-8"))


def test_the_table_and_json_have_the_recipe(tmp_path: Path) -> None:
    gold = ["yes", "no"] * 60
    for model, right in (("base", 60), ("rte-s1", 80), ("rte-s2", 90), ("rte-s3", 84)):
        for dataset in ("s", "t"):
            write_run(tmp_path / "runs", model, dataset, gold, answers(gold, right, right))
    given = [str(tmp_path / "runs"), "--replicates", "rte=rte-s1,rte-s2,rte-s3", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(cli, given)
    assert done.exit_code == 0, done.output
    assert "rte on s " in done.output and "rte on mean" in done.output
    found = json.loads((tmp_path / "o" / "table.json").read_text())
    assert jsonschema_rs.validator_for(SCHEMA).is_valid(found)
    mean = found["replicates"][-1]
    assert (mean["dataset"], mean["models"]) == ("mean", ["rte-s1", "rte-s2", "rte-s3"])
    gains = [found["mean"]["models"][m]["accuracy"] for m in mean["models"]]
    base = found["mean"]["models"]["base"]["accuracy"]
    assert mean["difference"]["value"] == pytest.approx(sum(gains) / 3 - base)


@pytest.mark.parametrize("text", ["rte", "rte=a", "=a,b", "rte=a,a", "rte=a,,"])
def test_what_is_no_recipe(text: str) -> None:
    with raises(RequestError, "--replicates"):
        parse_replicates([text])


def runs() -> list[ScoredRun]:
    flags = [True, False] * 10
    return [make("base", flags), make("a", flags), make("b", flags, "t"), make("c", flags)]


@pytest.mark.parametrize(
    ("models", "facts"),
    [
        (["a", "base"], ""),
        (["a", "x"], ""),
        (["a", "b"], ""),
    ],
)
def test_what_cannot_be_replicates(models: list[str], facts: str) -> None:
    with raises(RequestError, *facts.split("; ")):
        compare_replicates(by_dataset(runs()), "base", {"r": models})


def test_replicates_need_the_base_on_their_dataset() -> None:
    flags = [True, False] * 10
    own = [make("base", flags), make("a", flags, "t"), make("b", flags, "t")]
    with raises(RequestError):
        compare_replicates(by_dataset(own), "base", {"r": ["a", "b"]})


@pytest.mark.parametrize(("seeds", "times"), [(2, "7.2"), (3, "2"), (4, "1.3"), (5, ""), (8, "")])
def test_few_seeds_are_told_what_they_are_worth(seeds: int, times: str) -> None:
    """Student's 97.5 % point of seeds - 1 degrees of freedom over the root of their number, to that of 5."""
    found = Replicates({"rte": [f"s{n}" for n in range(seeds)]}).warnings
    assert len(found) == bool(times)
    if times:
        assert f"over {seeds} seeds is about {times} times as wide" in found[0] and "train five" in found[0]
        width, five = (student.ppf(0.975, n - 1) / n**0.5 for n in (seeds, 5))
        assert float(times) == pytest.approx(width / five, rel=0.03)
