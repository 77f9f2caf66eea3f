"""The results of a grid as they lie on the disk: several terminals can work on its runs at the same time."""

from collections.abc import Sequence
from pathlib import Path

from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import locked, make_folder
from tuneyard.core.training.metrics import Metric
from tuneyard.core.training.training_run import TRAINING
from tuneyard.recipes.hardware import Machine
from tuneyard.recipes.output_dir import inputs_of
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.sweep.grid import Grid, TrainingRun
from tuneyard.recipes.sweep.results import SweepResults, judge_runs, score, write_progress, write_report
from tuneyard.recipes.sweep.run import has_inputs, is_scored
from tuneyard.recipes.sweep.settings import Row
from tuneyard.recipes.token_weights import weights_file


class GridState:
    """The runs of a grid that this process or another one has finished, and those that failed here.

    sweep.json, sweep.md and the verdict cover every run that is finished when they are written, so that the
    terminal that writes last loses nothing.
    """

    def __init__(
        self, runs: Sequence[TrainingRun], grid: Grid, evaluation: str | None, metric: str, target: Machine
    ) -> None:
        self._runs = runs
        self._grid = grid
        self._evaluation = evaluation
        self._metric = metric
        self._target = target
        self._out = runs[0][1].output_dir.parent
        self._rows: dict[Path, Row] = {}
        self._failures: dict[Path, Row] = {}
        self._inputs: dict[Path, dict[str, object]] = {}  # hashing them takes seconds for a large model
        self._meaning: Metric | None = None

    def add(self, point: dict[str, str], recipe: Recipe, error: str) -> None:
        """Add a run that has ended here, and write sweep.json."""
        if error:
            self._failures[recipe.output_dir] = {**point, "run": str(recipe.output_dir), "error": error}
        else:
            self._read(point, recipe)
        make_folder(self._out)
        with locked(self._out):
            self._look()
            write_progress(self._results())

    def report(self) -> SweepResults:
        """Judge the runs, and write and print the report. It starts again if a run was finished meanwhile."""
        while True:
            self._look()
            results = self._results()
            judgement, reason = judge_runs(results)
            with locked(self._out):
                if not self._look():
                    write_report(results, judgement, reason)
                    return results

    def _look(self) -> bool:
        """Add the runs that another process has finished. True if there are new ones."""
        has_new = False
        for point, recipe in self._runs:
            if recipe.output_dir not in self._rows and self._is_finished(recipe):
                has_new = self._read(point, recipe) or has_new
        return has_new

    def _is_finished(self, recipe: Recipe) -> bool:
        folder = recipe.output_dir
        if not (folder / TRAINING).is_file():
            return False
        if folder not in self._inputs:
            self._inputs[folder] = inputs_of(recipe, weights_file(recipe.path))
        if not has_inputs(recipe, self._target, self._inputs[folder]):
            return False
        return self._evaluation is None or is_scored(folder, self._evaluation)

    def _read(self, point: dict[str, str], recipe: Recipe) -> bool:
        """Read the figure of a finished run; without one it has failed. True if it has a figure."""
        folder = recipe.output_dir
        try:
            figure, self._meaning = score(folder, self._evaluation is not None, self._metric)
        except TuneyardError as error:
            self._failures[folder] = {**point, "run": str(folder), "error": str(error)}
            return False
        self._rows[folder] = {**point, self._metric: figure, "run": str(folder)}
        self._failures.pop(folder, None)
        return True

    def _results(self) -> SweepResults:
        """The results so far, in the order of the grid."""
        folders = [recipe.output_dir for _, recipe in self._runs]
        rows = [self._rows[folder] for folder in folders if folder in self._rows]
        failures = [self._failures[folder] for folder in folders if folder in self._failures]
        is_scored_by_command = self._evaluation is not None
        return SweepResults(
            self._out, self._grid, self._metric, self._meaning, rows, failures, is_scored_by_command
        )
