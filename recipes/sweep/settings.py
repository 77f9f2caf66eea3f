"""Settings of a grid: runs that differ in their seeds alone are replicates of one setting."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.documents import markdown_table
from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.core.language.number_format import number
from tuneyard.core.language.translation import tr
from tuneyard.core.training.metrics import Metric
from tuneyard.recipes.judging import BASE, VERDICT, Judgement, judge, scored_folders
from tuneyard.recipes.judging import RESULTS as RESULTS_FILE
from tuneyard.recipes.sweep.grid import RESULTS

SEEDS = ("seed", "data_seed")
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


def luck(settings: Sequence[Setting], meaning: Metric) -> str:
    """Sentence on whether the two best settings differ by less than their seeds do. "" for one setting."""
    ranked = sorted(settings, key=lambda setting: meaning.rank(setting.mean))
    if len(ranked) < 2:
        return ""
    best, second = ranked[:2]
    deviations = [setting.deviation for setting in (best, second) if not math.isnan(setting.deviation)]
    if not deviations:
        return tr("One seed each: a difference may be luck. Train several (seed=1,2,3,4,5).")
    difference, deviation = abs(best.mean - second.mean), max(deviations)
    sentence = "{best} and {second} differ by {difference}, their seeds by {deviation} (standard deviation)."
    if not difference >= deviation:
        sentence = (
            "{best} and {second} are tied: they differ by {difference}, less than their seeds do "
            "({deviation}, standard deviation)."
        )
    return tr(
        sentence,
        best=best.name, second=second.name, difference=number(difference), deviation=number(deviation),
    )  # fmt: skip


def judge_settings(settings: Sequence[Setting], metric: str, out: Path) -> Judgement:
    """Compare the settings by the scored examples of their runs; seeds are replicates.

    Without seeds, the best setting is chosen on half of the examples and reported on the other half.
    `ContentError` if the results cannot be compared.
    """
    base_folders: dict[str, Path] = {}
    folders_of: dict[str, list[Path]] = {}
    options: list[str] = []
    names: set[str] = set()
    for setting in settings:
        name = re.sub("[/=]", "-", setting.name)  # which separate models from datasets and folders
        while name in names:
            name += "-2"
        names.add(name)
        models = []
        for run in setting.runs:
            model = name
            if len(setting.runs) > 1:
                model = run.name
            scored = scored_folders(run / RESULTS)
            _add_base(base_folders, scored.get(BASE, []))
            adapters = [folders for scored_name, folders in scored.items() if scored_name != BASE]
            if len(adapters) != 1:
                listed = ", ".join(scored) or "none"
                raise ContentError(f"{run / RESULTS}: expected results of one adapter, found {listed}")
            folders_of[model] = adapters[0]
            models.append(model)
        if len(models) > 1:
            options += ["--replicates", f"{name}={','.join(models)}"]
    if base_folders:
        folders_of = {BASE: list(base_folders.values()), **folders_of}
        if not options and len(settings) > 1:
            options = ["--choose-on", "half"]
    return judge(folders_of, metric, options, out / VERDICT, tr("Sweep {name}", name=out.name))


def _add_base(base_folders: dict[str, Path], scored: Sequence[Path]) -> None:
    """Add a run's results of the base, by dataset. `ContentError` if they are of another base than before."""
    for folder in scored:
        result = read_object(folder / RESULTS_FILE)
        first = base_folders.setdefault(str(result.get("set", folder.name)), folder)
        hashes, first_hashes = _hashes(result), _hashes(read_object(first / RESULTS_FILE))
        differing = [name for name, value in hashes.items() if first_hashes.get(name, value) != value]
        if differing:
            raise ContentError(
                f"{folder}: its base differs from that of {first} ({', '.join(differing)}); score all runs "
                "with the same base, or without one (--no-base)"
            )


def _hashes(result: Mapping[str, object]) -> Mapping[str, object]:
    """Hashes of the model, data and chat template that a result comes from; {} if it has none."""
    hashes = result.get("hashes")
    if not isinstance(hashes, dict):
        return {}
    return hashes
