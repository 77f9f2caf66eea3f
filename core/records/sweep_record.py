"""sweep.json: the trainings of a grid, as `tuneyard recipe sweep` writes them."""

from typing import Annotated, Any, Literal, Required, TypedDict

from tuneyard.core.records.record import record, renamed_keys


class GridRun(TypedDict, total=False):
    """A run of the grid. Its other keys are the axes with their values, and the metric."""

    run: Required[Annotated[str, "the run's folder"]]
    error: Annotated[str, "of a run that failed"]


@record(
    "sweep.json",
    "sweep.json of `tuneyard recipe sweep`: the trainings of a grid",
    lifts=[renamed_keys({})],
)
class TrainingSweep(TypedDict, total=False):
    """Trainings of a grid."""

    format: Required[Literal[2]]
    metric: str
    grid: Required[Annotated[dict[str, list[Any]], "the values of each axis, as texts"]]
    fixed: Annotated[dict[str, Any], "settings that are the same in every run"]
    rows: Required[Annotated[list[GridRun], "finished runs"]]
    failed: Annotated[list[GridRun], "runs that failed"]
    settings: Annotated[list[dict[str, Any]], "the finished runs, grouped by everything but their seeds"]
