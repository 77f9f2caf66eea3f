"""key.json and tally.json of `tuneyard eval ab`: who wrote each answer of a sheet, and what raters found."""

from typing import Annotated, Literal, NotRequired, TypedDict

from tuneyard.core.records.json_schema import Count, Share
from tuneyard.core.records.record import record, renamed_keys


class AnswerKey(TypedDict):
    """The model of an answer, and its prompt."""

    prompt: Annotated[int, "number of the prompt, from 1"]
    model: str
    cluster: NotRequired[Annotated[str, "prompts of one cluster count as one"]]


@record(
    "key.json",
    "key.json of `tuneyard eval ab`: the model of each answer in sheet.csv",
    lifts=[renamed_keys({"sets": "datasets"})],
)
class RatingKey(TypedDict):
    """The key of a sheet, and what the sheet was made of."""

    format: Literal[2]
    seed: NotRequired[int]
    models: list[str]
    datasets: NotRequired[list[str]]
    answers: Annotated[dict[str, AnswerKey], "by the id of the answer"]


class OutcomeRecord(TypedDict):
    """How often a model was rated better than another one in a criterion."""

    model: str
    against: str
    criterion: str
    wins: Count
    ties: Count
    losses: Count
    share: Annotated[list[Share] | None, "won of the decided: value, low, high"]
    p: Share | None


class TallyRecord(TypedDict):
    """The marks of all raters, counted."""

    models: list[str]
    raters: list[str]
    prompts: Count
    clusters: int | None
    verdicts: list[str]
    outcomes: list[OutcomeRecord]
    mean_marks: dict[str, dict[str, float | None]]
    equal_verdicts: Annotated[float | None, "share of prompts on which two raters agree"]
