"""A sweep: its request, how far it is, and its trainings from the check to the table."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tuneyard.core.drawing.plots import PLOTTING
from tuneyard.core.errors import RequestError, TuneyardError, import_early, nearest
from tuneyard.core.execution.ray_cluster import RayCluster
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED, Input, State, compare_inputs
from tuneyard.core.files import make_folder, read_object
from tuneyard.core.files.temporaries import locked
from tuneyard.core.language.message import Message, _
from tuneyard.core.training.metrics import METRICS, UNKNOWN, metric_of
from tuneyard.core.training.sweeps import SWEEP
from tuneyard.recipes.machine.hardware import Machine
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.sweep.grid import Grid, TrainingRun, plan_runs
from tuneyard.recipes.sweep.results import (
    REPORT,
    SweepResults,
    check_folder,
    score,
    write_report,
    write_summary,
)
from tuneyard.recipes.sweep.run import (
    check_first,
    evaluate,
    finish_points,
    point_state,
    scoring_words,
)
from tuneyard.recipes.sweep.settings import Row
from tuneyard.recipes.sweep.slots import SweepPlace, machine_of_a_point, place_here, place_on_ray
from tuneyard.recipes.training.train import TrainRequest, train


@dataclass(frozen=True, kw_only=True)
class GridRequest:
    """What a user asks `recipe sweep` for.

    - `out`: the folder of the runs. `evaluation`: the command that scores a run, None for the training's own
      figures.
    - `metric`: None if the user gave none.
    - `ray`: the address of a cluster that trains the runs, None for this machine.
    """

    recipe: Path
    grid: Grid
    out: Path
    evaluation: str | None = None
    metric: str | None = None
    gpus_each: int = 1
    ray: str | None = None
    runs_model_code: bool = False

    @property
    def figure(self) -> str:
        """The figure by which runs are compared."""
        if self.metric:
            return self.metric
        return "eval_loss" if self.evaluation is None else "accuracy"

    @cached_property
    def runs(self) -> list[TrainingRun]:
        """The points of the grid with their recipes."""
        return plan_runs(self.recipe, self.grid, self.out)

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe of each point."""
        return [recipe for _point, recipe in self.runs]


def check_request(request: GridRequest) -> None:
    """Raise `RequestError` for a figure, a folder or a scoring command that cannot be used."""
    near = nearest(request.figure, METRICS)
    if request.evaluation and near and metric_of(request.figure) == UNKNOWN:
        raise RequestError(
            _("--metric {metric}: no figure of a scoring command; {hint}", metric=request.figure, hint=near)
        )
    check_folder(request.out)
    if request.evaluation is not None:
        scoring_words(request.evaluation, request.out)


def check_runs(request: GridRequest, target: Machine, *, quick: bool = False) -> None:
    """Refuse a grid if one of its runs cannot be trained or scored on a machine."""
    trained_metric = request.figure if request.evaluation is None else None
    check_first(request.recipes, trained_metric, target, quick, runs_model_code=request.runs_model_code)


def state(request: GridRequest) -> State:
    """How far the runs and the table of a sweep are. Nothing is written.

    A sweep is stale if a run in its folder is that of other inputs, or if its table is of another grid. The
    processes of runs on a cluster are not compared.
    """
    check_request(request)
    target = None
    if request.ray is None:
        target = machine_of_a_point(request.recipes, request.gpus_each)
    kinds = set()
    changes: list[Message] = []
    for recipe in request.recipes:
        of_point = point_state(recipe, request.evaluation, target)
        kinds.add(of_point.kind)
        name = recipe.output_dir.name
        changes += [_("{name}: {change}", name=name, change=change) for change in of_point.changes]
    table = request.out / SWEEP
    record = read_object(table) if table.is_file() else {}
    if record:
        changes += compare_inputs(_inputs_of_record(record), _inputs(request)).changes
    if changes:
        return State("stale", tuple(changes))
    if kinds == {"new"} and not record:
        return NEW
    is_reported = bool(record) and not record.get("failed") and (request.out / REPORT).is_file()
    if kinds == {"current"} and is_reported:
        return CURRENT
    return UNFINISHED


def _inputs(request: GridRequest) -> dict[str, Input]:
    """What the table of a sweep depends on next to its runs."""
    axes = {key: ",".join(values) for key, values in request.grid.axes.items()}
    return {"--metric": request.figure, **axes, **request.grid.fixed}


def _inputs_of_record(record: Mapping[str, object]) -> dict[str, Input]:
    """The same of a sweep.json."""
    inputs: dict[str, Input] = {"--metric": str(record.get("metric"))}
    for part in ("grid", "fixed"):
        settings = record.get(part)
        if not isinstance(settings, Mapping):
            continue
        for key, value in settings.items():
            inputs[key] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return inputs


@contextlib.contextmanager
def place_of(request: GridRequest) -> Iterator[SweepPlace]:
    """Where the runs of a sweep train: this machine, or a Ray cluster whose nodes all see its files."""
    recipes = request.recipes
    if request.ray is None:
        place = place_here(recipes, request.gpus_each)
        with place.executor:
            yield place
        return
    with RayCluster(request.ray) as cluster:
        paths = {recipe.path for recipe in recipes}
        for recipe in recipes:
            paths.add(Path(recipe.text("model_name_or_path")) / "config.json")
            paths.add(Path(recipe.text("dataset_dir") or "data") / "dataset_info.json")
        cluster.check_paths([path for path in sorted(paths) if path.exists()], [request.out])
        yield place_on_ray(cluster, recipes, request.gpus_each)


def finish_point(request: GridRequest, name: str) -> Path:
    """Train and score one run alone. Returns its folder. `RequestError` if the grid has none of this name."""
    recipes = {recipe.output_dir.name: recipe for recipe in request.recipes}
    if name not in recipes:
        hint = nearest(name, recipes) or _("expected the name of a run's folder, as --dry-run prints them")
        raise RequestError(_("--point {name}: the grid has no such run; {hint}", name=name, hint=hint))
    recipe = recipes[name]
    train(TrainRequest(recipe, runs_model_code=request.runs_model_code))
    if request.evaluation is not None:
        evaluate(recipe.output_dir, request.evaluation, has_log=False)
    return recipe.output_dir


def sweep(request: GridRequest, place: SweepPlace) -> SweepResults:
    """Bring every checked run to a finished, scored one, and write sweep.json, sweep.md and sweep.png."""
    import_early(PLOTTING)
    out = request.out
    errors: dict[Path, str] = {}
    with closing(finish_points(request.recipes, request.evaluation, place)) as ended:
        for recipe, error in ended:
            errors[recipe.output_dir] = error
            make_folder(out)
            with locked(out):
                write_summary(_results(request, errors))
    results = _results(request, errors)
    with locked(out):
        write_report(results)
    return results


def _results(request: GridRequest, errors: Mapping[Path, str]) -> SweepResults:
    """Results of the runs that have ended, in the order of the grid. `errors`: "" for a finished run."""
    rows: list[Row] = []
    failures: list[Row] = []
    metric = request.figure
    is_scored = request.evaluation is not None
    meaning = metric_of(metric)
    for point, recipe in request.runs:
        folder = recipe.output_dir
        if folder not in errors:
            continue
        error = errors[folder]
        if not error:
            try:
                figure, meaning = score(folder, is_scored, metric)
            except TuneyardError as no_figure:
                error = no_figure.message
            else:
                rows.append({**point, metric: figure, "run": str(folder)})
        if error:
            failures.append({**point, "run": str(folder), "error": error})
    return SweepResults(request.out, request.grid, metric, meaning, rows, failures, is_scored)
