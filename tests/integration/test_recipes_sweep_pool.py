"""The points of a sweep side by side: real processes, with a trainer that trains nothing."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.messages import printed, raises
from tests.unit.recipes.test_launch import alive
from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Slot, machine_limits
from tuneyard.recipes import hardware
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.sweep import slots
from tuneyard.recipes.sweep.grid import parse_grid, plan_runs
from tuneyard.recipes.sweep.run import commands, scoring_words

SCORES = """
import json, os, pathlib, sys
(folder := pathlib.Path(sys.argv[1])).mkdir()
found = {"accuracy": 0.5, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
(folder / "results.json").write_text(json.dumps(found))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 40))
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    settings = {"model_name_or_path": str(tmp_path / "model"), "do_train": True, "stage": "sft"}
    settings |= {"dataset": "a", "dataset_dir": str(tmp_path), "template": "qwen", "report_to": "none"}
    settings |= {"finetuning_type": "lora", "output_dir": str(tmp_path / "out")}
    (tmp_path / "r.yaml").write_text(json.dumps(settings))
    return tmp_path / "r.yaml"


def start(recipe: Path, *words: str, **variables: str) -> "subprocess.Popen[str]":
    """Start a sweep over RECIPE into the folder `runs` beside it."""
    metric = () if "--eval" in words else ("--metric", "train_loss")
    command = ["tests.fake_trainer.sweep", recipe, *words, "--out", recipe.parent / "runs", *metric]
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "fake_trainer"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(recipe: Path, *words: str, code: int = 0, **variables: str) -> tuple[str, str]:
    """Run a sweep to its end; return what it printed."""
    process = start(recipe, *words, **variables)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, output + errors
    assert "Traceback" not in output + errors
    return output, errors


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_points_run_on_gpus_of_their_own_and_one_that_fails_is_listed(recipe: Path) -> None:
    judge = shlex.join(["python", "-c", SCORES, "{results}"])
    gpus = {"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": "GPU-aa, GPU-bb"}
    # The first ends last: its place in the table does not come from that.
    words = ("rank=2,13,4", "--eval", judge)
    output, errors = sweep(recipe, *words, code=1, FAKE_FAILURE="13", FAKE_SECONDS_2="2", **gpus)
    runs = recipe.parent / "runs"
    summary = read(runs / "sweep.json")
    assert [row["lora_rank"] for row in summary["rows"]] == ["2", "4"]
    (failure,) = summary["failed"]
    assert (failure["lora_rank"], failure["run"]) == ("13", str(runs / "lora_rank-13"))
    assert failure["error"].endswith("train.log\nValueError: no such rank")
    assert f"failed: {runs / 'lora_rank-13'}" in output
    assert "1 of 3 runs failed (lora_rank-13)" in errors
    used = {rank: read(runs / f"lora_rank-{rank}/environment.json") for rank in (2, 13, 4)}
    assert used[2]["CUDA_VISIBLE_DEVICES"] == "GPU-aa"
    assert used[13]["CUDA_VISIBLE_DEVICES"] == used[4]["CUDA_VISIBLE_DEVICES"] == "GPU-bb"
    for rank in (2, 4):  # scored where it was trained
        results = read(runs / f"lora_rank-{rank}/results/results.json")
        assert results["gpu"] == used[rank]["CUDA_VISIBLE_DEVICES"]
    output, _ = sweep(recipe, *words, **gpus)
    assert output.count("up to date") == 2
    summary = read(runs / "sweep.json")
    assert [row["lora_rank"] for row in summary["rows"]] == ["2", "13", "4"]
    assert summary["failed"] == []


def test_two_terminals_share_a_grid(recipe: Path) -> None:
    words, whole = ("rank=2,4,8",), {"OMP_NUM_THREADS": "1000", "FAKE_SECONDS_2": "3"}
    first = start(recipe, *words, **whole)
    runs = recipe.parent / "runs"
    wait_for(runs / "lora_rank-2/pid", first)
    second = start(recipe, *words, **whole)
    tables = []
    for process in (first, second):
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, output + errors
        tables.append(output[output.index("| lora_rank") :])
    assert tables[0] == tables[1]
    assert tables[0].count("\n| ") == 3
    for rank in (2, 4, 8):
        assert (runs / f"lora_rank-{rank}/trained").read_text() == "x"


def test_the_terminal_that_writes_last_loses_nothing_of_the_other(recipe: Path) -> None:
    """The first terminal has a failure, and writes after the second has trained that point."""
    words, gpus = ("rank=13,2,4",), {"FAKE_GPUS": "2"}
    first = start(recipe, *words, **gpus, FAKE_FAILURE="13", FAKE_SECONDS_2="3", FAKE_SECONDS_4="3")
    runs = recipe.parent / "runs"
    for rank in (2, 4):
        wait_for(runs / f"lora_rank-{rank}/pid", first)
    assert [row["lora_rank"] for row in read(runs / "sweep.json")["failed"]] == ["13"]
    first.send_signal(signal.SIGSTOP)  # its trainings go on
    output, _ = sweep(recipe, *words, **gpus)
    summary = read(runs / "sweep.json")
    assert [row["lora_rank"] for row in summary["rows"]] == ["13", "2", "4"]
    first.send_signal(signal.SIGCONT)
    first_output, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert first_output[first_output.index("| lora_rank") :] == output[output.index("| lora_rank") :]
    assert read(runs / "sweep.json") == summary


def wait_for(path: Path, process: "subprocess.Popen[str]") -> str:
    """Wait for the content of a file that a training writes."""
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    return path.read_text()


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_sweep_that_ends_ends_its_trainings_and_is_resumed(recipe: Path, sign: int, code: int) -> None:
    gpus = {"FAKE_GPUS": "2"}
    process = start(recipe, "rank=2,4", **gpus, FAKE_SECONDS_2="60", FAKE_SECONDS_4="60")
    runs = recipe.parent / "runs"
    trainings = [int(wait_for(runs / f"lora_rank-{rank}/pid", process)) for rank in (2, 4)]
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert ("the same command resumes it" in errors) is (sign == signal.SIGINT)
    deadline = time.monotonic() + 20
    while any(alive(number) for number in trainings):
        assert time.monotonic() < deadline, "a training outlived the sweep"
        time.sleep(0.05)
    output, _ = sweep(recipe, "rank=2,4", **gpus)
    assert output.index("| 4 | 0.2500 |") < output.index("| 2 | 0.5000 |")


def test_a_listed_command_trains_in_a_shell(recipe: Path, tmp_path: Path) -> None:
    runs = plan_runs(recipe, parse_grid(["rank=2,4", "run_name=it's"]), tmp_path / "my runs")
    recipes = [recipe for _, recipe in runs]
    lines = commands(recipes, [], None, hardware.machine("gpu"))
    first, second = (shlex.split(line) for line in lines)
    folder = str(tmp_path / "my runs" / "lora_rank-2")
    overrides = ["run_name=it's", "lora_rank=2", f"output_dir={folder}"]
    assert first == ["tuneyard", "recipe", "train", str(recipe), *overrides]
    assert "lora_rank=4" in second


def listed(recipe: Path, script: str) -> list[str]:
    """The commands of `--list` for two points that a script scores, with the trainer of the tests."""
    (recipe.parent / "score it.py").write_text(script)
    judge = "python 'score it.py' {results}"
    output, _ = sweep(recipe, "rank=2,4", "run_name=it's", "--list", "--eval", judge)
    program = f"{sys.executable} -m tests.fake_trainer.sweep"
    lines = output.splitlines()
    assert all(line.startswith("tuneyard recipe sweep ") for line in lines)
    assert sys.executable not in output  # a listed command runs on another machine
    return [line.replace("tuneyard recipe sweep", program, 1) for line in lines]


def start_line(line: str, folder: Path) -> "subprocess.Popen[str]":
    """Start a listed command in a shell in this folder."""
    path = os.pathsep.join([str(ROOT / "tests" / "fake_trainer"), str(ROOT)])
    return subprocess.Popen(
        ["sh", "-c", f"exec {line}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_listed_command_sets_half_written_results_aside_and_records_its_own(recipe: Path) -> None:
    line, other = listed(recipe, SCORES)
    folder = recipe.parent / "runs/lora_rank-2"
    (folder / "results").mkdir(parents=True)
    for _ in range(2):  # the second finds nothing to do
        process = start_line(line, recipe.parent)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert read(folder / "judged.json") == {"command": "python 'score it.py' {results}"}
    assert read(folder / "results/results.json")["accuracy"] == 0.5
    assert (folder / "results.1").is_dir() and not (folder / "results.2").exists()
    assert (folder / "trained").read_text() == "x"
    assert not (recipe.parent / "runs/sweep.json").exists()
    process = start_line(other.replace("lora_rank-4", "rank-4"), recipe.parent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    printed(errors, "--point rank-4", "lora_rank-4")


def test_a_listed_command_scores_under_the_lock_of_its_folder(recipe: Path) -> None:
    line, _ = listed(recipe, SCORES + "import time; time.sleep(600)")
    first = start_line(line, recipe.parent)
    results = recipe.parent / "runs/lora_rank-2/results"
    wait_for(results / "results.json", first)
    second = start_line(line, recipe.parent)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 2
    printed(errors, "runs/lora_rank-2", "another training is writing there")
    assert [path.name for path in results.parent.glob("results*")] == ["results"]
    first.terminate()
    first.communicate(timeout=60)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with 8 cores and no GPU."""
    monkeypatch.setattr(machine_limits, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "find_gpus", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(slots, "available_memory", lambda: 64e9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def points(folder: Path, count: int, **settings: object) -> list[Recipe]:
    return [Recipe(folder / "r.yaml", {"model_name_or_path": str(folder), **settings}, {})] * count


@pytest.mark.parametrize(
    ("visible", "each", "expected"),
    [
        (None, 1, ["0", "1", "2", "3"]),
        (None, 2, ["0,1", "2,3"]),
        (None, 3, ["0,1,2"]),
        (None, 4, [None]),
        ("3,1,GPU-x,MIG-y", 1, ["3", "1", "GPU-x", "MIG-y"]),
        ("7,6,5,4", 2, ["7,6", "5,4"]),
    ],
)
def test_each_point_has_gpus_of_its_own(cores, monkeypatch, tmp_path, visible, each, expected) -> None:
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("A100-80", 8)] * 4)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    recipes = points(tmp_path, 9)
    environments = [slot.environment for slot in slots.slots_of(recipes, each)]
    assert [variables.get("CUDA_VISIBLE_DEVICES") for variables in environments] == expected
    assert len(slots.machine_of_a_point(recipes, each).gpus) == each


def test_more_gpus_than_there_are(cores, monkeypatch, tmp_path) -> None:
    with raises(RequestError, "--gpus-each 2", "0 visible GPUs"):
        slots.machine_of_a_point(points(tmp_path, 2), 2)
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("A100-80", 8)] * 4)
    with raises(RequestError, "--gpus-each 5", "4 visible GPUs"):
        slots.machine_of_a_point(points(tmp_path, 2), 5)


@pytest.mark.parametrize(
    ("count", "threads", "memory", "expected"),
    [
        (9, "", 64e9, (8, "1")),
        (3, "", 64e9, (3, "2")),
        (9, "4", 64e9, (2, "4")),
        (9, "16", 64e9, (1, None)),
        (9, "", 3.2e9, (2, "4")),
        (9, "", 1e9, (1, None)),
    ],
)
def test_without_a_gpu_the_points_share_the_cores(
    cores, monkeypatch, tmp_path, count, threads, memory, expected
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(slots, "available_memory", lambda: memory)
    found: list[Slot] = slots.slots_of(points(tmp_path, count), 1)
    assert (len(found), found[0].environment.get("OMP_NUM_THREADS")) == expected


def test_a_container_has_fewer_cores_and_less_memory(cores, monkeypatch, tmp_path) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cpu.max").write_text("250000 100000\n")
    assert [slot.environment for slot in slots.slots_of(points(tmp_path, 9), 1)] == [
        {"OMP_NUM_THREADS": "1"}
    ] * 2
    (tmp_path / "cgroup/cpu.max").write_text("max 100000\n")
    assert len(slots.slots_of(points(tmp_path, 9), 1)) == 8
    monkeypatch.undo()
    monkeypatch.setattr(machine_limits, "CGROUP", tmp_path / "cgroup")
    (tmp_path / "cgroup/memory.max").write_text("1000000")
    (tmp_path / "cgroup/memory.current").write_text("400000")
    assert machine_limits.available_memory() == 600_000
    (tmp_path / "cgroup/memory.stat").write_text("anon 100000\ninactive_file 250000\nactive_file 50000\n")
    assert machine_limits.available_memory() == 850_000


def test_a_recipe_for_cpus_takes_no_gpu(cores, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("A100-80", 8)] * 4)
    (first, *_) = slots.slots_of(points(tmp_path, 2, use_cpu=True), 1)
    assert first == Slot("CPU slot 1", {"OMP_NUM_THREADS": "4"})
    monkeypatch.setenv("NNODES", "2")
    with raises(RequestError, "NNODES"):
        slots.machine_of_a_point(points(tmp_path, 2), 1)


def test_a_grid_over_use_cpu_gives_gpus_to_its_points(cores, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("A100-80", 8)] * 4)
    recipes = [*points(tmp_path, 1, use_cpu=True), *points(tmp_path, 1, use_cpu=False)]
    environments = [slot.environment for slot in slots.slots_of(recipes, 2)]
    assert environments == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    assert len(slots.machine_of_a_point(recipes, 2).gpus) == 2


@pytest.mark.parametrize(
    ("judge", "fact"),
    [("score 'it", "close the quote"), ("", "{adapter}"), ("no-such-program x", "no-such-program")],
)
def test_a_scoring_command_that_cannot_run_is_refused_first(tmp_path, judge, fact) -> None:
    with raises(RequestError, "--eval", fact):
        scoring_words(judge, tmp_path)
