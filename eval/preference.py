"""python -m eval.preference --model models/base --adapter dpo-lora --dataset pairs --out results/preference

Reads how likely the two answers of preference pairs are to a model, and how often the chosen one is likelier;
of single answers with a mark (KTO), how well their likelihood tells the desirable ones (AUC).
Writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-preference.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import RequestError, run
from tuneyard.core.prompt import Conversation
from tuneyard.core.supervision import SupervisedText, Turns, supervise
from tuneyard.eval.backends.likelihood import reading_answers
from tuneyard.eval.backends.scorers import Fields, Scorer
from tuneyard.eval.datasets.pairs import read_preferences
from tuneyard.eval.metrics.labels import UNKNOWN, accuracy_line
from tuneyard.eval.metrics.preference import (
    ANSWER,
    AUC,
    CHOSEN,
    DESIRABLE,
    REJECTED,
    UNDESIRABLE,
    marked_summary,
    preference_summary,
)
from tuneyard.eval.read.results import PREDICTIONS, RESULTS, Prediction
from tuneyard.eval.scoring.candidates import BASE
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Figure, Job, Task, figures_of, share_line


@scoring_command(
    "tuneyard data compile pairs --source tests/examples/good/pairs/a.jsonl --out build/pairs",
    "tuneyard eval preference --model models/demo-base --adapter demo-rte "
    "--data build/pairs/pairs/pairs.json --out results/pairs",
    rescored=False,
)
def cli(request: ScoringRequest) -> Asked:
    """Score preferences: is the chosen answer likelier than the rejected one, and by how much?

    Of single answers with a mark (KTO): how well does their likelihood tell the desirable ones (AUC)?
    Each answer is read after the same prompt, without generating; beside adapters the base is the reference.
    """
    if request.backend != "hf":
        raise RequestError("eval.preference reads the model's probabilities, which a server does not show")
    sets = read_preferences(request.datasets, request.data, request.cluster)
    marked = {one.dataset.name: one.desirable for one in sets if one.desirable}
    if marked and len(marked) < len(sets):
        raise RequestError(
            f"{', '.join(marked)}: marked answers; the others are pairs: score each kind in a run of its own"
        )
    task = Marked(marked) if marked else Preference({one.dataset.name: one.rejected for one in sets})
    return task, [one.dataset for one in sets]


@dataclass(frozen=True, slots=True)
class Preference(Task):
    """Preference pairs; the rejected answers of each set stand here, the chosen ones in its conversations."""

    rejected: Mapping[str, Sequence[str]]
    command = "eval.preference"
    kept = ()

    def scorer(self, job: Job) -> Scorer:
        """Return what reads both answers of every row."""
        return _reading(job, {CHOSEN: job.dataset.answers, REJECTED: self.rejected[job.dataset.name]})

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the prompt, the likelier answer's side, and how likely both are."""
        said = UNKNOWN
        if "refused" not in fields:
            said = CHOSEN if fields[f"{CHOSEN}_logp"] > fields[f"{REJECTED}_logp"] else REJECTED
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
                parts.append(f"{told} {share_line(one)} of {one['n']}")
        if margin := results["margin"]:
            parts.append(f"margin {margin['value']:+.2f} nats")
        return "  ".join(parts)

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return the shares that are known."""
        shares = {"per token": results["per_token"], "against the base": results["reward"]}
        return Task.figures(self, results) | figures_of(shares)


@dataclass(frozen=True, slots=True)
class Marked(Task):
    """Single answers marked as desirable or not (KTO); the marks of each set stand here."""

    desirable: Mapping[str, Sequence[bool]]
    command = "eval.preference"
    kept = ()
    refused = "left out"

    def scorer(self, job: Job) -> Scorer:
        """Return what reads the answer of every row."""
        return _reading(job, {ANSWER: job.dataset.answers})

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

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return the AUCs that are known."""
        return figures_of({"AUC": results[AUC], "AUC against the base": results["reward_auc"]})


def _base_rows(job: Job) -> list[Prediction] | None:
    """Return the base's rows where it was scored before in this run, None for the base itself."""
    base = job.request.out / BASE / job.dataset.name
    known = job.candidate.name != BASE and (base / RESULTS).is_file()
    return [row for _, row in json_lines(base / PREDICTIONS)] if known else None


def _reading(job: Job, answers: Mapping[str, Sequence[str]]) -> Scorer:
    """Return what reads the answers of all rows, given by name, each after its row's prompt."""
    texts = {
        row: {name: _supervised(job, talk, own[row]) for name, own in answers.items()}
        for row, talk in enumerate(job.rows)
    }
    return reading_answers(job.model, job.opened.budget, texts)


def _supervised(job: Job, talk: Conversation, answer: str) -> SupervisedText:
    """Return the prompt with an answer, which alone carries loss, as LLaMA-Factory trains pairs."""
    turns = job.candidate.prompting.turns([*talk.messages, {"role": talk.role, "content": answer}])
    before = [token for source, target in turns.pairs[:-1] for token in (*source, *target)]
    source, target = turns.pairs[-1]
    whole = Turns([([*before, *source], target)], turns.stop)
    return supervise(whole, len(before) + len(source) + len(target) + 1)


if __name__ == "__main__":
    run(cli)
