"""`eval sweep --search N` on a tiny model: its points, its halves, resume, and what it refuses."""

import itertools
import json
from pathlib import Path

import pytest
import yaml

from testing.tiny import write_adapter
from tests.cli.scoring import call
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.runs_cut import Killed, kill_while_scoring, tree
from tuneyard.core.errors import RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.sweep.__main__ import cli

pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")
WORDS = ("dog", "cat", "man", "house", "bread", "kitchen", "song", "yes", "no", "maybe", "a", "he")
ROWS = [
    {"instruction": f"Is it {word}?", "output": "yes" if number % 3 else "no", "idx": number}
    for number, word in enumerate(WORDS)
]
FIRST = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.33, 0.33, 0.33)]


@pytest.fixture
def words(tmp_path: Path, tiny_model: Path):
    """The options of a sweep over three adapters x, y and z."""
    write_json(tmp_path / "rows.json", ROWS)
    options = ["--model", tiny_model, "--data", tmp_path / "rows.json"]
    for seed, name in enumerate("xyz"):
        options += ["--adapter", f"{name}={write_adapter(tmp_path / name, seed=seed)}"]
    return options


def points_of(out: Path) -> list[tuple[float, ...]]:
    return [tuple(point) for point in read_json(out / "points.json")["points"].values()]


def test_a_search_scores_the_base_each_adapter_alone_equal_weights_and_n_points_in_all(words, tmp_path):
    out = tmp_path / "out"
    call(cli, *words, "--search", "8", "--out", out)
    points = points_of(out)
    assert len(points) == len(set(points)) == 8
    assert {(0, 0, 0), *FIRST} <= set(points)
    proposed = set(points) - {(0, 0, 0), *FIRST}
    assert all(0 <= weight <= 1.5 and weight == round(weight, 2) for weight in itertools.chain(*proposed))
    sweep = read_json(out / "points.json")
    scores = {model: score["value"] for model, score in sweep["choice"][-1]["choosing"]["models"].items()}
    assert scores.keys() == sweep["points"].keys()
    assert sweep["ship"] == max(scores, key=scores.get)
    assert sorted(sweep["reported"]) == sorted({"base", "x", "y", "z", sweep["ship"]})
    choosing = set(sweep["rows_to_choose_on"]["rows"])
    for model in sweep["points"]:
        assert rows_in(out / model / "rows") == choosing
    for model in sweep["reported"]:
        assert rows_in(out / "held-out" / model / "rows") == set(range(len(ROWS))) - choosing
    assert (out / "rows.png").is_file()
    if sweep["ship"] != "base":
        weights = zip("xyz", sweep["points"][sweep["ship"]], strict=True)
        recipe = [f"{tmp_path}/{name}={weight:g}" for name, weight in weights if weight]
        assert yaml.safe_load((out / "merge.yaml").read_text()) == {"adapters": recipe}
    call(compare, out, "--out", tmp_path / "verdict")
    assert {"base", "x", "y", "z"} <= set(read_json(tmp_path / "verdict/table.json")["models"])


def rows_in(folder: Path) -> set[int]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return {json.loads(line)["idx"] for line in lines}


def test_the_seed_decides_the_points(words, tmp_path):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        call(cli, *words, "--search", "7", "--seed", seed, "--out", tmp_path / name)
    assert points_of(tmp_path / "one") == points_of(tmp_path / "again") != points_of(tmp_path / "other")


def test_a_search_that_was_killed_ends_with_the_same_bytes_and_can_be_extended(words, tmp_path, monkeypatch):
    """Killed in one of the first points, then in one that was proposed: a batch is a point here."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    call(cli, *words, "--search", "8", "--out", whole)
    kill_while_scoring(monkeypatch, (3, 8))
    for options in ([], ["--resume"]):
        with pytest.raises(Killed):
            call(cli, *words, "--search", "8", "--out", cut, *options)
        assert not (cut / "points.json").exists()
    call(cli, *words, "--search", "8", "--out", cut, "--resume")
    resumed = tree(cut)
    for name, content in tree(whole).items():
        assert resumed.pop(name) == content.replace(str(whole).encode(), str(cut).encode()), name
    assert not resumed
    call(cli, *words, "--search", "10", "--out", cut, "--resume")
    longer = points_of(cut)
    assert len(longer) == 10 and set(points_of(whole)) < set(longer)


def test_without_the_base_it_is_no_point_and_two_adapters_can_be_searched(words, tmp_path):
    call(cli, *words[:8], "--search", "5", "--no-base", "--out", tmp_path / "out")
    points = points_of(tmp_path / "out")
    assert len(points) == 5 and (0, 0) not in points
    assert {(1, 0), (0, 1), (0.5, 0.5)} < set(points)


def test_a_dry_run_counts_n_points(words, tmp_path, capsys):
    call(cli, *words, "--search", "20", "--out", tmp_path / "out", "--dry-run")
    assert "5 to 20 models ×" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


REFUSED = {
    "too few": (["--search", "4"], "--search; 5; base"),
    "a grid": (["--search", "9", "--grid", "0,1"], "--search; --grid"),
    "checkpoints": (["--search", "9", "--checkpoints", "x"], "--search; --checkpoints"),
    "no search": ([], "3; --search"),
    "a grid of three": (["--grid", "0,1"], "3; --search"),
}


@pytest.mark.parametrize(("options", "facts"), REFUSED.values(), ids=REFUSED)
def test_requests_that_cannot_be_searched(words, tmp_path, options, facts):
    with raises(RequestError, *facts.split("; ")):
        call(cli, *words, *options, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_adapter_has_no_weights_to_search(words, tmp_path):
    with raises(RequestError, "--search", "two or more"):
        call(cli, *words[:6], "--search", "9", "--out", tmp_path / "out")


def test_without_optuna_the_message_has_its_install_line(words, tmp_path, monkeypatch):
    from tuneyard.core import errors

    find_spec = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "optuna" else find_spec(name))
    with raises(RequestError, "optuna", "setup-search"):
        call(cli, *words, "--search", "9", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
