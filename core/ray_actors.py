"""Actors of a Ray cluster: processes that stay for the next items, each with its own GPU.

Ray ends the process of a task with a GPU after the task, since the next task may have another GPU. An actor
keeps its GPU, and so what an item has loaded there (`once_per_worker`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneyard.core.execution import Resources


class _Process:
    """The actor's process."""

    def run(self, function: Callable[[Any], Any], task: Any) -> Any:
        """Call a function there."""
        return function(task)


def options_of(resources: Resources) -> dict[str, Any]:
    """What a task or an actor takes of a node, in Ray's words."""
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory:
        options["memory"] = resources.memory
    return options


@dataclass(slots=True)
class _Actor:
    """A process with its resources, and the reference of the task that it runs."""

    handle: Any
    resources: Resources
    running: Any = None


class Actors:
    """The actors of a driver. Each runs one task at a time."""

    def __init__(self) -> None:
        self._actors: list[_Actor] = []

    def submit(self, resources: Resources, function: Callable[[Any], Any], task: Any) -> Any:
        """Run a task in an actor that has these resources and is free; return its reference."""
        actor = self._free(resources) or self._start(resources)
        actor.running = actor.handle.run.remote(function, task)
        return actor.running

    def _free(self, resources: Resources) -> _Actor | None:
        for actor in self._actors:
            if actor.running is None and actor.resources == resources:
                return actor
        return None

    def _start(self, resources: Resources) -> _Actor:
        import ray

        options = options_of(resources)
        actor = _Actor(ray.remote(max_restarts=0, **options)(_Process).remote(), resources)
        self._actors.append(actor)
        return actor

    def make_room(self, resources: Resources) -> None:
        """End idle actors that have other resources: they would keep what the next task waits for."""
        import ray

        for actor in list(self._actors):
            if actor.running is None and actor.resources != resources:
                ray.kill(actor.handle)
                self._actors.remove(actor)

    def ended(self, reference: Any, *, is_lost: bool) -> None:
        """A task has ended: its actor is free, or it is lost with the task."""
        for actor in list(self._actors):
            if actor.running is not None and actor.running == reference:
                actor.running = None
                if is_lost:
                    self._actors.remove(actor)

    def cancel(self) -> list[Any]:
        """End the actors that run a task; return the references of these tasks."""
        import ray

        ended = []
        for actor in list(self._actors):
            if actor.running is not None:
                ray.kill(actor.handle)
                self._actors.remove(actor)
                ended.append(actor.running)
        return ended
