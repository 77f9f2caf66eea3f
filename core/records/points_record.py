"""points.json: the search for merge weights or for a checkpoint, as `tuneyard eval sweep` writes it."""

from typing import Annotated, Literal, Required, TypedDict

from tuneyard.core.records.json_schema import Count
from tuneyard.core.records.record import record, renamed_keys
from tuneyard.core.records.table_record import JudgedRecord


@record(
    "points.json",
    "points.json of `tuneyard eval sweep`: the points that were scored, and the chosen one",
    lifts=[renamed_keys({"sets": "datasets"})],
)
class WeightSweep(JudgedRecord, total=False):
    """The points of a sweep, the choice among them, and its comparison on the other half."""

    format: Required[Literal[2]]
    axes: Required[Annotated[list[str], "an adapter's weight, or `step`"]]
    points: Required[Annotated[dict[str, list[float]], "each model's place on the axes"]]
    ship: Required[Annotated[str, "the model that was chosen"]]
    reported: Required[Annotated[list[str], "models that are scored on the other half, too"]]
    rows_to_choose_on: Required[Annotated[dict[str, list[Count]], "rows that choose, by dataset"]]


@record("points.json", "points.json", lifts=[renamed_keys({"sets": "datasets"})], schema_file="")
class ReportedModels(TypedDict):
    """What `tuneyard eval compare` reads of points.json."""

    format: Literal[2]
    reported: list[str]
