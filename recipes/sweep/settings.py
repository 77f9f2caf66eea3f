"""Settings of a grid: runs that differ in their seeds alone are replicates of one setting."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.language.message import tr
from tuneyard.core.language.number_format import number
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.training.metrics import Metric
from tuneyard.core.training.sweeps import SEEDS

Row = dict[str, Any]  # the settings of a run, its figure (NaN if it diverged) and its folder


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting with its runs. `scores` are their figures, without those of runs that diverged."""

    name: str
    point: Mapping[str, str]
    runs: Sequence[Path]
    scores: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean over the seeds, nan if all of them diverged."""
        if not self.scores:
            return math.nan
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation between the seeds, nan for fewer than two."""
        if len(self.scores) < 2:
            return math.nan
        return statistics.stdev(self.scores)

    def json(self) -> dict[str, object]:
        """The setting as sweep.json has it. JSON has no nan."""
        fields: dict[str, object] = {"setting": dict(self.point), "seeds": len(self.scores)}
        for name, value in (("mean", self.mean), ("standard_deviation", self.deviation)):
            fields[name] = None
            if not math.isnan(value):
                fields[name] = value
        return fields


def settings_of(rows: Sequence[Row], axes: Sequence[str], metric: str) -> list[Setting]:
    """Group the runs of a grid by everything but their seeds, in their order."""
    axes_of_settings = without_seeds(axes)
    rows_of: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        rows_of.setdefault(tuple(row[axis] for axis in axes_of_settings), []).append(row)
    settings = []
    for values, rows_of_setting in rows_of.items():
        point = dict(zip(axes_of_settings, values, strict=True))
        name = ", ".join(f"{key} {value}" for key, value in point.items()) or tr("the recipe")
        scores = [row[metric] for row in rows_of_setting if not math.isnan(row[metric])]
        settings.append(Setting(name, point, [Path(row["run"]) for row in rows_of_setting], scores))
    return settings


def without_seeds(axes: Sequence[str]) -> list[str]:
    """The axes on which settings differ."""
    return [axis for axis in axes if axis not in SEEDS]


def settings_table(settings: Sequence[Setting], axes: Sequence[str], metric: str, meaning: Metric) -> str:
    """A row for each setting, the best mean first, with the deviation between its seeds."""
    axes_of_settings = without_seeds(axes)
    rows = []
    for setting in sorted(settings, key=lambda setting: meaning.rank(setting.mean)):
        figure = f"{setting.mean:.4f}"
        if not math.isnan(setting.deviation):
            figure += f" ± {number(setting.deviation)}"
        values = [setting.point[axis] for axis in axes_of_settings]
        rows.append([*values, figure, f"{len(setting.scores)}"])
    heading = tr("{metric}, mean ± standard deviation", metric=metric)
    return markdown_table([*axes_of_settings, heading, tr("seeds")], rows)
