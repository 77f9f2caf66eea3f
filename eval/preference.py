"""python -m eval.preference --model models/base --adapter dpo-lora --dataset pairs --out results/preference

Reads how likely the two answers of preference pairs are to a model, and how often the chosen one is likelier.
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
from eval.backends.likelihood import losses
from eval.backends.score import plan_batches
from eval.backends.scorers import DIGITS, Fields, Scorer
from eval.datasets.pairs import read_pairs
from eval.metrics.labels import UNKNOWN, accuracy_line
from eval.metrics.preference import CHOSEN, REJECTED, preference_summary
from eval.runs.find import PREDICTIONS
from eval.runs.results import RESULTS, Prediction
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
    """Score preference pairs: is the chosen answer likelier than the rejected one, and by how much?

    Each answer is read after the same prompt, without generating; beside adapters the base is the reference.
    """
    score(*prepare(**given))


def prepare(**given: Any) -> Prepared:
    """Return what is asked and how; `RequestError` for a server, which shows no probabilities of texts."""
    request = take(given)
    if request.backend != "hf":
        raise RequestError("eval.preference reads the model's probabilities, which a server does not show")
    pairs = read_pairs(request.datasets, request.data, request.cluster)
    rejected = {one.dataset.name: one.rejected for one in pairs}
    return request, Preference(rejected), [one.dataset for one in pairs]


class PairScorer:
    """Gives how likely both answers of each row are; a row that the context cannot hold is refused."""

    def __init__(self, job: Job, texts: Mapping[int, tuple[SupervisedText, SupervisedText]]) -> None:
        self.model, self.texts, self.budget = job.model, texts, job.opened.budget
        longest = {row: max(one.length for one in pair) for row, pair in texts.items()}
        self.refused = {
            row: f"{length} tokens exceed the context of {job.model.context}"
            for row, length in longest.items()
            if length > job.model.context
        }
        fit = {row: length for row, length in longest.items() if row not in self.refused}
        self.batches = plan_batches(fit, max(1, self.budget // 2))

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return log p in nats (`chosen_logp`, `rejected_logp`), summed over `…_tokens` tokens."""
        both = {2 * row + side: self.texts[row][side] for row in batch for side in (0, 1)}
        found = losses(self.model, both, self.budget)
        return [
            {
                key: value
                for side, name in enumerate((CHOSEN, REJECTED))
                for key, value in (
                    (f"{name}_logp", -round(found[2 * row + side], DIGITS)),
                    (f"{name}_tokens", len(self.texts[row][side].learned)),
                )
            }
            for row in batch
        ]


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
        return PairScorer(
            job,
            {
                row: (_read(job, talk, talk.answer), _read(job, talk, other[row]))
                for row, talk in enumerate(job.rows)
            },
        )

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
        base = job.request.out / BASE / job.dataset.name
        known = job.candidate.name != BASE and (base / RESULTS).is_file()
        rows = [row for _, row in json_lines(base / PREDICTIONS)] if known else None
        return preference_summary(predictions, rows)

    def line(self, results: Mapping[str, Any]) -> str:
        """Return the share of pairs in sum, per token and against the base, and the margin."""
        parts = [accuracy_line(results)]
        for name, told in (("per_token", "per token"), ("reward", "against the base")):
            if one := results[name]:
                parts.append(f"{told} {one['value']:.1%} [{one['ci95'][0]:.1%}, {one['ci95'][1]:.1%}]")
        if margin := results["margin"]:
            parts.append(f"margin {margin['value']:+.2f} nats")
        return "  ".join(parts)

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return the shares that are known."""
        found = {"per token": results["per_token"], "against the base": results["reward"]}
        shares = {name: Figure(one["value"], one["ci95"], one["n"]) for name, one in found.items() if one}
        return Task.figures(self, results) | shares


def _read(job: Job, talk: Conversation, answer: str) -> SupervisedText:
    """Return the prompt with an answer, which alone carries loss, as LLaMA-Factory trains pairs."""
    turns = job.candidate.prompting.turns([*talk.messages, {"role": talk.role, "content": answer}])
    before = [token for source, target in turns.pairs[:-1] for token in (*source, *target)]
    source, target = turns.pairs[-1]
    whole = Turns([([*before, *source], target)], turns.stop)
    return supervise(whole, len(before) + len(source) + len(target) + 1)


if __name__ == "__main__":
    run(cli)
