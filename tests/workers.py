"""Workers for tests of scoring: they get everything pickled, as in another process, and run in this one."""

import contextlib
import pickle
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tuneyard.core.execution import (
    AHEAD,
    SILENT,
    Common,
    Executor,
    InThisProcess,
    Observer,
    WorkItem,
    WorkResult,
)

COMMANDS = ("scoring.command", "suite", "sweep")
"""The modules of eval that open workers."""


class PickledWorkers(InThisProcess):
    """Two workers that are one process, which gets and returns pickled objects. `names` are the items."""

    workers = 2

    def __init__(self) -> None:
        self.names: list[str] = []
        self._values: dict[int, Common] = {}

    def map(
        self, items: Iterable[WorkItem], observer: Observer = SILENT, ahead: int = AHEAD
    ) -> Generator[WorkResult]:
        """Run the items as unpickling gives them. A shared value is sent once."""
        for result in super().map(map(self._sent, items), observer, ahead):
            yield replace(result, record=pickle.loads(pickle.dumps(result.record)))

    def _sent(self, item: WorkItem) -> WorkItem:
        self.names.append(item.name)
        function = pickle.loads(pickle.dumps(item.function))
        return replace(item, function=function, arguments=tuple(map(self._argument, item.arguments)))

    def _argument(self, argument: object) -> object:
        if not isinstance(argument, Common):
            return pickle.loads(pickle.dumps(argument))
        if argument.number not in self._values:
            self._values[argument.number] = Common(pickle.loads(argument.pickled))
        return self._values[argument.number]


class ElsewhereWorkers(PickledWorkers):
    """Workers that run in another folder, as a process of a cluster may that was not told of ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def map(
        self, items: Iterable[WorkItem], observer: Observer = SILENT, ahead: int = AHEAD
    ) -> Generator[WorkResult]:
        """Run the items in that folder."""
        for item in items:
            with contextlib.chdir(self._folder):
                (result,) = super().map([item], observer, ahead)
            yield result


def use_workers(monkeypatch: pytest.MonkeyPatch, executor: Executor) -> None:
    """Let all scoring commands score by these workers, which stay open."""

    @contextlib.contextmanager
    def workers_of(request: object) -> Iterator[Executor]:
        yield executor

    for module in COMMANDS:
        monkeypatch.setattr(f"tuneyard.eval.{module}.workers_of", workers_of)
