"""python -m eval.preference --model models/base --adapter dpo-lora --dataset pairs --out results/preference

Reads how likely the two answers of preference pairs are to a model, and how often the chosen one is likelier;
of single answers with a mark (KTO), how well their likelihood tells the desirable ones (AUC).
Writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-preference.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from core.cli import examples
from core.documents import json_lines
from core.errors import CLI, RequestError, run
from core.prompt import Conversation
from core.supervision import SupervisedText, Turns, supervise
from eval.backends.answers import AnswerScorer
from eval.backends.scorers import Fields, Scorer
from eval.datasets.pairs import read_preferences
from eval.metrics.labels import UNKNOWN, accuracy_line
from eval.metrics.preference import (
    ANSWER,
    AUC,
    CHOSEN,
    DESIRABLE,
    REJECTED,
    UNDESIRABLE,
    marked_summary,
    preference_summary,
)
from eval.runs.results import PREDICTIONS, RESULTS, Prediction
from eval.scoring.candidates import BASE
from eval.scoring.job import Job
from eval.scoring.options import model_options, run_options, set_options, take
from eval.scoring.pipeline import score
from eval.scoring.task import Figure, Prepared, Task


@click.command(
    context_settings=CLI,
    epilog=examples(
        "tuneyard data compile pairs --source tests/examples/good/pairs/a.jsonl --out build/pairs",
        "tuneyard eval preference --model models/demo-base --adapter demo-rte "
        "--data build/pairs/pairs/pairs.json --out results/pairs",
    ),
)
@model_options
@set_options
@run_options
def cli(**given: Any) -> None:
    """Score preferences: is the chosen answer likelier than the rejected one, and by how much?

    Of single answers with a mark (KTO): how well does their likelihood tell the desirable ones (AUC)?
    Each answer is read after the same prompt, without generating; beside adapters the base is the reference.
    """
    score(*prepare(**given))


def prepare(**given: Any) -> Prepared:
    """Return what is asked and how; `RequestError` for a server, which shows no probabilities of texts."""
    request = take(given)
    if request.backend != "hf":
        raise RequestError("eval.preference reads the model's probabilities, which a server does not show")
    sets = read_preferences(request.datasets, request.data, request.cluster)
    marked = {one.dataset.name: one.desirable for one in sets if one.desirable}
    if marked and len(marked) < len(sets):
        raise RequestError(
            f"{', '.join(marked)}: marked answers; the others are pairs: score each kind in a run of its own"
        )
    task = Marked(marked) if marked else Preference({one.dataset.name: one.rejected for one in sets})
    return request, task, [one.dataset for one in sets]


@dataclass(frozen=True, slots=True)
class Preference(Task):
    """Preference pairs; the rejected answers of each set stand here, the chosen ones in its conversations."""

    rejected: Mapping[str, Sequence[str]]
    command: str = "eval.preference"

    def settings(self) -> dict[str, object]:
        """Return nothing: no option of its own changes a figure."""
        return {}

    def scorer(self, job: Job) -> Scorer:
        """Return what reads both answers of every row."""
        other = self.rejected[job.dataset.name]
        texts = {
            row: [_read(job, talk, answer) for answer in (talk.answer, other[row])]
            for row, talk in enumerate(job.rows)
        }
        return AnswerScorer(job.model, job.opened.budget, (CHOSEN, REJECTED), texts)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the prompt, the likelier answer's side, and how likely both are."""
        said = UNKNOWN
        if "refused" not in fields:
            chosen, rejected = (float(str(fields[f"{side}_logp"])) for side in (CHOSEN, REJECTED))
            said = CHOSEN if chosen > rejected else REJECTED
        asked = job.rows[row].messages[-1]["content"]
        return {
            "instruction": asked, "expected_output": CHOSEN, "predicted_output": said, "row": row,
            CHOSEN: job.rows[row].answer, REJECTED: self.rejected[job.dataset.name][row], **fields,
        }  # fmt: skip

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures; against the base where that was scored before."""
        return preference_summary(predictions, _base_rows(job))

    def line(self, results: Mapping[str, Any]) -> str:
        """Return the share of pairs in sum, per token and against the base, and the margin."""
        parts = [accuracy_line(results)]
        for name, told in (("per_token", "per token"), ("reward", "against the base")):
            if one := results[name]:
                low, high = one["ci95"]
                parts.append(f"{told} {one['value']:.1%} [{low:.1%}, {high:.1%}] of {one['n']}")
        if margin := results["margin"]:
            parts.append(f"margin {margin['value']:+.2f} nats")
        return "  ".join(parts)

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return the shares that are known."""
        found = {"per token": results["per_token"], "against the base": results["reward"]}
        shares = {name: Figure(one["value"], one["ci95"], one["n"]) for name, one in found.items() if one}
        return Task.figures(self, results) | shares


@dataclass(frozen=True, slots=True)
class Marked(Task):
    """Single answers marked as desirable or not (KTO); the marks of each set stand here."""

    desirable: Mapping[str, Sequence[bool]]
    command: str = "eval.preference"

    def settings(self) -> dict[str, object]:
        """Return nothing: no option of its own changes a figure."""
        return {}

    def scorer(self, job: Job) -> Scorer:
        """Return what reads the answer of every row."""
        texts = {row: [_read(job, talk, talk.answer)] for row, talk in enumerate(job.rows)}
        return AnswerScorer(job.model, job.opened.budget, (ANSWER,), texts)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the prompt, the answer with its mark, and how likely it is; nothing is predicted."""
        talk = job.rows[row]
        mark = DESIRABLE if self.desirable[job.dataset.name][row] else UNDESIRABLE
        return {
            "instruction": talk.messages[-1]["content"], "expected_output": mark, "row": row,
            ANSWER: talk.answer, **fields,
        }  # fmt: skip

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures; against the base where that was scored before."""
        return marked_summary(predictions, _base_rows(job))

    def line(self, results: Mapping[str, Any]) -> str:
        """Return both AUCs that are known, and the rows of each mark."""
        areas = [
            f"{name} {one.value:.3f} [{one.ci95[0]:.3f}, {one.ci95[1]:.3f}]"
            for name, one in self.figures(results).items()
        ]
        return "  ".join([*areas, f"n {results['n']} ({results['desirable']} {DESIRABLE})"])

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Say how many answers were too long."""
        refused = results["refused"]
        return [f"{refused} prompts exceed the context and are left out"] if refused else []

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return the AUCs that are known."""
        found = {"AUC": results[AUC], "AUC against the base": results["reward_auc"]}
        return {name: Figure(one["value"], one["ci95"], one["n"]) for name, one in found.items() if one}


def _base_rows(job: Job) -> list[Prediction] | None:
    """Return the base's rows where it was scored before in this run, None for the base itself."""
    base = job.request.out / BASE / job.dataset.name
    known = job.candidate.name != BASE and (base / RESULTS).is_file()
    return [row for _, row in json_lines(base / PREDICTIONS)] if known else None


def _read(job: Job, talk: Conversation, answer: str) -> SupervisedText:
    """Return the prompt with an answer, which alone carries loss, as LLaMA-Factory trains pairs."""
    turns = job.candidate.prompting.turns([*talk.messages, {"role": talk.role, "content": answer}])
    before = [token for source, target in turns.pairs[:-1] for token in (*source, *target)]
    source, target = turns.pairs[-1]
    whole = Turns([([*before, *source], target)], turns.stop)
    return supervise(whole, len(before) + len(source) + len(target) + 1)


if __name__ == "__main__":
    run(cli)
