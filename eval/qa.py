"""python -m eval.qa --model models/demo-base --data questions.jsonl --out results/qa

Generates an answer to every question, holds it against the reference (exact match, partial match by
similarity, token F1; overall and by the rows' type), and shows what the models say to a few fixed
prompts. Writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-qa.md explains them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import click

from core.cli import examples
from core.errors import CLI, ContentError, run
from eval.backends.scorers import Fields, score_in_halves
from eval.datasets.dataset import EvalDataset, read_datasets
from eval.datasets.shots import with_shots
from eval.metrics.answers import cut_thought
from eval.metrics.qa import SIMILAR, Lexical, exact_match, qa_summary, token_f1
from eval.runs.results import Prediction
from eval.scoring.job import Job
from eval.scoring.options import (
    generate_options,
    model_options,
    rescoring,
    run_options,
    set_options,
    shots_options,
    take,
)
from eval.scoring.pipeline import score
from eval.scoring.task import Figure, Prepared, Task, line_of

TYPES = ("type", "subset", "category")
DIGITS = 6  # of a similarity in the files: fp32 holds no more
PROMPTS = (
    "请用一句话介绍你自己。",
    "什么是机器学习？",
    "Name three things that plants need to grow.",
    "If a train covers 120 km in 2 hours, how fast does it go?",
)


class Similarity(Protocol):
    """The similarity of two texts, at most 1; `name` says what made the figures."""

    name: str

    def compare(self, expected: str, given: str) -> float:
        """Return the similarity of a reference and an answer."""


@click.command(
    context_settings=CLI,
    epilog=examples(
        "tuneyard eval qa --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
        "--limit 4 --max-new-tokens 4 --out results/answers",
        "tuneyard eval qa --model models/demo-base --dataset demo_mnli_eval --limit 4 "
        "--max-new-tokens 4 --out results/free",
    ),
)
@model_options
@rescoring
@set_options
@shots_options
@click.option(
    "--embedding-model",
    metavar="DIR|ID",
    help="A sentence-transformers model: partial match by meaning. [token F1]",
)
@generate_options(max_new_tokens=256)
@run_options
def cli(**given: Any) -> None:
    """Answer questions freely and score the answers against references.

    Each share comes with its n and 95 % interval, and the commonest answer's share.
    """
    score(*prepare(**given))


def prepare(embedding_model: str | None, shots: int, shots_from: tuple[str, ...], **given: Any) -> Prepared:
    """Return what is asked and how; `ContentError` where a row has no reference."""
    request = take(given)
    sets = read_datasets(request.datasets, request.data, request.cluster)
    for dataset in sets:
        check_references(dataset)
    sets = with_shots(sets, shots, shots_from)
    return request, Qa(_similarity(embedding_model), sets[0].name, request.max_new_tokens), sets


def check_references(dataset: EvalDataset) -> None:
    """Raise `ContentError` naming the first record without a reference answer, and how many there are."""
    without = [n for n, answer in enumerate(dataset.answers, 1) if not answer.strip()]
    if without:
        raise ContentError(
            f"{dataset.path}: record {without[0]} has no reference answer ({len(without)} such records of "
            f"{len(dataset.answers)}): take them out, or lay answers side by side with eval.ab"
        )


def _similarity(embedding_model: str | None) -> Similarity:
    if embedding_model is None:
        return Lexical()
    from eval.backends.embedding import Embedding

    return Embedding(embedding_model)


@dataclass(frozen=True, slots=True)
class Qa(Task):
    """Free answers against references; the fixed prompts are asked with the set `shown_with`."""

    similarity: Similarity
    shown_with: str
    max_new_tokens: int
    command: str = "eval.qa"

    def settings(self) -> dict[str, object]:
        """Return what changes an answer or a figure."""
        return {"similarity": self.similarity.name, "max_new_tokens": self.max_new_tokens}

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return question, reference and answer (in the reference's spelling if it matches), and how near."""
        record, asked = job.dataset.records[row], job.rows[row]
        answer = cut_thought(str(fields.get("model_output", "")))
        types = [str(record[name]) for name in TYPES if record.get(name) is not None]
        return {
            **line_of(job, row, fields),
            "predicted_output": asked.answer if exact_match(asked.answer, answer) else answer,
            "similarity": round(self.similarity.compare(asked.answer, answer) if answer else 0.0, DIGITS),
            "token_f1": round(token_f1(asked.answer, answer), DIGITS),
            **({"type": types[0]} if types else {}),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures, overall and by type, and the answers to the fixed prompts."""
        shown = _generation(job) if job.dataset.name == self.shown_with and not job.kept else []
        return {
            **qa_summary(predictions, job.dataset.answers),
            "similarity": {"by": self.similarity.name, "above": SIMILAR},
            "generation": job.kept.get("generation", []) if job.kept else shown,
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return a line for each fixed prompt and each type, then the figures of all rows."""
        said = [f"{one['prompt']} → {' '.join(one['answer'].split())}" for one in results["generation"]]
        types = [f"{name}  {_figures(part)}" for name, part in results["types"].items()]
        whole = f"{_figures(results)}  majority {results['majority']:.1%}  empty {results['empty']}"
        return "\n  ".join(["", *said, *types, whole])

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return all three figures, and each type's exact match."""
        shares = {name: results[name] for name in ("exact_match", "partial_match", "token_f1")}
        shares |= {f"{name}, exact_match": part["exact_match"] for name, part in results["types"].items()}
        majority = {"exact_match": results["majority"]}
        return {
            name: Figure(share["value"], share["ci95"], share["n"], majority.get(name))
            for name, share in shares.items()
        }


def _generation(job: Job) -> list[dict[str, object]]:
    """Ask the fixed prompts, that everybody may see how the model talks."""
    scorer = job.generating({row: [{"role": "user", "content": text}] for row, text in enumerate(PROMPTS)})
    said: dict[int, object] = {}
    for batch in scorer.batches:
        texts = (fields["model_output"] for fields in score_in_halves(scorer, batch))
        said.update(zip(batch, texts, strict=True))
    return [{"prompt": PROMPTS[row], "answer": said[row]} for row in sorted(said)]


def _figures(part: Mapping[str, Any]) -> str:
    shares = "  ".join(
        f"{name} {share['value']:.1%} [{share['ci95'][0]:.1%}, {share['ci95'][1]:.1%}]"
        for name, share in (("exact", part["exact_match"]), ("partial", part["partial_match"]))
    )
    return f"{shares}  token F1 {part['token_f1']['value']:.3f}  n {part['exact_match']['n']}"


if __name__ == "__main__":
    run(cli)
