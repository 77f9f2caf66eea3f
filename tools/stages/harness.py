"""One process that has imported LLaMA-Factory, and the cells that are run in forks of it."""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.forks import Forks
from tools.stages.material import Material
from tools.stages.walk import Walk


class Harness:
    """Runs cells below `folder`, each of which is removed once it has its outcome."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
        environment["PYTHONWARNINGS"] = "ignore"
        self.forks = Forks("tools.stages.forked_trainer", env=environment)
        self.material = Material(self.folder, self.forks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forks.__exit__(kind, error, trace)

    def run(self, name: str) -> dict[str, object]:
        """Outcome of a cell. AssertionError if what a command says is not what its files have."""
        stage, _, method = name.partition("/")
        cell = self.folder / "cells" / name.replace(" ", "-")
        outcome = Walk(self.forks, self.material, cell, stage, method).run()
        if "KEEP_CELLS" not in os.environ:
            shutil.rmtree(cell)
        return outcome
