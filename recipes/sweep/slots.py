"""Where the points of a sweep run: each has some GPUs, or without a GPU a share of the cores.

On this machine these are a slot; on a Ray cluster, the point's share of a node.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Executor, InThisProcess, Resources, Slot
from tuneyard.core.execution.local_processes import LocalProcesses
from tuneyard.core.execution.machine_limits import available_cores, available_memory, visible_gpus
from tuneyard.core.execution.ray_cluster import RayCluster
from tuneyard.core.language.message import _, counted
from tuneyard.recipes.machine.hardware import Machine, machine
from tuneyard.recipes.recipe import Recipe

THREADS = "OMP_NUM_THREADS"
# Bytes of a training on a CPU: torch and LLaMA-Factory (1.2 GB measured), and the weights in fp32 from a file
# in bf16, with gradients and activations.
PROGRAM, OF_WEIGHTS = 1.5e9, 3


@dataclass(frozen=True, slots=True)
class SweepPlace:
    """Where points run, what one takes, and its machine. `has_terminal`: one at a time, in this terminal."""

    executor: Executor
    resources: Resources
    target: Machine

    @property
    def has_terminal(self) -> bool:
        """True if points run in this process, one after the other."""
        return isinstance(self.executor, InThisProcess)


def place_here(recipes: Sequence[Recipe], gpus_each: int) -> SweepPlace:
    """This machine, for the points of a sweep. `RequestError` if it has fewer GPUs than each needs."""
    target = machine_of_a_point(recipes, gpus_each)
    slots = slots_of(recipes, gpus_each)
    is_whole_machine = len(slots) == 1 and not slots[0].environment
    executor: Executor = InThisProcess()
    if not is_whole_machine:
        executor = LocalProcesses(slots)
    return SweepPlace(executor, Resources(), target)


def place_on_ray(cluster: RayCluster, recipes: Sequence[Recipe], gpus_each: int) -> SweepPlace:
    """A cluster, for the points of a sweep. Its GPUs are taken for those that `--list` assumes."""
    if _all_on_cpu(recipes) or not cluster.has_gpus:
        memory = max(_memory_of_a_point(recipe) for recipe in recipes)
        return SweepPlace(cluster, Resources(memory=int(memory)), machine("cpu"))
    return SweepPlace(cluster, Resources(gpus=gpus_each), machine(f"{gpus_each}xA100-80"))


def machine_of_a_point(recipes: Sequence[Recipe], gpus_each: int) -> Machine:
    """This machine with as many GPUs as each point has. `RequestError` if fewer are visible."""
    here = machine("this")
    count = len(here.gpus)
    if os.environ.get("NNODES", "1") != "1":
        raise RequestError(
            _("NNODES is set: a sweep trains each point on one machine; --list prints its commands")
        )
    if gpus_each > max(1, count):
        raise RequestError(
            _(
                "--gpus-each {number}: found {count} on this machine",
                number=gpus_each,
                count=counted(count, "visible GPU", "visible GPUs"),
            )
        )
    if _all_on_cpu(recipes):
        return here
    return Machine(here.gpus[:gpus_each], here=True)


def slots_of(recipes: Sequence[Recipe], gpus_each: int) -> list[Slot]:
    """Slots of this machine for the points of a sweep; one that is the whole machine has no variables."""
    gpus = visible_gpus(len(machine("this").gpus))
    if not gpus or _all_on_cpu(recipes):
        return _cpu_slots(recipes)
    if gpus_each == len(gpus):
        return [Slot(_gpu_name(gpus), {})]
    slots = []
    for start in range(0, len(gpus) - gpus_each + 1, gpus_each):
        names = gpus[start : start + gpus_each]
        slots.append(Slot(_gpu_name(names), {"CUDA_VISIBLE_DEVICES": ",".join(names)}))
    return slots


def _all_on_cpu(recipes: Sequence[Recipe]) -> bool:
    """True if no point can use a GPU. A grid of both kinds gives GPUs to each point."""
    return all(recipe.settings.get("use_cpu") is True for recipe in recipes)


def _gpu_name(names: Sequence[str]) -> str:
    return _("GPU {names}", names=",".join(names))


def _cpu_slots(recipes: Sequence[Recipe]) -> list[Slot]:
    """As many slots as there are points, cores and memory for; the cores are divided among them.

    OMP_NUM_THREADS, if it is set, is the number of cores of each.
    """
    cores = available_cores()
    most = min(len(recipes), cores)
    threads_set = os.environ.get(THREADS, "")
    if threads_set.isdigit() and int(threads_set) > 0:
        most = min(most, max(1, cores // int(threads_set)))
    memory = max(_memory_of_a_point(recipe) for recipe in recipes)
    count = max(1, min(most, int(available_memory() / memory)))
    if count == 1:
        return [Slot("CPU", {})]
    variables = {THREADS: threads_set or str(cores // count)}
    return [Slot(_("CPU slot {number}", number=number), variables) for number in range(1, count + 1)]


def _memory_of_a_point(recipe: Recipe) -> float:
    """Bytes that a training takes at most, roughly. Models of the hub count as none."""
    folder = Path(recipe.text("model_name_or_path"))
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return PROGRAM + OF_WEIGHTS * weights
