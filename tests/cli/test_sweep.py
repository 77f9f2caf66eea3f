"""python -m eval.sweep on a tiny model: the points of a grid or a search, the halves, and what is written."""

import hashlib
import itertools
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from testing.tiny import write_adapter
from tests.cli.scoring import call, predictions
from tests.fake_runs import write_run
from tests.json_files import read_json, write_json
from tests.messages import printed_line
from tests.runs_cut import Killed, kill_while_scoring, tree
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.sweep.__main__ import Sweep, cli, judge, next_command, read_points, read_reported, write
from tuneyard.eval.sweep.points import Axes, weight_axes
from tuneyard.eval.sweep.tables import _heat

WORDS = [
    "dog",
    "cat",
    "man",
    "house",
    "bread",
    "kitchen",
    "song",
    "yes",
    "no",
    "maybe",
    "a",
    "he",
    "她",
    *"hijklm",
]
ROWS = [
    {"instruction": f"Is it {word}?", "output": "yes" if n % 3 else "no", "idx": n, "group": str(n // 2)}
    for n, word in enumerate(WORDS)
]


pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")


@pytest.fixture
def folders(tmp_path: Path, tiny_model: Path):
    for name, rows in (("one", ROWS), ("two", ROWS[:12])):
        write_json(tmp_path / f"{name}.json", rows)
    left, right = (write_adapter(tmp_path / name, seed=seed) for seed, name in enumerate(("left", "right")))
    given = ["--model", tiny_model, "--adapter", f"l={left}", "--adapter", f"r={right}"]
    return [*given, "--data", tmp_path / "one.json", "--data", tmp_path / "two.json"]


def test_every_point_is_what_nli_says_of_that_mix_and_the_choice_is_made_on_one_half(
    folders, tmp_path
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    call(cli, *folders, "--grid", "1,0,0.5", "--out", out)
    models = {path.name for path in out.iterdir() if path.is_dir()} - {"held-out"}
    mix = f"mix={tmp_path}/left:0.5+{tmp_path}/right:1"
    call(nli, *folders[:2], *folders[-4:], "--adapter", mix, "--out", alone)
    told = read_json(out / "points.json")
    assert {*map(tuple, told["points"].values())} == {*itertools.product((0, 0.5, 1), repeat=2)}
    assert models == told["points"].keys() and {"l=0.5,r=0.5", "l=1,r=1"} < models
    assert sorted(told["reported"]) == sorted({"base", "l", "r", told["ship"]})
    assert sorted(path.name for path in (out / "held-out").iterdir() if path.is_dir()) == told["reported"]
    for name, count in (("one", 19), ("two", 12)):
        first = [n for n in range(count) if hashlib.sha256(f"42 {n // 2}".encode()).digest()[0] % 2 == 0]
        assert told["rows_to_choose_on"][name] == first
        other = [n for n in range(count) if n not in first]
        for model, whole in (("l=0.5,r=1", "mix"), ("base", "base")):
            assert answers_of(out / model / name) == [answers_of(alone / whole / name)[n] for n in first]
        held_out = answers_of(out / "held-out/base" / name)
        assert held_out == [answers_of(alone / "base" / name)[n] for n in other]
        choice = next(choice for choice in told["choice"] if choice["dataset"] == name)
        assert choice["choosing"]["n"] + choice["held_out"]["n"] == count
    assert [choice["dataset"] for choice in told["choice"]] == ["one", "two", "mean"]
    assert told["ship"] == told["choice"][-1]["model"]
    kept = {path.name for path in out.rglob("*") if path.is_file()}
    written = {
        "run.json",
        "predictions.jsonl",
        "results.json",
        "points.json",
        "table.md",
        "one.png",
        "two.png",
    }
    if told["ship"] != "base":
        written.add("merge.yaml")
        weights = zip(("left", "right"), told["points"][told["ship"]], strict=True)
        shipped = [f"{tmp_path}/{name}={weight:g}" for name, weight in weights if weight]
        assert yaml.safe_load((out / "merge.yaml").read_text()) == {"adapters": shipped}
    assert kept == written


def answers_of(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """The record and the log-probabilities of each row."""
    return [(line["idx"], line["choices"]) for line in predictions(folder)]


def scored(tmp_path: Path, gold: list[str], answers: dict[str, list[str]], half: list[int]) -> Sweep:
    """A sweep over one adapter with these answers, whose halves are `half` and the other rows."""
    held_out = [n for n in range(len(gold)) if n not in half]
    for folder, rows in ((tmp_path, half), (tmp_path / "held-out", held_out)):
        for model, given in answers.items():
            expected = [gold[n] for n in rows]
            majority = max(map(expected.count, expected)) / len(rows)
            write_run(folder, model, "s", expected, [given[n] for n in rows], majority=majority)
    points = {"base": (0.0,), "r": (1.0,)}
    return Sweep(tmp_path, Axes("base", ["r"], points, {}), {"s": half}, reported=["base", "r"])


def test_the_half_that_chose_is_drawn_under_the_decision_on_the_other(tmp_path, monkeypatch) -> None:
    """Chosen where it has 6 of 6 right, the adapter has 3 of 6 right on the other rows."""
    gold, drawn, answers = ["yes", "no"] * 6, [], {}
    for model, right in (("base", [0] * 6 + [1] * 6), ("r", [1] * 9 + [0] * 3)):
        answers[model] = [g if r else "unknown" for g, r in zip(gold, right, strict=True)]
    monkeypatch.setattr("tuneyard.eval.sweep.tables.draw", lambda *given: drawn.append(given))
    sweep = scored(tmp_path, gold, answers, [*range(6)])
    compared = judge(sweep, read_points(sweep), read_reported(sweep))
    text = write(sweep, compared)
    assert "merge" not in next_command(tmp_path, compared)
    ((title, choice, _, points, *_),) = drawn
    assert choice.choosing.models[choice.model].value == 1.0 and points[choice.model] == (1.0,)
    assert title.startswith("Keep the base") and text.startswith(title)
    panel = Figure().add_subplot()
    _heat(panel, choice, ["a", "b"], {"base": (0.0, 0.0), "r": (1.0, 0.5)}, "base")
    frames = [frame.get_center() for frame in panel.patches]  # of the best cell and of the base's
    assert frames == [pytest.approx((1, 1)), pytest.approx((0, 0))]


def test_the_baseline_is_that_of_the_half_reported_on_as_compare_has_it(tmp_path, capsys) -> None:
    """6 of 10 answers are `no`: 4 of the 5 that are chosen on, 2 of the 5 that are reported on."""
    gold = ["no"] * 4 + ["yes"] * 4 + ["no"] * 2
    sweep = scored(tmp_path, gold, {"base": gold, "r": gold}, [*range(5)])
    text = write(sweep, judge(sweep, read_points(sweep), read_reported(sweep)))
    assert "| majority-class baseline  | 60.0 % (yes)" in text
    (choice,) = read_json(tmp_path / "points.json")["choice"]
    assert (choice["choosing"]["majority"], choice["held_out"]["majority"]) == (0.8, 0.6)
    call(compare, tmp_path, "--out", tmp_path / "verdict")
    printed_line(capsys.readouterr().out, "| majority-class baseline", "60.0 % (yes)")


def test_after_a_sweep_that_keeps_the_base_nothing_is_merged(tmp_path) -> None:
    """The next command merged OUT/merge.yaml, which a sweep without weights to ship does not write."""
    gold = ["yes", "no"] * 12
    sweep = scored(tmp_path, gold, {"base": gold, "r": gold[::-1]}, [*range(12)])
    compared = judge(sweep, read_points(sweep), read_reported(sweep))
    assert compared.comparison.deciding[0].conclusion.recommended == "base"
    assert "merge" not in next_command(tmp_path, compared)


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ([], "9 to 25 models × (one 4 + two 4) examples, then 3 to 4 × 12 of the other half: at most 248"),
        (
            ["--grid", "0,1"],
            "4 models × (one 4 + two 4) examples, then 3 to 4 × 12 of the other half: at most 80",
        ),
    ],
)
def test_a_dry_run_counts_the_rows_and_writes_nothing(folders, tmp_path, capsys, grid, sentence) -> None:
    call(cli, *folders, *grid, "--out", tmp_path / "out", "--dry-run", "--limit", "10")
    assert capsys.readouterr().out == f"{sentence} in all, 0 of them done before\n"
    assert not (tmp_path / "out").exists()


def neighbours(point):
    """The points at most 0.25 away in each weight, without negative weights."""
    steps = itertools.product((-0.25, 0, 0.25), repeat=len(point))
    moved = {tuple(map(sum, zip(point, step, strict=True))) for step in steps}
    return {weights for weights in moved if min(weights) >= 0}


@pytest.mark.parametrize("axes", [1, 2])
def test_a_search_scores_the_coarse_points_and_those_around_the_best_one(folders, tmp_path, axes):
    out = tmp_path / "out"
    call(cli, *folders[: 2 + 2 * axes], *folders[-4:], "--out", out)
    sweep = read_json(out / "points.json")
    points = {tuple(point) for point in sweep["points"].values()}
    assert {*itertools.product((0, 0.5, 1), repeat=axes)} < points
    assert len(points) <= 25
    scores = {}
    for model, score in sweep["choice"][-1]["choosing"]["models"].items():
        scores[model] = score["value"]
    assert [*scores] == sorted(scores, key=sweep["points"].get)
    best = max(scores, key=scores.get)  # of equal ones the first: the smaller weights
    assert sweep["ship"] == best
    assert neighbours(sweep["points"][best]) <= points or len(points) == 25
    top = sweep["flat_top"]
    assert top["best"] == best
    assert {test["model"] for test in top["comparisons"]} == {*scores} - {best}
    assert {*top["not_shown_worse"]} == {test["model"] for test in top["comparisons"] if test["p"] >= 0.05}


def test_a_search_that_was_killed_ends_with_the_same_bytes(folders, tmp_path, monkeypatch) -> None:
    """Killed in one of the first points, then in a point around the best one: a batch is a point here."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    short = [*folders[:6], *folders[-2:], "--limit", "12"]
    call(cli, *short, "--out", whole)
    assert len(read_json(whole / "points.json")["points"]) > 9
    kill_while_scoring(monkeypatch, (4, 10))
    for options in ([], ["--resume"]):
        with pytest.raises(Killed):
            call(cli, *short, "--out", cut, *options)
        assert not (cut / "points.json").exists()
    call(cli, *short, "--out", cut, "--resume")
    resumed = tree(cut)
    for name, content in tree(whole).items():
        assert resumed.pop(name) == content.replace(str(whole).encode(), str(cut).encode()), name
    assert not resumed


POINTS = [
    ((0.5, 0.5), 8, (0.25, 0.25), (0.75, 0.75)),
    ((0, 0), 3, (0, 0.25), (0.25, 0.25)),
    ((1, 1), 8, (0.75, 0.75), (1.25, 1.25)),
    ((1,), 2, (0.75,), (1.25,)),
]


@pytest.mark.parametrize(("best", "count", "least", "largest"), POINTS)
def test_weights_grow_beyond_1_and_never_below_0(folders, best, count, least, largest) -> None:
    adapters = (*map(str, folders[3:6:2]),)[: len(best)]
    axes = weight_axes(ScoringRequest(str(folders[1]), Path("out"), adapters))
    refined = axes.refined({point: model for model, point in axes.points.items()}[best])
    added = {refined.points[model] for model in refined.without(axes)}
    assert added == neighbours(best) - {best}
    assert (len(added), min(added), max(added)) == (count, least, largest)


def test_a_search_ends_at_25_points(folders) -> None:
    """The best point is always that of the largest weights, as if both adapters were too weak."""
    axes = weight_axes(ScoringRequest(str(folders[1]), Path("out"), (str(folders[3]), str(folders[5]))))
    counts = []
    for _ in range(5):
        *_, largest = axes.models
        axes = axes.refined(largest)
        counts.append(len(axes.points))
    assert counts == [17, 22, 25, 25, 25]
    points = [*axes.points.values()]
    assert points == sorted(points)
    assert (1.5, 1.25) in points and (1.5, 1.75) in points and (1.75, 1.75) not in points


def test_a_resumed_sweep_asks_only_what_is_missing_and_ends_alike(folders, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    call(cli, *folders, "--grid", "0,1", "--out", out)
    whole = tree(out)
    (out / "l=1,r=1/two/results.json").unlink()
    for name in ("points.json", "table.md", "one.png"):
        (out / name).unlink()
    capsys.readouterr()
    call(cli, *folders, "--grid", "0,1", "--out", out, "--resume", "--dry-run")
    assert "at most 124 in all, 98 of them done before" in capsys.readouterr().out
    call(cli, *folders, "--grid", "0,1", "--out", out, "--resume")
    assert tree(out) == whole
    assert capsys.readouterr().out.count("done before") == 7 + 3 * 2


def test_checkpoints_are_a_curve_over_their_steps(folders, working_folder, tiny_model) -> None:
    run = working_folder / "run"
    (working_folder / "saves/run").mkdir(parents=True)  # has nothing to do with the folder given
    for step, seed in ((10, 1), (2, 2)):
        write_adapter(run / f"checkpoint-{step}", seed=seed)
    for path in write_adapter(working_folder / "end", seed=3).iterdir():
        path.rename(run / path.name)
    (run / "trainer_state.json").write_text('{"global_step": 12}')
    call(cli, "--model", tiny_model, *folders[-2:], "--checkpoints", "run", "--out", working_folder / "out")
    told = read_json(working_folder / "out/points.json")
    assert told["points"] == {"base": [0], "step-2": [2], "step-10": [10], "step-12": [12]}
    assert told["axes"] == ["step"]
    assert (working_folder / "out/two.png").is_file()


BAD = {
    "no adapter": (["--grid", "0,1"], "--adapter; --checkpoints"),
    "no number": (["--adapter", "l=LEFT", "--grid", "0,x"], "x; --grid"),
    "both": (["--adapter", "l=LEFT", "--checkpoints", "LEFT"], "--adapter"),
    "no run": (["--checkpoints", "LEFT"], "output_dir; LoRA"),
    "a server": (["--backend", "openai", "--url", "http://x"], ""),
}


@pytest.mark.parametrize(("more", "facts"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused_before_anything_is_written(folders, tmp_path, refused, more, facts) -> None:
    more = [text.replace("LEFT", str(tmp_path / "left")) for text in more]
    with refused(RequestError, facts):
        call(cli, *folders[:2], *folders[-2:], "--out", tmp_path / "out", *more)


def test_too_few_rows_for_two_halves_are_refused(folders, tmp_path, refused) -> None:
    write_json(tmp_path / "two.json", [ROWS[0], {**ROWS[1], "group": "0"}])
    with refused(ContentError, "two.json", 2):
        call(cli, *folders[:4], *folders[-2:], "--grid", "0,1", "--out", tmp_path / "out")


def test_a_grid_of_merges_is_compared_with_the_base_and_each_adapter_alone(folders, tmp_path) -> None:
    out = tmp_path / "out"
    call(cli, *folders, "--grid", "0.5", "--limit", "8", "--out", out)
    assert read_json(out / "points.json")["points"] == {"base": [0, 0], "l=0.5,r=0.5": [0.5, 0.5]}
    call(compare, out, "--out", tmp_path / "verdict")
    compared = read_json(tmp_path / "verdict/table.json")["models"]
    assert {"base", "l", "r"} <= set(compared)


def test_a_sweep_whose_best_point_is_the_base_ships_no_adapter(folders, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    call(cli, *folders, "--grid", "0", "--limit", "8", "--out", out)
    assert read_json(out / "points.json")["ship"] == "base"
    assert not (out / "merge.yaml").exists()
    printed_line(capsys.readouterr().out, "base", "no adapter to ship")
