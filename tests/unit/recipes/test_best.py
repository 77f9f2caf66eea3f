"""The best checkpoint of curves whose answer is known, and what is said where there is none."""

import json

import pytest
from click.testing import CliRunner

from tests.messages import printed, raises
from tests.unit.recipes.test_output_dir import checkpoint
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.metrics import metric_of
from tuneyard.recipes.best import DivergedError, NotMeasuredError, command, find_best, read_curve, read_scores

LOSS, ACCURACY = metric_of("eval_loss"), metric_of("eval_accuracy")


def run_with(folder, values, metric="eval_loss"):
    history = [{"step": 10 * n, metric: value, "epoch": n} for n, value in enumerate(values, 1)]
    (folder / "trainer_state.json").write_text(
        json.dumps({"log_history": [{"step": 5, "loss": 9.0}, *history]})
    )
    return folder


@pytest.mark.parametrize(
    ("values", "step", "advice"),
    [
        ([3.0, 2.0, 1.0], 30, "train longer"),
        ([1.0, 2.0, 3.0], 10, "overfits from the start"),
        ([2.0, 1.0, 3.0, 4.0], 20, "in the 2 evaluations that followed"),
        ([1.0, 1.0, 2.0], 10, "overfits from the start"),  # of equals the earlier
        ([1.0], 10, "only one evaluation"),
        ([float("nan"), 2.0, 3.0], 20, "overfits from the start"),
    ],
)
def test_best(tmp_path, values, step, advice):
    best = find_best(read_curve(run_with(tmp_path, values), "eval_loss"), "eval_loss", tmp_path, LOSS)
    assert best.step == step
    assert advice in best.advice


def test_a_metric_that_grows_and_the_checkpoint_on_the_disk(tmp_path):
    run_with(tmp_path, [0.5, 0.9, 0.8], "eval_accuracy")
    assert (
        find_best(read_curve(tmp_path, "eval_accuracy"), "eval_accuracy", tmp_path, ACCURACY).checkpoint
        is None
    )
    kept = checkpoint(tmp_path, 20)
    best = find_best(read_curve(tmp_path, "eval_accuracy"), "eval_accuracy", tmp_path, ACCURACY)
    assert (best.step, best.checkpoint) == (20, str(kept))
    (kept / "optimizer.pt").unlink()
    assert (
        find_best(read_curve(tmp_path, "eval_accuracy"), "eval_accuracy", tmp_path, ACCURACY).checkpoint
        is None
    )


def test_a_run_still_going_is_read_from_its_newest_checkpoint(tmp_path):
    for step in (4, 8):
        state = {"log_history": [{"step": step, "eval_loss": 1.0 / step}]}
        (checkpoint(tmp_path, step) / "trainer_state.json").write_text(json.dumps(state))
    assert read_curve(tmp_path, "eval_loss") == [(8, 0.125)]


def test_where_there_is_nothing_to_choose_from(tmp_path):
    with raises(RequestError):
        read_curve(tmp_path / "none", "eval_loss")
    with raises(RequestError):
        read_curve(tmp_path, "eval_loss")
    run_with(tmp_path, [1.0])
    with raises(ContentError, "eval_acc", "eval_loss", "--metric"):
        read_curve(tmp_path, "eval_acc")


def test_numbers_that_are_none(tmp_path):
    rows = [
        {"step": None, "eval_loss": 1.0},
        {"step": 2, "eval_loss": 10**400},
        {"step": 3, "eval_loss": 2.0},
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    assert read_curve(tmp_path, "eval_loss") == [(3, 2.0)]
    rows = [{"step": 1, "eval_loss": float("nan")}, {"step": 2, "eval_loss": float("inf")}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    with raises(DivergedError):
        read_curve(tmp_path, "eval_loss")


def test_the_command(tmp_path):
    done = CliRunner().invoke(command, [str(run_with(tmp_path, [3.0, 2.0, 2.5]))])
    assert done.exit_code == 0, done.output
    printed(done.output.splitlines()[0], "eval_loss", "nats", "lower is better", "2 at step 20", "3")
    assert (tmp_path / "best.png").stat().st_size > 5000


def test_the_best_by_task_results_is_the_mean_over_sets(tmp_path):
    scores = {
        "checkpoint-4/a": 0.5,
        "checkpoint-4/b": 0.7,
        "checkpoint-8/a": 0.9,
        "checkpoint-8/b": 0.2,
        "base/a": 1,
    }
    for name, accuracy in scores.items():
        (tmp_path / name).mkdir(parents=True)
        found = {"model": name.split("/")[0], "accuracy": accuracy}
        (tmp_path / name / "results.json").write_text(json.dumps(found))
    assert read_scores(tmp_path, "accuracy")[0] == [(4, pytest.approx(0.6)), (8, pytest.approx(0.55))]
    with raises(NotMeasuredError, "f1"):
        read_scores(tmp_path, "f1")
    done = CliRunner().invoke(command, [str(tmp_path), "--results", str(tmp_path)])
    printed(done.output.splitlines()[0], "accuracy", "share", "higher is better", "0.6 at step 4", "2")
    assert "it got no better" in done.output or "the best is the first" in done.output


def test_without_a_flag_the_highest_accuracy_is_the_best(tmp_path):
    done = CliRunner().invoke(
        command, [str(run_with(tmp_path, [0.5, 0.9], "eval_accuracy")), "--metric", "eval_accuracy"]
    )
    printed(done.output.splitlines()[0], "eval_accuracy", "share", "higher is better", "0.9 at step 20")
    done = CliRunner().invoke(command, [str(run_with(tmp_path, [1.0, 2.0], "eval_x")), "--metric", "eval_x"])
    printed(done.output.splitlines()[0], "eval_x", "unknown", "higher is better", "2 at step 20")


def scored(folder, model, dataset, **result):
    (folder / model / dataset).mkdir(parents=True)
    found = {"model": model, "set": dataset, **result}
    (folder / model / dataset / "results.json").write_text(json.dumps(found))


def test_checkpoints_are_compared_over_the_same_sets_alone(tmp_path, capsys):
    scored(tmp_path, "checkpoint-4", "easy", accuracy=0.9, n=10)
    scored(tmp_path, "checkpoint-8", "easy", accuracy=0.95, n=10)
    scored(tmp_path, "checkpoint-8", "hard", accuracy=0.5, n=10)
    scored(tmp_path, "checkpoint-12", "easy", accuracy=0.1, n=10)
    scored(tmp_path, "checkpoint-12", "hard", accuracy=0.1, n=10)
    assert read_scores(tmp_path, "accuracy")[0] == [(8, pytest.approx(0.725)), (12, pytest.approx(0.1))]
    printed(capsys.readouterr().err, "left out", "checkpoint-4", "accuracy", "hard", "10")


def test_checkpoints_that_share_no_rows_are_not_compared(tmp_path):
    scored(tmp_path, "checkpoint-4", "a", accuracy=0.9, n=10)
    scored(tmp_path, "checkpoint-8", "a", accuracy=0.8, n=300)
    with raises(ContentError, "300 rows", "checkpoint-4", "checkpoint-8"):
        read_scores(tmp_path, "accuracy")
    scored(tmp_path / "again", "checkpoint-4", "a", accuracy=0.7, n=10)
    with raises(ContentError, "10 rows", "checkpoint-4"):
        read_scores(tmp_path, "accuracy")


def test_a_metric_that_is_not_there_is_a_wrong_option(tmp_path):
    """Exit 2 with the nearest name; without --metric a run that was never evaluated is wrong content."""
    run_with(tmp_path, [0.5, 0.9], "eval_accuracy")
    with raises(RequestError, "--metric eval_acuracy", "eval_accuracy"):
        command.main([str(tmp_path), "--metric", "eval_acuracy"], standalone_mode=False)
    with raises(ContentError, "eval_loss", "eval_accuracy"):
        command.main([str(tmp_path)], standalone_mode=False)
    folder = tmp_path / "results" / "checkpoint-4" / "a"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(
        json.dumps({"model": "checkpoint-4", "accuracy": 0.5, "n": 9, "metrics": {"f1": {"value": 0.4}}})
    )
    with raises(RequestError, "--metric acuracy", "f1"):
        command.main(
            [str(tmp_path), "--results", str(tmp_path / "results"), "--metric", "acuracy"],
            standalone_mode=False,
        )
    (folder / "results.json").write_text(json.dumps({"model": "base", "accuracy": 0.5}))
    with raises(ContentError):
        command.main(
            [str(tmp_path), "--results", str(tmp_path / "results"), "--metric", "f1"], standalone_mode=False
        )
