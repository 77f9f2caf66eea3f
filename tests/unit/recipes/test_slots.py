"""Where the points of a sweep run: GPUs, or shares of the cores; and the command that scores them."""

import os
from functools import partial
from pathlib import Path

import pytest

from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Slot, machine_limits
from tuneyard.recipes.machine import hardware
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.sweep import slots
from tuneyard.recipes.sweep.run import scoring_words


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with 8 cores and no GPU."""
    monkeypatch.setattr(machine_limits, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "find_gpus", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(slots, "available_memory", lambda: 64e9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def four_gpus(cores, monkeypatch):
    """A call gives the machine four GPUs."""
    return partial(monkeypatch.setattr, hardware, "find_gpus", lambda: [hardware.Gpu("A100-80", 8)] * 4)


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
def test_each_point_has_gpus_of_its_own(four_gpus, monkeypatch, tmp_path, visible, each, expected) -> None:
    four_gpus()
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    recipes = points(tmp_path, 9)
    environments = [slot.environment for slot in slots.slots_of(recipes, each)]
    assert [variables.get("CUDA_VISIBLE_DEVICES") for variables in environments] == expected
    assert len(slots.machine_of_a_point(recipes, each).gpus) == each


def test_more_gpus_than_there_are(four_gpus, tmp_path) -> None:
    with raises(RequestError, "--gpus-each 2", "0 visible GPUs"):
        slots.machine_of_a_point(points(tmp_path, 2), 2)
    four_gpus()
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


def test_a_recipe_for_cpus_takes_no_gpu(four_gpus, monkeypatch, tmp_path) -> None:
    four_gpus()
    (first, *_) = slots.slots_of(points(tmp_path, 2, use_cpu=True), 1)
    assert first == Slot("CPU slot 1", {"OMP_NUM_THREADS": "4"})
    monkeypatch.setenv("NNODES", "2")
    with raises(RequestError, "NNODES"):
        slots.machine_of_a_point(points(tmp_path, 2), 1)


def test_a_grid_over_use_cpu_gives_gpus_to_its_points(four_gpus, tmp_path) -> None:
    four_gpus()
    recipes = [*points(tmp_path, 1, use_cpu=True), *points(tmp_path, 1, use_cpu=False)]
    environments = [slot.environment for slot in slots.slots_of(recipes, 2)]
    assert environments == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    assert len(slots.machine_of_a_point(recipes, 2).gpus) == 2


@pytest.mark.parametrize(
    ("judge", "fact"),
    [
        ("score 'it", "close the quote"),
        ("", "{adapter}"),
        ("no-such-program x", "no-such-program"),
        ("python run={adaptr}", "known are {adapter}"),
        ("python run", "neither {adapter} nor {results}"),
    ],
)
def test_a_scoring_command_that_cannot_run_is_refused_first(tmp_path, judge, fact) -> None:
    with raises(RequestError, "--eval", fact):
        scoring_words(judge, tmp_path)
