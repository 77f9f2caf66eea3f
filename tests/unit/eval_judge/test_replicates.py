"""Replicates on the command line: what is shown, and what is refused."""

from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.scoring import call, invoke
from tests.fake_runs import VALID, answers, by_dataset, fake_run, write_run
from tests.json_files import read_json
from tests.messages import printed, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare.__main__ import cli, parse_replicates
from tuneyard.eval.judge.ask import compare_runs
from tuneyard.eval.judge.findings import FewSeeds
from tuneyard.eval.judge.questions.replicates import few_seeds, with_settings
from tuneyard.eval.judge.sections import compare
from tuneyard.eval.report.verdict import decisions
from tuneyard.eval.runs.scored_run import ScoredRun

GOLD = ["yes", "no"] * 60
SLOW = {"low": [78, 84, 80, 86, 82], "high": [83, 79, 87, 81, 85]}  # correct answers of each seed


def write(folder: Path, *datasets: str, with_base: bool = True, **settings: list[int]) -> list[str]:
    """Runs of settings, each with its seeds, and the options of compare."""
    options = [str(folder)]
    for dataset in datasets:
        if with_base:
            write_run(folder, "base", dataset, GOLD, answers(GOLD, 60, 99))
        for name, rights in settings.items():
            for seed, right in enumerate(rights):
                write_run(folder, f"{name}-{seed}", dataset, GOLD, answers(GOLD, right, right))
    for name, rights in settings.items():
        models = ",".join(f"{name}-{seed}" for seed in range(len(rights)))
        options += ["--replicates", f"{name}={models}"]
    return options


def run(*options: str) -> Result:
    done = invoke(cli, *options)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.usefixtures("without_plots")
def test_settings_that_differ_less_than_their_seeds_are_not_told_apart(tmp_path: Path) -> None:
    done = run(*write(tmp_path / "runs", "s", **SLOW), "--out", str(tmp_path / "o"))
    assert "Ship high: 69.2 %" in done.output
    assert "not shown to be better than low" in done.output
    found = read_json(tmp_path / "o/table.json")
    assert VALID(found)
    section = found["datasets"]["s"]
    assert found["models"] == ["base", "high", "low"] == sorted(section["models"])
    assert section["models"]["low"]["trainings"] == [f"low-{seed}" for seed in range(5)]
    assert section["models"]["low"]["accuracy"] == pytest.approx(82 / 120)
    assert section["models"]["low"]["seed_deviation"] == pytest.approx(10**0.5 / 120)
    between = section["comparisons"][-1]
    assert {between["model"], between["against"]} == {"low", "high"}
    assert between["p"] > 0.05 and between["low"] < 0 < between["high"]
    assert section["ship"] == "high" and section["tied_with"] == ["low"]
    page = (tmp_path / "o/report.html").read_text()
    assert '"models":["base","high-0"' in page


@pytest.mark.usefixtures("without_plots")
def test_a_setting_that_is_better_whatever_its_seed_wins(tmp_path: Path) -> None:
    options = write(tmp_path / "runs", "s", "t", low=[62, 63, 64, 62, 63], high=[108, 109, 110, 108, 109])
    done = run(*options, "--out", str(tmp_path / "o"))
    assert "Ship high" in done.output and "It is better than low" in done.output
    text = (tmp_path / "o/table.md").read_text(encoding="utf-8")
    assert ", 5 seeds, standard deviation 0.7 points" in text


@pytest.mark.usefixtures("without_plots")
def test_without_a_base_settings_are_compared_with_the_first(tmp_path: Path) -> None:
    done = run(*write(tmp_path / "runs", "s", with_base=False, **SLOW), "--out", str(tmp_path / "o"))
    assert done.output.startswith("Keep high: there is no evidence") and "| high ← " in done.output


@pytest.mark.usefixtures("without_plots")
def test_other_metrics_and_a_choice_on_half_take_settings(tmp_path: Path) -> None:
    options = write(tmp_path / "runs", "s", **SLOW)
    run(*options, "--metric", "label_mass", "--out", str(tmp_path / "m"))
    measured = read_json(tmp_path / "m/table.json")
    assert measured["datasets"]["s"]["models"]["low"]["trainings"][0] == "low-0"
    for metric in ("accuracy", "brier"):
        out = tmp_path / metric
        run(*options, "--choose-on", "half", "--metric", metric, "--out", str(out))
        found = read_json(out / "table.json")
        assert VALID(found)
        (choice,) = found["choice"]
        assert found["models"] == ["base", choice["model"]] and choice["model"] in SLOW
        assert found["datasets"]["s"]["n"] == choice["held_out"]["n"] < 120
        assert choice["metric"] == metric
        assert (choice["choosing"]["majority"] is None) == (metric != "accuracy")


def test_single_models_are_not_mixed_with_settings(tmp_path: Path) -> None:
    with raises(RequestError, "--replicates"):
        call(cli, *write(tmp_path / "r", "s", **SLOW), "--by", "type", "--out", "x")


@pytest.mark.parametrize("text", ["rte", "rte=a", "=a,b", "rte=a,a", "rte=a,,"])
def test_what_is_no_recipe(text: str) -> None:
    with raises(RequestError, "--replicates"):
        parse_replicates([text])


def test_a_training_has_one_recipe() -> None:
    with raises(RequestError, "--replicates y: b"):
        parse_replicates(["x=a,b", "y=b,c"])


def runs() -> list[ScoredRun]:
    flags = [True, False] * 10
    return [fake_run("base", flags), fake_run("a", flags), fake_run("b", flags, "t"), fake_run("c", flags)]


@pytest.mark.parametrize(
    ("name", "models"), [("r", ["a", "base"]), ("r", ["a", "x"]), ("r", ["a", "b"]), ("c", ["a", "c"])]
)
def test_what_cannot_be_replicates(name: str, models: list[str]) -> None:
    with raises(RequestError, f"--replicates {name}"):
        compare_runs(by_dataset(runs()), recipes={name: models})


def test_replicates_without_the_base_on_their_dataset_are_compared_with_nothing() -> None:
    flags = [True, False] * 10
    own = [fake_run("base", flags), fake_run("a", flags, "t"), fake_run("b", flags, "t")]
    comparison = compare_runs(by_dataset(own), recipes={"r": ["a", "b"]}).comparison
    on_s, on_t = decisions(comparison)
    printed(on_s, "On s: Nothing to compare: only the base ")
    printed(on_t, "On t: Nothing to compare: only r ")
    met = [*own, fake_run("base", flags, "t")]  # the base alone has both datasets: their mean has no test
    printed(decisions(compare_runs(by_dataset(met), recipes={"r": ["a", "b"]}).comparison)[1], "On t: Keep")


def test_models_on_different_datasets_are_not_compared() -> None:
    with raises(RequestError, "s (base), t (a)"):
        compare_runs(by_dataset([fake_run("base", [True]), fake_run("a", [True], "t")]))


def test_models_beside_settings_are_candidates_too() -> None:
    flags = [True, False] * 10
    own = [fake_run("base", flags), fake_run("a", flags), fake_run("x", flags[::-1]), fake_run("b", flags)]
    comparison = compare(with_settings(by_dataset(own), "base", {"r": ["a", "b"]}), "base")
    assert comparison.models == ["base", "r", "x"]
    assert [test.model for test in comparison.datasets[0].against_base] == ["r", "x"]


@pytest.mark.parametrize(("seeds", "is_warned"), [(4, True), (5, False)])
def test_few_seeds_are_warned_of(seeds: int, is_warned: bool) -> None:
    findings = few_seeds({"rte": [f"s{n}" for n in range(seeds)]})
    assert findings == ([FewSeeds("rte", seeds)] if is_warned else [])
