"""The table of sampled answers that were generated several times, above a comparison that reads the first."""

from collections.abc import Sequence

from tuneyard.core.language import tr
from tuneyard.core.number_format import Table, number
from tuneyard.eval.read.run import ScoredRun

CAPTION = "Repeated generation (the comparison reads the first repeat)"
HEADER = ("model", "dataset", "figure", "repeats", "mean", "95 % interval", "standard deviation")


def repeats_table(runs: Sequence[ScoredRun]) -> Table | None:
    """Return the mean and the spread of each run that has repeats, None if none has."""
    rows = []
    for run in runs:
        repeats = run.facts.get("repeats")
        if not isinstance(repeats, dict):
            continue
        for name, one in repeats["figures"].items():
            low, high = map(number, one["ci95"])
            interval = tr("{low} to {high}", low=low, high=high)
            cells = [run.model, run.dataset, name, str(repeats["n"]), number(one["mean"])]
            rows.append([*cells, interval, number(one["sd"])])
    return Table([tr(column) for column in HEADER], rows) if rows else None
