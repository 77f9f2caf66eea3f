"""Grids, judged runs and the table over them, without a training."""

import contextlib
import math
import os
import shlex
import sys

import pytest

from tests.cli.scoring import call
from tests.json_files import read_json, write_json
from tests.messages import printed, printed_line, raises
from tests.unit.recipes.make import write_recipe
from tuneyard.core.drawing import plots as drawing
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.training.metrics import UNKNOWN, metric_of
from tuneyard.core.training.training_run import STARTED, TRAINING
from tuneyard.recipes.checking import checked
from tuneyard.recipes.llamafactory.answer import Facts, LaidOut
from tuneyard.recipes.output_dir.record import inputs_of
from tuneyard.recipes.recipe.schema import known_keys
from tuneyard.recipes.sweep import __main__ as command
from tuneyard.recipes.sweep import results, run
from tuneyard.recipes.sweep import sweep as sweeps
from tuneyard.recipes.sweep.grid import Grid, parse_grid, run_names
from tuneyard.recipes.sweep.settings import settings_of
from tuneyard.recipes.sweep.sweep import GridRequest
from tuneyard.recipes.sweep.sweep import state as sweep_state
from tuneyard.recipes.training.train import TrainRequest

AXES = {"lora_rank": ["4", "8"], "lora_alpha": ["8", "16"]}


ROWS = [
    {"lora_rank": rank, "lora_alpha": alpha, "eval_loss": int(rank) / int(alpha), "run": "x"}
    for rank in AXES["lora_rank"]
    for alpha in AXES["lora_alpha"]
]


def test_only_settings_with_several_values_are_axes():
    grid = parse_grid(["rank=4,8,4", "learning_rate=1e-4", "max_steps=2", "model_name_or_path=m/base"])
    assert grid.axes == {"lora_rank": ["4", "8"]}
    assert grid.fixed == {"learning_rate": "1e-4", "max_steps": "2", "model_name_or_path": "m/base"}


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("points.json", {"points": {}, "axes": [], "rows_to_choose_on": {}}, True),
        ("sweep.json", {"points": {}, "axes": [], "rows_to_choose_on": {}}, True),  # of an earlier version
        ("run.json", {"settings": {"command": "eval.nli"}}, True),
        ("training.json", {"inputs": {}}, True),
        ("sweep.json", {"metric": "eval_loss", "grid": AXES, "rows": []}, False),
    ],
)
def test_a_grid_is_not_written_into_the_results_of_another_command(tmp_path, name, content, refused):
    write_json(tmp_path / name, content)
    with raises(RequestError, "another command", "--out") if refused else contextlib.nullcontext():
        results.check_folder(tmp_path)


def test_a_list_stands_in_brackets():
    fixed = parse_grid(["rank=4,8", "lora_target=[q_proj,v_proj]"])
    assert fixed == Grid({"lora_rank": ["4", "8"]}, {"lora_target": "q_proj,v_proj"})
    varied = parse_grid(["lora_target=[q_proj,v_proj],all,[q_proj]"])
    assert varied.axes == {"lora_target": ["q_proj,v_proj", "all", "q_proj"]}
    with raises(RequestError, "lora_target=[q_proj,v_proj", "2 runs"):
        parse_grid(["lora_target=q_proj,v_proj"])


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["rank", "seed=1,2"], "expected a setting"),
        (["rank=,", "seed=1,2"], "expected a setting"),
        (["rank=4,8", "output_dir=saves/x"], "--out DIR"),
        (["rank=4,8", "lora_rank=16"], ""),
        (["rank=4", "max_steps=2"], ""),
        (["lora_target=[q_proj,v_proj"], ""),
    ],
)
def test_what_is_no_grid_is_refused(arguments, facts):
    with raises(RequestError, facts):
        parse_grid(arguments)


def report_on(folder, rows, grid, metric="accuracy", is_scored=True):
    """What `write_report` prints and writes: sweep.md and sweep.json."""
    found = results.SweepResults(folder, grid, metric, metric_of(metric), rows, [], is_scored)
    results.write_report(found)
    return (folder / "sweep.md").read_text(), read_json(folder / "sweep.json")


def test_seeds_of_a_setting_are_one_row_with_their_deviation(tmp_path):
    losses = {"4": [1.0, 1.4], "8": [1.1, 1.5], "16": [3.0, 3.1]}
    rows = [
        {"lora_rank": rank, "seed": str(seed), "eval_loss": loss, "run": "x"}
        for rank, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    grid = Grid({"lora_rank": list(losses), "seed": ["0", "1"]}, {})
    text, found = report_on(tmp_path, rows, grid, "eval_loss", is_scored=False)
    assert text.index("1.2000 ± 0.283") < text.index("1.3000") < text.index("3.0500")
    assert "--eval" in text and "verdict" not in found


def writing(**results):
    """Return a judge that writes results.json files below {results}, and counts its runs in {adapter}."""
    code = "import json, pathlib, sys; open(pathlib.Path(sys.argv[2], 'runs'), 'a').write('x'); "
    code += "[(p := pathlib.Path(sys.argv[1], name), p.mkdir(parents=True), (p / 'results.json')"
    code += f".write_text(json.dumps(found))) for name, found in {results!r}.items()]"
    return shlex.join(["python", "-c", code, "{results}", "{adapter}"])


def scored_by(folder, judge, metric):
    """Let a command score a folder, unless it has done so, and return the figure and its meaning."""
    run.evaluate(folder, judge, has_log=False)
    return results.score(folder, True, metric)


def test_judged_by_a_command_once(tmp_path):
    judge = writing(a={"accuracy": 0.75}, b={"accuracy": 0.25})
    for _ in range(2):
        assert scored_by(tmp_path, judge, "accuracy")[0] == 0.5
    assert (tmp_path / "runs").read_text() == "x"
    other = writing(a={"accuracy": 0.125})
    assert scored_by(tmp_path, other, "accuracy")[0] == 0.125  # what another command wrote says nothing
    assert (tmp_path / "results.1/b/results.json").is_file()
    with raises(ContentError, "results.json"):
        scored_by(tmp_path, other, "f1")


def test_only_the_base_is_left_out_of_the_mean_wherever_the_folder_lies(tmp_path):
    folder = tmp_path / "base" / "run"
    folder.mkdir(parents=True)
    found = {"base": {"model": "base", "accuracy": 1.0}, "run": {"model": "run", "accuracy": 0.5}}
    assert scored_by(folder, writing(**found), "accuracy")[0] == 0.5
    mixed = writing(a={"accuracy": 0.5}, b={"f1": 0.5})
    with raises(ContentError, "accuracy", "b/results.json"):
        scored_by(folder, mixed, "accuracy")


def test_a_plug_ins_metric_is_read_and_ranked_as_it_declares(untrained, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    scores = iter([0.75, 0.25])

    def train(request):
        recipe = request.recipe
        declared = {"surprise": {"value": next(scores), "unit": "nats", "higher_is_better": False}}
        (recipe.output_dir / "results").mkdir(parents=True)
        write_json(recipe.output_dir / "results/results.json", {"metrics": declared})
        (recipe.output_dir / run.SCORED).write_text('{"command": "true {results}"}')

    monkeypatch.setattr(checked, "ask", lambda *_, **__: Facts())
    monkeypatch.setattr(run, "require_model", lambda *_: None)
    monkeypatch.setattr(run, "train", train)
    swept(untrained[0], "rank=4,8", judge="true {results}", metric="surprise")
    out = capsys.readouterr().out
    assert out.index("| 0.2500 ") < out.index("| 0.7500 ")
    assert out.endswith("surprise (nats, lower is better)\n")


def test_a_judge_that_fails(tmp_path):
    with raises(ContentError):
        scored_by(tmp_path, f"{sys.executable} -c 'raise SystemExit(3)' {{results}}", "accuracy")


def test_judged_by_its_own_losses(tmp_path):
    history = [{"step": 1, "eval_loss": 2.0}, {"step": 2, "eval_loss": 1.5}, {"step": 3, "eval_loss": 1.75}]
    write_json(tmp_path / "trainer_state.json", {"log_history": history})
    assert results.score(tmp_path, False, "eval_loss")[0] == 1.5
    history = [{"step": 1, "eval_accuracy": 0.5}, {"step": 2, "eval_accuracy": 0.9, "train_loss": 0.5}]
    write_json(tmp_path / "trainer_state.json", {"log_history": history})
    assert results.score(tmp_path, False, "eval_accuracy")[0] == 0.9
    assert results.score(tmp_path, False, "train_loss")[0] == 0.5


@pytest.mark.parametrize("metric", ["eval_loss", "accuracy"])
def test_a_run_that_diverged_is_the_last_of_the_table(tmp_path, metric):
    state = {"log_history": [{"step": 1, "eval_loss": float("nan")}]}
    write_json(tmp_path / "trainer_state.json", state)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/results.json").write_text('{"ppl": Infinity}')
    assert math.isnan(results.score(tmp_path, True, "ppl")[0])
    scores = [results.score(tmp_path, False, "eval_loss")[0], 2.0, 1.0]
    rows = [{"learning_rate": str(n), metric: score, "run": "x"} for n, score in enumerate(scores)]
    axes = {"learning_rate": ["0", "1", "2"]}
    lines = results.table(rows, Grid(axes, {}), metric, metric_of(metric)).splitlines()
    assert lines[-1].split() == ["|", "0", "|", "nan", "|"]
    results.plot(rows, axes, metric, metric_of(metric), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").is_file()


def test_a_fixed_setting_is_in_the_table_and_not_on_the_plot(tmp_path, monkeypatch):
    grid = parse_grid(["rank=4,8", "alpha=8,16", "max_steps=2", f"model_name_or_path={tmp_path}"])
    lines = results.table(ROWS, grid, "eval_loss", metric_of("eval_loss")).splitlines()
    assert lines[0] == "| lora_rank | lora_alpha | eval_loss |"
    printed(lines[-1], "max_steps=2", f"model_name_or_path={tmp_path}")
    labels = drawn(monkeypatch, tmp_path, ROWS, grid.axes)
    assert labels == ("lora_alpha", "lora_rank", 1)


def test_a_grid_of_three_axes_has_a_row_for_each_run(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "picture", keep_figure)
    axes = {**AXES, "max_steps": [str(steps) for steps in range(9)]}
    rows = [{**row, "max_steps": steps, "run": "x"} for row in ROWS for steps in axes["max_steps"]]
    report_on(tmp_path, rows, Grid(axes, {}), "eval_loss", is_scored=False)
    labels = [label.get_text() for label in last_figure[0].axes[0].get_yticklabels()]
    assert len(labels) == len(rows) and labels[-1].startswith("lora_rank 4, lora_alpha 16, max_steps")
    assert last_figure[0].get_figheight() > 10


def test_the_title_of_a_setting_with_one_figure_has_no_deviation(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "picture", keep_figure)
    rows = [
        {"lora_rank": rank, "seed": seed, "eval_loss": loss, "run": "x"}
        for rank, seed, loss in (("4", "1", 1.0), ("4", "2", math.nan), ("8", "1", 2.0), ("8", "2", 3.0))
    ]
    settings = settings_of(rows, ["lora_rank", "seed"], "eval_loss")
    results.plot_settings(settings, "eval_loss", metric_of("eval_loss"), tmp_path / "sweep.png")
    title = last_figure[0].axes[0].get_title(loc="left")
    assert "lora_rank 4" in title and "nan" not in title
    assert last_figure[0].axes[0].get_ylim() == (-0.5, 1.5), "both settings, and nothing above them"


last_figure = []


@contextlib.contextmanager
def keep_figure(*arguments):
    """Draw a picture, and keep its figure."""
    with drawing.picture(*arguments) as figure:
        last_figure[:] = [figure]
        yield figure


def drawn(monkeypatch, folder, rows, axes):
    """Draw a sweep's plot; return its axis labels and its number of images (1: a heat map)."""
    monkeypatch.setattr(results, "picture", keep_figure)
    results.plot(rows, axes, "eval_loss", metric_of("eval_loss"), folder / "sweep.png")
    panel = last_figure[0].axes[0]
    return panel.get_xlabel(), panel.get_ylabel(), len(panel.images)


@pytest.mark.parametrize(("count", "values"), [(10, ["a" * 60, "b" * 60]), (3, ["模" * 40, "型" * 40])])
def test_names_are_short_in_bytes_and_stay_different(count, values):
    """File systems count bytes: a Chinese character has three."""
    names = run_names(dict.fromkeys(sorted(known_keys())[:count], values))
    assert len(set(names)) == len(names) == 2**count
    assert max(len(name.encode()) for name in names) <= 120


@pytest.mark.parametrize(
    "values", [["x/a", "y/a", "a-2"], ["a-2", "x/a", "y/a"], ["a", "x/a-2", "y/a", "a/a"]]
)
def test_each_value_has_a_folder_of_its_own(values):
    assert len(set(run_names({"model_name_or_path": values}))) == len(values)


def test_values_that_look_like_another_axis_have_folders_of_their_own():
    names = run_names({"run_name": ["a", "a_tokenizer-b"], "tokenizer": ["b_tokenizer-c", "c"]})
    assert len(set(names)) == 4


def test_runs_are_named_by_short_values():
    grid = {"model_name_or_path": ["models/a/base", "models/b/base/", "c d"], "lora_rank": ["4"]}
    assert run_names(grid) == [
        "model_name_or_path-base_lora_rank-4",
        "model_name_or_path-base-2_lora_rank-4",
        "model_name_or_path-c-d_lora_rank-4",
    ]
    assert run_names({"learning_rate": ["1e-4"], "lora_target": ["all"]}) == [
        "learning_rate-1e-4_lora_target-all"
    ]


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """Return a recipe that evaluates nothing, and the lists of what is asked about and trained."""
    asked, trained = [], []
    monkeypatch.setattr(checked, "ask", lambda recipe, *_, **__: asked.append(recipe.settings) or Facts())
    monkeypatch.setattr(run, "train", lambda request: trained.append(request.recipe.output_dir.name))
    monkeypatch.setattr(run, "evaluate", lambda *_: None)
    monkeypatch.setattr(run, "require_model", lambda *_: None)
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1000"
    )  # more than there are cores: one run at a time, in this process
    monkeypatch.setattr(sweeps, "score", lambda *_: (1.0, UNKNOWN))
    path = write_recipe(tmp_path)
    write_json(tmp_path / "dataset_info.json", {key: {"file_name": "a.json"} for key in "ab"})
    return path, asked, trained


def swept(path, *grid, judge=None, metric=None, **options):
    options = {"gpus_each": 1, "dry_run": False, "lists": False, "point": None, **options}
    scoring = {"evaluation": judge, "metric": metric}
    return command.command.callback(path, grid, path.parent / "runs", ray=None, **options, **scoring)


EVALUATED = ("val_size=0.1", "eval_strategy=steps")


@pytest.mark.parametrize(
    ("grid", "metric", "facts"),
    [
        (["rank=4,8"], None, "eval_loss; train_loss; out"),
        (["ranks=4,8"], "train_loss", "E301 ranks; lora_rank"),
        (
            ["rank=4,8", *EVALUATED, "eval_steps=2"],
            "eval_accuracy",
            "eval_accuracy; eval_loss; --eval",
        ),
        ([*EVALUATED, "eval_steps=2,900"], None, "W330 eval_steps; 900; eval_loss"),
        (["rank=4,0"], "train_loss", "E313 lora_rank"),  # of the second point
    ],
)
def test_what_no_run_can_give_is_refused_before_the_first_is_trained(untrained, grid, metric, facts):
    path, _, trained = untrained
    with raises(ContentError, facts):
        swept(path, *grid, metric=metric)
    assert trained == [] and not (path.parent / "runs").exists()


def test_a_dry_run_checks_and_names_the_folders_and_trains_nothing(untrained, capsys):
    path, _, trained = untrained
    swept(path, "rank=4,8", metric="train_loss", dry_run=True)
    runs = path.parent / "runs"
    assert capsys.readouterr().out.split() == [str(runs / "lora_rank-4"), str(runs / "lora_rank-8")]
    assert trained == [] and not runs.exists()
    with raises(ContentError, "E313 lora_rank"):
        swept(path, "rank=4,0", metric="train_loss", dry_run=True)


def test_listed_commands_are_checked_without_llamafactory(untrained, capsys):
    path, asked, trained = untrained
    swept(path, "rank=4,8", metric="train_loss", lists=True)
    lines = capsys.readouterr().out.splitlines()
    assert [shlex.split(line)[4] for line in lines] == ["lora_rank=4", "lora_rank=8"]
    assert asked == trained == [] and not (path.parent / "runs").exists()
    with raises(ContentError, "E313 lora_rank"):
        swept(path, "rank=4,0", metric="train_loss", lists=True)
    swept(path, "rank=4,8", metric="train_loss", lists=True, dry_run=True)
    assert capsys.readouterr().out.splitlines() == lines
    assert len(asked) == 2


def test_llamafactory_is_asked_about_each_run_that_it_may_refuse(untrained):
    path, asked, trained = untrained
    swept(
        path,
        "seed=1,2",
        "lr=1e-4,2e-4",
        *EVALUATED,
        "eval_steps=2",
        "compute_accuracy=true",
        metric="eval_accuracy",
    )
    assert len(asked) == 1
    assert len(trained) == 4
    swept(path, "rank=4,8", "dataset=[a],[b]", judge="python -m anything {results}", metric="f1")
    asked_about = [(settings["dataset"], settings["lora_rank"]) for settings in asked[1:]]
    assert sorted(asked_about) == [("a", 4), ("a", 8), ("b", 4), ("b", 8)]
    assert len(trained) == 8


def test_a_refusal_of_the_last_run_comes_before_the_first_is_trained(untrained, monkeypatch):
    path, _, trained = untrained

    def answer(recipe, *_, **__):
        name = recipe.settings["lora_target"]
        return Facts(model=LaidOut(unfit={} if name == "q_proj" else {"lora_target": [name]}))

    monkeypatch.setattr(checked, "ask", answer)
    with raises(ContentError, "E351 lora_target"):
        swept(path, "lora_target=[q_proj],[nope]", metric="train_loss")
    assert trained == []


def test_a_seed_that_diverged_ends_no_sweep_and_the_best_run_is_next(untrained, monkeypatch, capsys):
    scores, steps = {"seed-1": 1.0, "seed-2": float("nan"), "seed-3": 3.0}, []
    monkeypatch.setattr(sweeps, "score", lambda folder, *_: (scores[folder.name], UNKNOWN))
    monkeypatch.setattr(command, "next_step", lambda _place, words: steps.append(words[2:]))
    swept(untrained[0], "seed=1,2,3", metric="train_loss")
    runs = untrained[0].parent / "runs"
    assert steps == [["best", f"{runs}/seed-3", "--metric", "train_loss"]]
    rows = read_json(runs / "sweep.json")["rows"]
    assert [row["train_loss"] for row in rows] == [1.0, None, 3.0]
    printed_line(capsys.readouterr().out, "2.0000 ± 1.41", "2")


@pytest.mark.parametrize("words", [("--list",), ("--point", "lora_rank-4")])
def test_what_a_cluster_runs_is_neither_listed_nor_a_single_point(untrained, words) -> None:
    with raises(RequestError, "--ray", "--list", "--point"):
        call(command.command, untrained[0], "rank=4,8", "--ray", "auto", *words)


@pytest.mark.parametrize("words", [(), ("--list", "--eval", "true {adapter}"), ("--dry-run",)])
def test_a_single_point_is_for_the_commands_that_are_listed(untrained, words) -> None:
    with raises(RequestError, "--point lora_rank-4", "--list", "--eval"):
        call(command.command, untrained[0], "rank=4,8", "--point", "lora_rank-4", *words)


SWEPT = ("lora_rank=4,8", "max_steps=2")


def request_for(path, *grid, evaluation=None, metric="train_loss"):
    return GridRequest(
        recipe=path,
        grid=parse_grid(grid or SWEPT),
        out=path.parent / "runs",
        evaluation=evaluation,
        metric=metric,
    )


def state_of(path, *grid, **options):
    state = sweep_state(request_for(path, *grid, **options))
    return state.kind, list(state.changes)


@pytest.fixture
def swept_recipe(untrained, monkeypatch):
    """A recipe whose sweep is complete: each run has the records of a training, and none was trained."""
    path = untrained[0]

    def finish_run(request: TrainRequest) -> None:
        recipe = request.recipe
        recipe.output_dir.mkdir(parents=True)
        world = {"world_size": 1, "global_batch": 8}
        write_json(recipe.output_dir / STARTED, {**inputs_of(recipe, None), **world})
        write_json(recipe.output_dir / TRAINING, world)

    monkeypatch.setattr(run, "train", finish_run)
    assert state_of(path) == ("new", [])
    swept(path, *SWEPT, metric="train_loss")
    assert state_of(path) == ("current", [])
    return path


def test_a_complete_sweep_is_up_to_date(swept_recipe, monkeypatch, capsys):
    monkeypatch.setattr(run, "train", lambda _request: pytest.fail("it trains again"))
    capsys.readouterr()
    swept(swept_recipe, *SWEPT, metric="train_loss")
    lines = capsys.readouterr().out.splitlines()
    runs = swept_recipe.parent / "runs"
    assert lines[:2] == [f"{runs}/lora_rank-{rank}: up to date" for rank in (4, 8)]
    for path in runs.rglob("*"):
        os.utime(path, (1, 1))
    assert state_of(swept_recipe) == ("current", [])


def test_a_sweep_without_a_run_or_its_table_is_unfinished(swept_recipe):
    runs = swept_recipe.parent / "runs"
    (runs / "lora_rank-8/training.json").unlink()
    assert state_of(swept_recipe) == ("unfinished", [])
    write_json(runs / "lora_rank-8/training.json", {"world_size": 1, "global_batch": 8})
    (runs / "sweep.md").unlink()
    assert state_of(swept_recipe) == ("unfinished", [])
    (runs / "sweep.json").unlink()
    assert state_of(swept_recipe) == ("unfinished", [])


@pytest.mark.parametrize(
    ("grid", "options", "changes"),
    [
        (("lora_rank=4,8,16", "max_steps=2"), {}, ["lora_rank: 4,8 → 4,8,16"]),
        (("lora_rank=4,8", "seed=1,2", "max_steps=2"), {}, ["seed is new"]),
        (SWEPT, {"metric": "loss"}, ["--metric: train_loss → loss"]),
        (
            ("lora_rank=4,8", "max_steps=3"),
            {},
            ["lora_rank-4: max_steps 2 → 3", "lora_rank-8: max_steps 2 → 3", "max_steps: 2 → 3"],
        ),
    ],
)
def test_what_a_sweep_was_made_of_is_named(swept_recipe, grid, options, changes):
    assert state_of(swept_recipe, *grid, **options) == ("stale", changes)


def test_a_changed_dataset_of_a_sweep_is_named(swept_recipe):
    (swept_recipe.parent / "a.json").write_text("[]")
    assert state_of(swept_recipe) == ("stale", ["lora_rank-4: a changed", "lora_rank-8: a changed"])


def test_another_scoring_command_of_a_sweep_is_named(swept_recipe):
    """Without the mark of a command a run is not scored yet."""
    runs = swept_recipe.parent / "runs"
    command_now = "true {results}"
    assert state_of(swept_recipe, evaluation=command_now) == ("unfinished", [])
    for rank in (4, 8):
        write_json(runs / f"lora_rank-{rank}" / run.SCORED, {"command": command_now})
    assert state_of(swept_recipe, evaluation=command_now) == ("current", [])
    kind, changes = state_of(swept_recipe, evaluation="true --fast {results}")
    assert kind == "stale"
    assert changes == [
        f"lora_rank-{rank}: --eval: true {{results}} → true --fast {{results}}" for rank in (4, 8)
    ]
