"""tuneyard eval preference --model models/base --adapter dpo-lora --dataset pairs --out results/preference

Measures how often the chosen answer of a preference pair is more likely to a model than the rejected one. For
single answers with a mark (KTO): how well their likelihood separates the desirable ones (AUC). Writes
OUT/<model>/<dataset>/{results.json,predictions.jsonl}. docs/eval-preference.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError, RequestError, show_value, unexpected
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.prompt import prompt_and_answer
from tuneyard.core.llamafactory.prompt.supervision import EncodedConversation, SupervisedText, supervise
from tuneyard.core.records import KTO_TAG, PAIR, format_of
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.labels import UNKNOWN
from tuneyard.eval.figures.preference import (
    ANSWER,
    AUC,
    CHOSEN,
    DESIRABLE,
    REJECTED,
    UNDESIRABLE,
    marked_summary,
    preference_summary,
)
from tuneyard.eval.models.batch_plan import BatchPlan, Fields
from tuneyard.eval.models.likelihood import reading_answers
from tuneyard.eval.report.lines import accuracy_line, labelled_shares
from tuneyard.eval.runs.results import (
    BASE,
    PREDICTIONS,
    RESULTS,
    Results,
    read_lines,
)
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import (
    Evaluation,
    Job,
    answer_without,
)
from tuneyard.eval.scoring.request import ScoringRequest

TESTS = _("preferred answers")


@scoring_command(
    "preference",
    "tuneyard data compile pairs --source tests/examples/good/pairs/a.jsonl --out build/pairs",
    "tuneyard eval preference --model models/demo-base --adapter demo-rte "
    "--data build/pairs/pairs/pairs.json --out results/pairs",
    images=lambda _options: True,
    without=("--rescore",),
)
def cli(request: ScoringRequest, datasets: Sequence[EvalDataset]) -> Declared:
    """Score preferences: is the chosen answer more likely than the rejected one, and by how much?

    For single answers with a mark (KTO): how well does their likelihood separate the desirable ones (AUC)?
    Each answer is read after the same prompt, without generating. The base is the reference for adapters.
    """
    request.need_probabilities()
    desirable: dict[str, list[bool]] = {}
    rejected: dict[str, list[str]] = {}
    for dataset in datasets:
        record_format = format_of(dataset.records[0], dataset.entry)
        mark = record_format.columns.get(KTO_TAG)
        if dataset.entry and not record_format.ranking and mark is None:
            raise RequestError(
                _(
                    '{name}: no preferences: its entry in dataset_info.json has neither "ranking": true '
                    "nor a {tag}; compile it by a spec of pairs: tuneyard data init FILE",
                    name=dataset.name,
                    tag=KTO_TAG,
                )
            )
        if mark is not None and (dataset.entry or mark in dataset.records[0]):
            desirable[dataset.name] = read_marks(dataset, mark)
        else:
            rejected[dataset.name] = read_rejected(dataset)
    if not desirable:
        return Preference(rejected), datasets
    if rejected:
        raise RequestError(
            _(
                "{path}: marked answers; the others are pairs: score each kind in a run of its own",
                path=joined(desirable),
            )
        )
    return Marked(desirable), datasets


def read_marks(dataset: EvalDataset, column: str) -> list[bool]:
    """The marks of the answers. `ContentError` for one that is not true or false, and if all are the same."""
    marks = []
    for row, record in enumerate(dataset.records):
        value = record.get(column)
        if not isinstance(value, bool):
            raise unexpected(dataset.place(row), column, value, _("true or false"))
        marks.append(value)
    if len(set(marks)) == 1:
        raise ContentError(
            _(
                "{path}: {column} is {marks} in every record: AUC needs both",
                path=dataset.path,
                column=column,
                marks=marks[0],
            )
        )
    return marks


def read_rejected(dataset: EvalDataset) -> list[str]:
    """The rejected answers of pairs. `ContentError` for a record without both answers, or with equal ones."""
    answers = []
    for row, record in enumerate(dataset.records):
        place = dataset.place(row)
        columns = format_of(record, dataset.entry).columns
        for part in PAIR:
            column = columns.get(part, part)
            if not isinstance(record.get(column), str | dict):
                raise unexpected(place, column, record.get(column), _("an answer"))
        rejected = prompt_and_answer(record, dataset.entry, place, answer=1).answer
        if dataset.conversations[row].answer == rejected:
            raise ContentError(
                _("{place}: chosen and rejected are the same: {text}", place=place, text=show_value(rejected))
            )
        answers.append(rejected)
    return answers


@dataclass(frozen=True, slots=True)
class Preference(Evaluation):
    """Preference pairs. The datasets' conversations have the chosen answers, `rejected` the others."""

    tests = TESTS
    rejected: Mapping[str, Sequence[str]]
    kept = ()

    def batch_plan(self, job: Job) -> BatchPlan:
        """Read both answers of every row."""
        return _reading(job, {CHOSEN: job.dataset.answers, REJECTED: self.rejected[job.dataset.name]})

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The prompt, the more likely answer's side, both answers, and their log-probabilities."""
        side = UNKNOWN
        if "too_long" not in fields:
            prefers_chosen = fields["chosen_logp"] > fields["rejected_logp"]
            side = CHOSEN if prefers_chosen else REJECTED
        return {
            "instruction": job.rows[row].question,
            "expected_output": CHOSEN,
            "predicted_output": side,
            "row": row,
            "chosen": job.rows[row].answer,
            "rejected": self.rejected[job.dataset.name][row],
            **answer_without(fields, ()),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Figures, also against the base if it was scored before."""
        return preference_summary(predictions, _base_rows(job))

    def line(self, results: Results) -> str:
        """The share of pairs in sum, per token and against the base, and the margin."""
        shares = {"per_token": _("per token"), "reward": _("against the base")}
        parts = [accuracy_line(results), *labelled_shares(results, shares)]
        if results["margin"]:
            parts.append(_("margin {value:+.2f} nats", value=results["margin"]["value"]))
        return joined(parts, "  ")


@dataclass(frozen=True, slots=True)
class Marked(Evaluation):
    """Single answers, marked as desirable or not (KTO): the marks by dataset."""

    tests = TESTS
    desirable: Mapping[str, Sequence[bool]]
    kept = ()
    if_too_long = _("left out")

    def batch_plan(self, job: Job) -> BatchPlan:
        """Read the answer of every row."""
        return _reading(job, {ANSWER: job.dataset.answers})

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The prompt, the answer with its mark, and its log-probability. Nothing is predicted."""
        example = job.rows[row]
        is_desirable = self.desirable[job.dataset.name][row]
        return {
            "instruction": example.question,
            "expected_output": DESIRABLE if is_desirable else UNDESIRABLE,
            "row": row,
            "answer": example.answer,
            **answer_without(fields, ()),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Figures, also against the base if it was scored before."""
        return marked_summary(predictions, _base_rows(job))

    def warnings(self, results: Results) -> list[str]:
        """Also warn if every undesirable answer is more likely than every desirable one."""
        warnings = Evaluation.warnings(self, results)
        area = results[AUC]
        if area and area["value"] == 0:
            warnings.append(
                _(
                    "every undesirable answer is more likely than every desirable one: the marks may be the "
                    "wrong way round, or the template may be wrong"
                )
            )
        return warnings

    def line(self, results: Results) -> str:
        """The AUCs that could be measured, and the number of rows with each mark."""
        parts: list[str] = []
        for name, label in ((AUC, "AUC"), ("reward_auc", _("AUC against the base"))):
            area = results[name]
            if area:
                low, high = area["ci95"]
                parts.append(
                    _(
                        "{label} {area:.3f} [{low:.3f}, {high:.3f}]",
                        label=label,
                        area=area["value"],
                        low=low,
                        high=high,
                    )
                )
        parts.append(_("n {n} ({count} desirable)", n=results["n"], count=results["desirable"]))
        return joined(parts, "  ")


def _base_rows(job: Job) -> list[Prediction]:
    """The base's predictions if this run has scored it before, none for the base itself."""
    base = job.request.out / BASE / job.dataset.name
    if job.candidate.name == BASE or not (base / RESULTS).is_file():
        return []
    return list(read_lines(base / PREDICTIONS).values())


def _reading(job: Job, answers: Mapping[str, Sequence[str]]) -> BatchPlan:
    """Batches that reads the answers of all rows, by name, each after its row's prompt."""
    texts = {}
    for row in range(len(job.rows)):
        texts[row] = {name: _supervised(job, row, each[row]) for name, each in answers.items()}
    return reading_answers(job.backend, texts)


def _supervised(job: Job, row: int, answer: str) -> SupervisedText:
    """A row's prompt with one of its answers, uncut.

    Only the answer carries loss, as in LLaMA-Factory's training on pairs.
    """
    messages = job.with_image_tokens(row)
    turns = job.candidate.prompting.turns([*messages, {"role": job.rows[row].role, "content": answer}])
    prompt: list[int] = []
    for source, target in turns.pairs[:-1]:
        prompt += [*source, *target]
    source, target = turns.pairs[-1]
    prompt += source
    supervised = supervise(EncodedConversation([(prompt, target)], turns.stop), len(prompt) + len(target) + 1)
    return supervised._replace(images=job.images(row))


if __name__ == "__main__":
    run_command(cli)
