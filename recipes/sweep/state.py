"""The results of a grid as they lie on the disk: several terminals can work on its runs at the same time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneyard.core.errors import TuneyardError
from tuneyard.core.training.metrics import metric_of
from tuneyard.recipes.machine.hardware import Machine
from tuneyard.recipes.sweep.grid import Grid, TrainingRun
from tuneyard.recipes.sweep.results import SweepResults, score
from tuneyard.recipes.sweep.run import is_finished
from tuneyard.recipes.sweep.settings import Row


def read_results(
    runs: Sequence[TrainingRun],
    grid: Grid,
    evaluation: str | None,
    metric: str,
    target: Machine,
    errors: Mapping[Path, str],
    finished: set[Path],
) -> SweepResults:
    """Results of every folder that is finished, by this process or another one, in the order of the grid.

    `errors` are those of the runs that failed here. `finished` collects the folders: hashing the inputs of a
    large model takes seconds.
    """
    rows: list[Row] = []
    failures: list[Row] = []
    meaning = metric_of(metric)
    for point, recipe in runs:
        folder = recipe.output_dir
        error = errors.get(folder)
        if folder in finished or error == "" or is_finished(recipe, evaluation, target):
            finished.add(folder)
            try:
                figure, meaning = score(folder, evaluation is not None, metric)
            except TuneyardError as no_figure:
                error = no_figure.message
            else:
                rows.append({**point, metric: figure, "run": str(folder)})
                continue
        if error:
            failures.append({**point, "run": str(folder), "error": error})
    out = runs[0][1].output_dir.parent
    return SweepResults(out, grid, metric, meaning, rows, failures, evaluation is not None)
