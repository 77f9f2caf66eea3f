"""Files of the two sweeps: `recipe sweep` trains a grid, `eval sweep` scores weights or checkpoints."""

from pathlib import Path

from tuneyard.core.files import read_object

SWEEP = "sweep.json"  # the trainings of a grid
POINTS = "points.json"  # weights or checkpoints that were scored, and the choice among them
RESULTS = "results"  # folder in that of a training, into which its scoring command writes
SEEDS = ("seed", "data_seed")
"""Axes of a grid that make replicates of one setting."""


def points_file(folder: Path) -> Path | None:
    """The record of an `eval sweep` in a folder, None without one. Earlier versions called it sweep.json."""
    if (folder / POINTS).is_file():
        return folder / POINTS
    earlier = folder / SWEEP
    if earlier.is_file() and "grid" not in read_object(earlier):
        return earlier
    return None
