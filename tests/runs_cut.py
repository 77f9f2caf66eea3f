"""What a command wrote, byte by byte, and the end of one that is scoring."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from tuneyard.eval.runs.results import PredictionLog


class Killed(BaseException):
    """The end of a process that nothing in it notices."""


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kill_while_scoring(monkeypatch: pytest.MonkeyPatch, batches: Collection[int]) -> None:
    """End this process at batches of predictions, counted from 0 over all runs, before they are written."""
    write = PredictionLog.append
    scored = itertools.count()

    def append(log: PredictionLog, predictions: Sequence[Any], token_losses: Sequence[Any] = ()) -> None:
        if next(scored) in batches:
            raise Killed
        write(log, predictions, token_losses)

    monkeypatch.setattr(PredictionLog, "append", append)
