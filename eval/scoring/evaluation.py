"""The command's part of a scoring run (Evaluation), and one model on one dataset (Job)."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tuneyard.core.execution.state import Input
from tuneyard.core.language.message import _, counted
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.core.records.prediction_record import Prediction, PredictionFields
from tuneyard.core.records.record import read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.labels import LOW_MASS, UNKNOWN
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import BatchPlan, Fields, generating
from tuneyard.eval.runs.results import PREDICTIONS, RESULTS, Results
from tuneyard.eval.scoring.request import ScoringRequest

if TYPE_CHECKING:
    from tuneyard.eval.scoring.candidates import Candidate, Opened

NextStep = tuple[Path, Sequence[str]]
"""Where the result of a scoring command is, and the words of the next command."""


OF_A_FIGURE = ("value", "ci95", "n", "majority")
"""What a suite's table.json has of a figure."""
NO_TEXT = _("no answer has a text; the template, the end tokens or --max-new-tokens may be wrong")
"""The warning of a run in which all answers are empty."""


class Job:
    """One candidate on one dataset, planned: its prompts are in batches, which `batch_plan` answers.

    - `folder`: OUT/MODEL/DATASET.
    - `rows`: the dataset's examples in its order, up to --limit.
    - `shots`: the examples before each question, None for a candidate without shots.
    - `main`: the job whose results need these answers, which `Job.further` then has by row.
    """

    def __init__(
        self,
        request: ScoringRequest,
        backend: Backend,
        candidate: "Candidate",
        dataset: EvalDataset,
        evaluation: "Evaluation",
        batch_plan: BatchPlan | None = None,
        main: "Job | None" = None,
    ) -> None:
        self.request = request
        self.candidate, self.dataset, self.evaluation = candidate, dataset, evaluation
        self.folder = request.out / candidate.name / dataset.name
        self.rows = dataset.conversations[: request.limit]
        of_rows = backend.for_rows(f"{candidate.name}/{dataset.name}", len(self.rows))
        trained = of_rows.as_trained(candidate.prompting.tokenizer, candidate.prompting.ends)
        self.backend = replace(trained, special_tokens=True) if evaluation.special_tokens else trained
        self.shots = dataset.shots if candidate.shots else None
        self.main = main
        self.further: dict[int, Fields] = {}
        self.batch_plan = batch_plan or evaluation.batch_plan(self)

    def messages(self, rows: Collection[int] | None = None) -> dict[int, Messages]:
        """Messages by row, of all rows or of some. Shots come after the system message."""
        shots = self.shots.turns if self.shots else []
        messages = {}
        for row in range(len(self.rows)) if rows is None else rows:
            turns = self.with_image_tokens(row)
            first_turn = int(turns[0]["role"] == "system")
            messages[row] = [*turns[:first_turn], *shots, *turns[first_turn:]]
        return messages

    def images(self, row: int) -> tuple[str, ...]:
        """Files of a row's images."""
        return tuple(str(self.dataset.images[path]) for path in self.rows[row].images)

    def with_image_tokens(self, row: int) -> Messages:
        """A row's messages as the model reads them: the image's own tokens replace each `<image>`."""
        messages, vision = self.rows[row].messages, self.backend.vision
        if vision and self.rows[row].images:
            return vision.expanded(messages, self.images(row))
        return messages

    def choosing(self, spellings: Mapping[str, Sequence[str]], rows: Collection[int] | None) -> BatchPlan:
        """Batches that compares labels by their spellings, after the prompts of all rows or of some."""
        encode = self.candidate.prompting.encode
        # arrays take 4 bytes a token: a plan holds the prompts of all jobs
        prompts = {row: array("i", encode(messages)) for row, messages in self.messages(rows).items()}
        images = {row: self.images(row) for row in prompts} if self.backend.vision else None
        return self.backend.choosing(prompts, spellings, images)

    def generating(self, messages: Mapping[int, Messages] | None = None) -> BatchPlan:
        """Batches that generates an answer to every row, or to the given messages by row."""
        if messages is None:
            messages = self.messages()
        longest = self.request.max_new_tokens
        return generating(self.backend, messages, self.candidate.prompting.encode, longest)


class Evaluation(ABC):
    """The command's part of a scoring run. The defaults suit commands that generate answers."""

    kept: tuple[str, ...] = ("max_new_tokens",)
    """Options that change an answer or a figure: attributes of the evaluation, or fields of the request.

    run.json records them. --resume refuses other values, and --rescore takes them over.
    """
    summaries: tuple[str, ...] = ()
    """Files that `finish` writes into OUT."""
    for_people: tuple[str, ...] = ()
    """Files that `finish` writes into OUT and people edit. A finished run has them."""
    tests: str = ""
    """What the examples test, for the report, if their answers are no labels: `tool calls`."""
    plain_prompts: str = ""
    """What prompts are called that are the text of the question alone. "": they are as in the training."""
    if_too_long = _("counted as incorrect")
    """Effect of prompts without an answer (too long, or refused by the server), in a warning."""

    special_tokens: bool = False
    """True if answers keep their special tokens."""

    token_losses: bool = False
    """True if token_losses.jsonl is written, too, from the fields `ids` and `token_losses`."""

    @property
    def chooses(self) -> bool:
        """True if the evaluation compares the probabilities of labels, which a server must then give."""
        return False

    @property
    def shot_answers(self) -> Mapping[str, Sequence[str]] | None:
        """Answers that a shot may have, by dataset; None if any answer will do."""
        return None

    def settings(self, request: ScoringRequest, backend: Backend) -> dict[str, object]:  # noqa: ARG002
        """Settings that a resumed run must share with the first one, in addition to the shared options."""
        settings = {}
        for name in self.kept:
            owner = self if hasattr(self, name) else request
            settings[name] = getattr(owner, name)
        return settings

    def batch_plan(self, job: Job) -> BatchPlan:
        """Plan the batches of a job. The candidate's weights are not applied yet."""
        return job.generating()

    def further(self, job: Job) -> BatchPlan | None:  # noqa: ARG002  most need nothing else
        """Batches of further prompts whose answers the job's results need, too, in `job.further`."""
        return None

    @abstractmethod
    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Make a line of predictions.jsonl from the fields of a row.

        They are `too_long` alone if the prompt did not fit, `refused` alone if the server refused it.
        """

    @abstractmethod
    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Compute the figures of results.json. May write plots into `job.folder`.

        The model may be in other processes (--workers): it answers in `job.batch_plan` alone.
        """

    @abstractmethod
    def line(self, results: Results) -> str:
        """Figures in one line. The screen shows it after model and dataset."""

    def warnings(self, results: Results) -> list[str]:
        """Warn if accuracy says little, of little label mass, and of prompts without an answer."""
        warnings: list[str] = []
        if results.get("accuracy") == 0:
            warnings.append(
                _(
                    "no answer is correct; read some of them in {file}, since the "
                    "labels, the parser or the template may be wrong",
                    file=PREDICTIONS,
                )
            )
        if results.get("majority") == 1 and results["n"] > 1:
            warnings.append(
                _(
                    "all expected answers are the same: accuracy has no majority baseline and supports no "
                    "verdict"
                )
            )
        mass, too_long = results.get("label_mass"), results["too_long"]
        if mass is not None and mass < LOW_MASS:
            warnings.append(
                _(
                    "only {percent:.1f} % of the probability is on the labels; the model would often answer "
                    "otherwise",
                    percent=100 * mass,
                )
            )
        if too_long:
            warnings.append(
                _(
                    "{prompts} too long for the context: {effect}",
                    prompts=counted(too_long, "prompt", "prompts"),
                    effect=self.if_too_long,
                )
            )
        return [*warnings, *refused_warnings(results, self.if_too_long)]

    def check_models(self, opened: "Opened") -> None:  # noqa: B027  most commands take all models
        """Hook: refuse models or their prompts, or warn of them, before anything is planned."""

    def suite_figures(
        self,
        out: Path,  # noqa: ARG002  where a command has tables over all datasets
        model: str,  # noqa: ARG002
        results_by_dataset: Mapping[str, Results],
    ) -> dict[str, Results]:
        """Figures of a model that a suite shows, by name: all that have an interval."""
        figures: dict[str, Results] = {}
        for dataset, results in results_by_dataset.items():
            parts = {"": {**results, **results.get("estimates", {})}}
            if "accuracy" in results:
                parts[""]["accuracy"] = {**results, "value": results["accuracy"]}
            for kind, part in results.get("types", {}).items():
                parts[f"{kind}, "] = part
            of_dataset = ""
            if len(results_by_dataset) > 1:
                of_dataset = f"{dataset}: "
            for kind, part in parts.items():
                for name, figure in part.items():
                    if isinstance(figure, Mapping) and "ci95" in figure:
                        kept = {key: figure[key] for key in OF_A_FIGURE if key in figure}
                        figures[f"{of_dataset}{kind}{name}"] = kept
        return figures

    def inputs(self) -> Mapping[str, Input]:
        """Further inputs of the results than options and data, such as versions of packages."""
        return {}

    def finish(self, out: Path, models: Sequence[str], sets: Sequence[str]) -> None:  # noqa: B027
        """Hook: print and write a summary after all models are scored on these datasets."""

    def next_step(self, out: Path, models: Sequence[str], sets: Sequence[str]) -> NextStep:
        """Where the result is, and the next command: compare the models."""
        results = read_record(out / models[0] / sets[0] / RESULTS, ResultsRecord)
        words = ["tuneyard", "eval", "compare", str(out), "--out", str(out / "verdict")]
        figures = list(results.get("metrics", {}))
        if "eval_loss" in results:
            figures.insert(0, "eval_loss")
        if figures and "accuracy" not in results:
            words += ["--metric", figures[0]]
        return out, words


def refused_warnings(results: Results, effect: str) -> list[str]:
    """A warning of rows that the server refused, if there are any."""
    refused = results.get("refused", 0)
    if not refused:
        return []
    warning = _(
        "{rows} refused by the server: {effect}; the reasons are in {file}, under `refused`",
        rows=counted(refused, "row", "rows"),
        effect=effect,
        file=PREDICTIONS,
    )
    return [warning]


def line_of(job: Job, row: int, fields: Fields) -> Prediction:
    """The fields that all predictions have. The answer is not judged yet."""
    example = job.rows[row]
    line: Prediction = {
        "instruction": example.question,
        "expected_output": example.answer,
        "model_output": str(fields.get("model_output", "")),
        "predicted_output": UNKNOWN,
        "idx": job.dataset.records[row].get("idx", -1),
        "row": row,
    }
    if "too_long" in fields:
        line["too_long"] = fields["too_long"]
    if "refused" in fields:
        line["refused"] = fields["refused"]
    return line


def answer_without(fields: Fields, names: Collection[str]) -> PredictionFields:
    """What a model gives for a row, without these fields."""
    return cast(PredictionFields, {name: value for name, value in fields.items() if name not in names})
