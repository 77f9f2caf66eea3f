"""Results of a grid: the figure of each run, the table and the plot over them."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tuneyard.core.drawing.plots import check_replaceable, picture, plotting
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.language.message import _, counted, joined, marked, tr, translated
from tuneyard.core.records.sweep_record import GridRun, TrainingSweep
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import markdown_text
from tuneyard.core.training.metrics import Metric, declared_metric, direction, metric_of
from tuneyard.core.training.sweeps import RESULTS, SWEEP, points_file
from tuneyard.core.training.training_run import TRAINING
from tuneyard.recipes.output_dir.curve import DivergedError, read_curve
from tuneyard.recipes.sweep.grid import Grid
from tuneyard.recipes.sweep.settings import (
    Row,
    Setting,
    settings_of,
    settings_table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "sweep.png"
REPORT = "sweep.md"
MOST_DIGITS = 9
SCORING_RUN = "run.json"  # in a folder that a scoring command has written


def check_folder(out: Path) -> None:
    """Raise `RequestError` if OUT holds the results of another command.

    `tuneyard eval sweep` leaves its points, a scoring command run.json, a training training.json.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(_("{path} is a file; expected a folder: choose another --out", path=out))
    if points_file(out) or (out / SCORING_RUN).is_file() or (out / TRAINING).is_file():
        raise RequestError(_("{path} holds the results of another command: choose another --out", path=out))
    check_replaceable(out / PLOT)


def score(folder: Path, is_scored_by_command: bool, metric: str) -> tuple[float, Metric]:
    """A run's figure and its meaning: its best value, or the mean over what its scoring command wrote.

    It is NaN for a run that diverged.
    """
    if not is_scored_by_command:
        meaning = metric_of(metric)
        try:
            return meaning.best(value for _step, value in read_curve(folder, metric)), meaning
        except DivergedError:  # one point of the grid, not the end of the others
            return math.nan, meaning
    results = folder / RESULTS
    numbers: list[float] = []
    meanings: list[Metric] = []
    without_number: list[Path] = []
    for path in sorted(results.rglob("results.json")):
        result = read_object(path)  # of any command: `--eval` takes scripts of users, too
        if result.get("model") == "base":
            continue
        value, meaning = _read_metric(result, metric)
        meanings.append(meaning)
        if isinstance(value, int | float):
            numbers.append(float(value))
        else:
            without_number.append(path)
    if not numbers:
        raise ContentError(
            _("{path}: no results.json with the number {metric}", path=results, metric=show_value(metric))
        )
    if without_number:
        raise ContentError(
            _(
                "{path}: no number {metric}, which the other results have",
                path=without_number[0],
                metric=show_value(metric),
            )
        )
    figure = statistics.fmean(numbers)
    if not math.isfinite(figure):  # JSON has no infinity
        figure = math.nan
    return figure, meanings[0]


def _read_metric(results: Mapping[str, object], name: str) -> tuple[object, Metric]:
    """Read a figure of a results.json or of its `metrics`: its value (None if missing) and meaning."""
    declared = results.get("metrics")
    figure = declared.get(name) if isinstance(declared, Mapping) else None
    if name in results or not isinstance(figure, Mapping):
        return results.get(name), metric_of(name)
    return figure.get("value"), declared_metric(name, figure)


@dataclass(frozen=True, slots=True)
class SweepResults:
    """Results of a grid in the folder `out`: the finished runs, and those that failed.

    `meaning` is that of the metric. `is_scored`: a command has scored the runs.
    """

    out: Path
    grid: Grid
    metric: str
    meaning: Metric
    rows: Sequence[Row]
    failures: Sequence[Row]
    is_scored: bool

    @property
    def settings(self) -> list[Setting]:
        """The finished runs, grouped by everything but their seeds."""
        return settings_of(self.rows, list(self.grid.axes), self.metric)

    @property
    def best_run(self) -> str:
        """The folder of the best run, the first of the table."""
        return str(min(self.rows, key=lambda row: self.meaning.rank(row[self.metric]))["run"])

    @property
    def report(self) -> str:
        """Markdown of the tables and the runs that failed, in the language of the reader."""
        return "\n".join(part for part in self._parts() if part.strip())

    def _parts(self) -> Iterator[str]:
        if self.rows:
            yield from self._tables()
        if self.failures:
            lines = []
            for row in self.failures:
                reason = translated(row["error"]).splitlines()[0]
                line = tr("failed: {run}: {reason}", run=row["run"], reason=reason)
                lines.append(f"- {markdown_text(line)}\n")
            yield "".join(lines)
        if not self.is_scored:
            yield tr("A verdict needs the examples: score the runs with --eval COMMAND.") + "\n"

    @property
    def has_seeds(self) -> bool:
        """True if runs differ in their seeds alone."""
        return len(self.settings) < len(self.rows)

    def _tables(self) -> Iterator[str]:
        if self.has_seeds:
            yield settings_table(self.settings, list(self.grid.axes), self.metric, self.meaning) + "\n"
        elif len(self.settings) > 1:
            yield tr("One seed each: a difference may be luck. Train several (seed=1,2,3,4,5).") + "\n"
        yield table(self.rows, self.grid, self.metric, self.meaning)

    def refuse_failures(self) -> None:
        """Raise `ContentError` if runs have failed."""
        if not self.failures:
            return
        names = joined(Path(row["run"]).name for row in self.failures)
        runs = len(self.rows) + len(self.failures)
        raise ContentError(
            _(
                "{failures} of {runs} failed ({names}); the same command tries them again",
                failures=len(self.failures),
                runs=counted(runs, "run", "runs"),
                names=names,
            )
        )


def write_summary(results: SweepResults) -> None:
    """Write sweep.json: finished and failed runs, and settings. `eval compare` reads it."""
    metric = results.metric
    rows: list[GridRun] = []
    for row in results.rows:
        figure = row[metric]
        if math.isnan(figure):  # which JSON does not have
            figure = None
        rows.append(cast(GridRun, {**row, metric: figure}))
    record: TrainingSweep = {
        "format": 2,
        "metric": metric,
        "grid": results.grid.axes,
        "fixed": results.grid.fixed,
        "rows": rows,
        "failed": [cast(GridRun, row) for row in results.failures],
        "settings": [setting.json() for setting in results.settings],
    }
    write_json(results.out / SWEEP, record)


def write_report(results: SweepResults) -> None:
    """Write sweep.md, sweep.json and sweep.png."""
    write_summary(results)
    grid, metric, meaning = results.grid, results.metric, results.meaning
    if results.rows and (results.has_seeds or len(grid.axes) > 2):
        plot_settings(results.settings, metric, meaning, results.out / PLOT)
    elif results.rows:
        plot(results.rows, grid.axes, metric, meaning, results.out / PLOT)
    write_text(results.out / REPORT, results.report)


def table(rows: Sequence[Row], grid: Grid, metric: str, meaning: Metric) -> str:
    """Format the runs as Markdown, the best first."""
    axes = list(grid.axes)
    ordered = sorted(rows, key=lambda row: meaning.rank(row[metric]))
    cells = []
    for row in ordered:
        settings_of_run = [str(row[key]) for key in axes]
        cells.append([*settings_of_run, f"{row[metric]:.4f}"])
    lines = [markdown_table([*axes, metric], cells)]
    if grid.fixed:
        settings = ", ".join(f"{key}={value}" for key, value in grid.fixed.items())
        lines.append("\n" + markdown_text(tr("the same in every run: {settings}", settings=settings)))
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], axes: dict[str, list[str]], metric: str, meaning: Metric, path: Path) -> None:
    """Draw a PNG: a line over one axis, a heat map over two."""
    with plotting(), picture((6.4, 4.2), path) as figure:
        panel = figure.subplots()
        best = min(rows, key=lambda row: meaning.rank(row[metric]))
        point = ", ".join(f"{key} {best[key]}" for key in axes)
        title = marked("Best {metric} {value:.4g} at {point}")
        panel.set_title(tr(title, metric=metric, value=best[metric], point=point), wrap=True)
        if len(axes) == 2:
            _heat_map(panel, rows, axes, metric, meaning)
            return
        (axis,) = axes
        panel.plot([str(row[axis]) for row in rows], [row[metric] for row in rows], marker="o", color="C0")
        panel.set(xlabel=axis, ylabel=direction(metric, meaning))


def plot_settings(settings: Sequence[Setting], metric: str, meaning: Metric, path: Path) -> None:
    """Draw a PNG: every run, and each setting's mean with the standard deviation between its seeds."""
    ordered = sorted(settings, key=lambda setting: meaning.rank(setting.mean), reverse=True)
    best = ordered[-1]
    with plotting(), picture((6.4, max(2.4, 1.6 + 0.4 * len(ordered))), path) as figure:
        panel = figure.subplots()
        for place, setting in enumerate(ordered):
            panel.plot(setting.scores, [place] * len(setting.scores), ".", color="C5", alpha=0.6)
        means = [setting.mean for setting in ordered]
        deviations = [setting.deviation for setting in ordered]
        panel.errorbar(means, range(len(ordered)), xerr=deviations, fmt="o", color="C0", capsize=4)
        panel.set_yticks(range(len(ordered)), [setting.name for setting in ordered])
        title = marked("Best mean {metric} {value:.4g} ± {deviation:.2g} at {point}")
        if math.isnan(best.deviation):  # only one of its seeds has a figure
            title = marked("Best {metric} {value:.4g} at {point}")
        panel.set_title(
            tr(title, metric=metric, value=best.mean, deviation=best.deviation, point=best.name), wrap=True
        )
        panel.set(xlabel=direction(metric, meaning), ylim=(-0.5, len(ordered) - 0.5))


def telling_digits(values: Sequence[float]) -> int:
    """The digits, four at least, that show different values as different: as different as their colours."""
    digits = 4
    while digits < MOST_DIGITS and len({f"{value:.{digits}g}" for value in values}) < len(set(values)):
        digits += 1
    return digits


def _heat_map(
    panel: "Axes", rows: Sequence[Row], axes: dict[str, list[str]], metric: str, meaning: Metric
) -> None:
    (down, downs), (across, acrosses) = axes.items()
    values = [[math.nan] * len(acrosses) for _row in downs]
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
    digits = telling_digits([row[metric] for row in rows])
    for row in rows:
        y, x = downs.index(row[down]), acrosses.index(row[across])
        values[y][x] = row[metric]
        panel.text(x, y, f"{row[metric]:.{digits}g}", ha="center", va="center", bbox=box)
    colours = "cividis_r"
    if meaning.higher:
        colours = "cividis"
    panel.imshow(values, cmap=colours, aspect="auto")
    panel.set_xticks(range(len(acrosses)), acrosses)
    panel.set_yticks(range(len(downs)), downs)
    panel.set(xlabel=across, ylabel=down)
