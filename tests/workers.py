"""Workers for tests of scoring: they get everything pickled, as in another process, and run in this one."""

import contextlib
import pickle
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuneyard.core.execution import Executor, InThisProcess, WorkItem, WorkResult


class PickledWorkers(InThisProcess):
    """Two workers that are one process, which gets and returns pickled objects. `names` are the items."""

    workers = 2

    def __init__(self) -> None:
        self.names: list[str] = []

    def map(
        self, items: Iterable[WorkItem], *, common: object = None, **options: Any
    ) -> Generator[WorkResult]:
        """Run the items as unpickling gives them. The common value is sent once."""
        sent = map(self._sent, items)
        for result in super().map(sent, common=pickle.loads(pickle.dumps(common)), **options):
            yield pickle.loads(pickle.dumps(result))

    def _sent(self, item: WorkItem) -> WorkItem:
        self.names.append(item.name)
        received: WorkItem = pickle.loads(pickle.dumps(item))
        return received


class ElsewhereWorkers(PickledWorkers):
    """Workers that run in another folder, as a process of a cluster may that was not told of ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def map(
        self, items: Iterable[WorkItem], *, common: object = None, **options: Any
    ) -> Generator[WorkResult]:
        """Run the items in that folder."""
        for item in items:
            with contextlib.chdir(self._folder):
                (result,) = super().map([item], common=common, **options)
            yield result


def use_workers(monkeypatch: pytest.MonkeyPatch, executor: Executor) -> None:
    """Let all scoring commands score by these workers, which stay open."""

    @contextlib.contextmanager
    def workers_of(request: object) -> Iterator[Executor]:
        yield executor

    monkeypatch.setattr("tuneyard.eval.scoring.pipeline.workers_of", workers_of)
