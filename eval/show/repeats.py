"""Table of the repeats of sampled answers; the comparison below it reads the first repeat."""

from collections.abc import Callable, Sequence

from tuneyard.core.language.number_format import Table, number, percent
from tuneyard.core.language.translation import tr
from tuneyard.eval.read.scored_run import ScoredRun

CAPTION = "Repeated generation (the comparison reads the first repeat)"
HEADER = ("model", "dataset", "figure", "repeats", "mean", "95 % interval", "standard deviation")


def repeats_table(runs: Sequence[ScoredRun]) -> Table | None:
    """Mean and spread of each run with repeats; None if no run has any."""
    rows = []
    for run in runs:
        repeats = run.facts.get("repeats")
        if not isinstance(repeats, dict):
            continue
        for name, figure in repeats["figures"].items():
            show: Callable[[float], str] = number
            if figure.get("share"):
                show = percent
            low, high = map(show, figure["ci95"])
            interval = tr("{low} to {high}", low=low, high=high)
            cells = [run.model, run.dataset, name, str(repeats["n"]), show(figure["mean"])]
            rows.append([*cells, interval, show(figure["sd"])])
    if not rows:
        return None
    return Table([tr(column) for column in HEADER], rows)
