"""The best checkpoint of curves whose answer is known, and what is said where there is none."""

from contextlib import nullcontext

import pytest

from tests.cli.scoring import call, invoke
from tests.json_files import write_json
from tests.messages import printed, raises
from tests.unit.recipes.test_output_dir import checkpoint
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.training.metrics import metric_of
from tuneyard.recipes.best.__main__ import command, find_best, plot
from tuneyard.recipes.output_dir.curve import DivergedError, read_curve

LOSS, ACCURACY = metric_of("eval_loss"), metric_of("eval_accuracy")


def run_with(folder, values, metric="eval_loss"):
    folder.mkdir(exist_ok=True)
    history = [{"step": 10 * n, metric: value, "epoch": n} for n, value in enumerate(values, 1)]
    write_json(folder / "trainer_state.json", {"log_history": [{"step": 5, "loss": 9.0}, *history]})
    return folder


@pytest.mark.parametrize(
    ("values", "step", "advice"),
    [
        ([3.0, 2.0, 1.0], 30, "train longer"),
        ([1.0, 2.0, 3.0], 10, "overfits from the start"),
        ([2.0, 1.0, 3.0, 4.0], 20, "in the 2 evaluations that followed"),
        ([1.0, 1.0], 10, "no overfitting"),
        ([1.0, 2.0, 1.0], 10, "no overfitting"),
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
        write_json(checkpoint(tmp_path, step) / "trainer_state.json", state)
    assert read_curve(tmp_path, "eval_loss") == [(8, 0.125)]


def test_where_there_is_nothing_to_choose_from(tmp_path):
    with raises(RequestError):
        read_curve(tmp_path / "none", "eval_loss")
    with raises(RequestError, "trainer_state.json"):
        read_curve(tmp_path, "eval_loss")
    run_with(tmp_path, [1.0])
    with raises(ContentError, "eval_acc", "eval_loss"):
        read_curve(tmp_path, "eval_acc")


def test_the_folder_of_a_sweep_names_one_of_its_runs(tmp_path):
    run_with(tmp_path / "lora_rank-4", [1.0])
    run_with(tmp_path / "lora_rank-8", [2.0])
    with raises(RequestError, "2 runs", f"recipe best {tmp_path}/lora_rank-4"):
        read_curve(tmp_path, "eval_loss")


def test_numbers_that_are_none(tmp_path):
    rows = [
        {"step": None, "eval_loss": 1.0},
        {"step": 2, "eval_loss": 10**400},
        {"step": 3, "eval_loss": 2.0},
    ]
    write_json(tmp_path / "trainer_state.json", {"log_history": rows})
    assert read_curve(tmp_path, "eval_loss") == [(3, 2.0)]
    rows = [{"step": 1, "eval_loss": float("nan")}, {"step": 2, "eval_loss": float("inf")}]
    write_json(tmp_path / "trainer_state.json", {"log_history": rows})
    with raises(DivergedError, "trainer_state.json", "eval_loss"):
        read_curve(tmp_path, "eval_loss")


def test_the_command(tmp_path):
    done = invoke(command, run_with(tmp_path, [3.0, 2.0, 2.5]))
    assert done.exit_code == 0, done.output
    printed(done.output.splitlines()[0], "eval_loss", "nats", "lower is better", "2 at step 20", "3")
    assert (tmp_path / "best.png").stat().st_size > 5000
    assert done.output.endswith(f"next: tuneyard eval chat --model {tmp_path}\n")  # no adapter


def test_without_a_flag_the_highest_accuracy_is_the_best(tmp_path):
    done = invoke(command, run_with(tmp_path, [0.5, 0.9], "eval_accuracy"), "--metric", "eval_accuracy")
    printed(done.output.splitlines()[0], "eval_accuracy", "share", "higher is better", "0.9 at step 20")


def test_a_metric_that_is_not_there_is_a_wrong_option(tmp_path):
    """Exit 2 with the nearest name; without --metric a run that was never evaluated is wrong content."""
    run_with(tmp_path, [0.5, 0.9], "eval_accuracy")
    with raises(RequestError, "--metric eval_acuracy", "eval_accuracy"):
        call(command, tmp_path, "--metric", "eval_acuracy")
    with raises(ContentError, "eval_loss", "eval_accuracy"):
        call(command, tmp_path)


def test_the_curve_names_what_it_shows(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figure, curve = Figure(), [(10, 2.0), (20, 1.0)]
    monkeypatch.setattr("tuneyard.recipes.best.__main__.picture", lambda *_: nullcontext(figure))
    plot(curve, find_best(curve, "eval_loss", tmp_path, LOSS), tmp_path / "best.png", LOSS)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "eval_loss (nats, lower is better)")
