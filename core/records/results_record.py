"""results.json: what one model scored on one dataset, and where its outputs came from.

All scoring commands write the keys of `ResultsRecord`, and figures of their own. `LabelResults` are those of
`tuneyard eval nli` and `cmmlu`.
"""

from typing import Annotated, Any, Literal, Required, TypedDict

from tuneyard.core.records.json_schema import Count, Figure, Limits, Share, Spread
from tuneyard.core.records.record import record, renamed_keys

Interval = Annotated[list[Figure], "limits at 95 %", Limits(2, 2)]
Shots = TypedDict("Shots", {"from": Annotated[str, "the training split"], "rows": list[Count]})
"""--shots: the rows (from 0) of a training split that are before each question."""


class MetricFigure(TypedDict, total=False):
    """The mean of a metric over the examples that have it."""

    value: Required[Figure]
    n: Count
    unit: str
    higher_is_better: bool
    stderr: Spread | None
    ci95: Interval | None


class TrainedOn(TypedDict, total=False):
    """How many examples of the dataset the weights were trained on."""

    examples: Count
    at_most: Annotated[bool, "the training may have read fewer of them"]
    sources: Annotated[list[str], "records of the trainings"]
    same_name: Annotated[list[str], "trainings on a dataset of this name whose examples are unknown"]
    chose: Annotated[list[str], "trainings that chose their checkpoint on the dataset"]
    not_checked: Annotated[list[str], "why some trainings could not be compared"]


class TrainingRows(TypedDict):
    """Examples that are rows of training splits, whatever model is scored."""

    examples: Annotated[int, Limits(1, None)]
    drawn: Annotated[bool, "drawn as a training with val_size draws them"]
    datasets: Annotated[list[str], Limits(1, None)]
    held_out: Annotated[list[str], "the datasets to score instead"]


class Hashes(TypedDict, total=False):
    """SHA-256 of what the outputs depend on."""

    model: str | None
    adapters: dict[str, str]
    data: str | None
    chat_template: str | None


class RescoredFrom(TypedDict):
    """--rescore: the predictions.jsonl whose outputs these are."""

    path: str
    sha256: str


class TuneyardVersion(TypedDict, total=False):
    """The Tuneyard that wrote the file."""

    version: Required[str]
    commit: str


class OutputOrigin(TypedDict, total=False):
    """Where the outputs of a model came from. --rescore keeps these keys."""

    generation: Annotated[Any, "answers to fixed prompts"]
    about: Annotated[str, "what the dataset is about"]
    trained_on: Annotated[TrainedOn | None, "null: no file records a training"]
    training_rows: TrainingRows
    base: Annotated[str, "the base model as the command names it"]
    adapters: Annotated[dict[str, str], "the folder of each adapter"]
    weights: Annotated[dict[str, Figure], "the weight of each adapter in the model"]
    prompt: Annotated[str, "where the chat template came from"]
    dtype: Annotated[str, "fp32, bf16, fp16, or server"]
    device: str
    versions: dict[str, str]
    hashes: Hashes
    shots: Annotated[Shots, "--shots: the rows of a training split before each question"]


class ResultFacts(OutputOrigin, total=False):
    """The keys of results.json that all scoring commands share, and other tools' results lack."""

    tests: Annotated[str, "what the examples test, in English, if their answers are no labels"]
    n: Annotated[Count, "examples"]
    accuracy: Share | None
    stderr: Annotated[Spread | None, "of the accuracy; by cluster if rows have one"]
    ci95: Annotated[list[Share] | None, "Wilson's limits of the accuracy", Limits(2, 2)]
    majority: Annotated[Share | None, "share of the dataset's most common expected answer"]
    majority_label: str
    macro_f1: Share | None
    unparsed: Annotated[Count, "rows whose answer is no label"]
    too_long: Annotated[Count, "prompts that the context cannot hold, counted as incorrect"]
    refused: Annotated[Count, "rows that the server refused, counted as unanswered"]
    metrics: Annotated[dict[str, MetricFigure], "metrics of examples by name"]
    cluster: Annotated[str | None, "the cluster column; null: rows are independent"]
    clusters: Annotated[int | None, "how many clusters the rows have"]
    settings: Annotated[dict[str, Any], "options that decide the outputs or the figures, by name"]
    tuneyard: Annotated[Any, "the Tuneyard that wrote the file"]
    command: str
    rescored_from: RescoredFrom


@record("results.json", "results.json: one model on one dataset", lifts=[renamed_keys({"set": "dataset"})])
class ResultsRecord(ResultFacts, total=False):
    """One model on one dataset."""

    format: Required[Literal[2]]
    model: Required[Annotated[str, "base, or the adapter's name"]]
    dataset: Required[str]


class ClassScores(TypedDict):
    """Precision, recall and F1 of a label."""

    precision: Share
    recall: Share
    f1: Share
    support: Annotated[int, "rows with this expected answer"]


class Agreement(TypedDict):
    """How often the answers of both modes agree on the rows that were answered in both."""

    n: Count
    agree: Count
    differing: list[dict[str, Any]]


@record(
    "results.json",
    "results.json of `tuneyard eval nli`: one model on one dataset of labels",
    lifts=[renamed_keys({"set": "dataset"})],
    schema_file="results-labels.json",
)
class LabelResults(ResultsRecord, total=False):
    """The results of scoring labels."""

    mode: Required[Literal["choice", "generate"]]
    unparsed_rows: list[Count]
    classes: dict[str, ClassScores]
    confusion: Annotated[dict[str, dict[str, int]], "expected answer, then predicted, then rows"]
    label_mass: Required[Annotated[float | None, "mean probability of all labels together; mode choice"]]
    labels: Required[Annotated[list[str], Limits(2, None)]]
    check_generate: Annotated[Agreement, "rows of mode choice whose answer was generated, too"]
    check_choice: Annotated[Agreement, "rows of mode generate whose labels were compared, too"]
