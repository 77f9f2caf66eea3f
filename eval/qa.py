"""python -m eval.qa --model models/demo-base --data questions.jsonl --out results/qa

Generates an answer to every question, holds it against the reference (exact match, partial match by
similarity, token F1; overall and by the rows' type), and shows what the models say to a few fixed
prompts. Writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-qa.md explains them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.core.errors import ContentError, RequestError, run
from tuneyard.core.training_run import model_sha256
from tuneyard.eval.backends.load import find_model, loading
from tuneyard.eval.backends.scorers import Fields, score_all
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.datasets.shots import with_shots
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.metrics.qa import LEXICAL, SIMILAR, Lexical, exact_match, qa_summary, token_f1
from tuneyard.eval.read.results import Prediction
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest, shots_options
from tuneyard.eval.scoring.task import Figure, Job, Task, figures_of, line_of, share_line

TYPES = ("type", "subset", "category")
DIGITS = 6  # of a similarity in the files: fp32 holds no more
PROMPTS = (
    "请用一句话介绍你自己。",
    "什么是机器学习？",
    "Name three things that plants need to grow.",
    "If a train covers 120 km in 2 hours, how fast does it go?",
)


@scoring_command(
    "tuneyard eval qa --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 4 --max-new-tokens 4 --out results/answers",
    "tuneyard eval qa --model models/demo-base --dataset demo_mnli_eval --limit 4 "
    "--max-new-tokens 4 --out results/free",
    own=[
        shots_options,
        click.option(
            "--embedding-model",
            metavar="DIR|ID",
            help="A sentence-transformers model: partial match by meaning. [token F1]",
        ),
    ],
    longest=256,
)
def cli(
    request: ScoringRequest, embedding_model: str | None, shots: int, shots_from: tuple[str, ...]
) -> Asked:
    """Answer questions freely and score the answers against references.

    Each share comes with its n and 95 % interval, and the commonest answer's share.
    """
    sets = read_datasets(request.datasets, request.data, request.cluster)
    for dataset in sets:
        check_references(dataset)
    sets = with_shots(sets, shots, shots_from)
    similarity = Embedding(embedding_model) if embedding_model is not None else Lexical()
    return Qa(similarity, sets[0].name), sets


def check_references(dataset: EvalDataset) -> None:
    """Raise `ContentError` naming the first record without a reference answer, and how many there are."""
    without = [n for n, answer in enumerate(dataset.answers, 1) if not answer.strip()]
    if without:
        raise ContentError(
            f"{dataset.path}: record {without[0]} has no reference answer ({len(without)} such records of "
            f"{len(dataset.answers)}): take them out, or lay answers side by side with eval.ab"
        )


class Embedding:
    """Similarity in meaning: the cosine of embeddings, by a sentence-transformers model of safetensors."""

    def __init__(self, reference: str) -> None:
        """Load a model from a folder or the hub; `RequestError` or `ContentError` if it embeds nothing."""
        folder = find_model(reference)
        if not (folder / "modules.json").is_file():
            raise RequestError(f"{folder}: no modules.json: not a sentence-transformers model")

        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        with loading(folder):
            self._model = SentenceTransformer(
                str(folder), trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        self.name = f"semantic: cosine by {Path(reference).name} ({model_sha256(folder)[:16]})"

    def compare(self, expected: str, given: str) -> float:
        """Return the cosine of two texts, -1 to 1."""
        wanted, said = self._model.encode(
            [expected, given], normalize_embeddings=True, show_progress_bar=False
        )
        return float(wanted @ said)


@dataclass(frozen=True, slots=True)
class Qa(Task):
    """Free answers against references; the fixed prompts are asked with the set `shown_with`."""

    similarity: Lexical | Embedding
    shown_with: str
    command = "eval.qa"

    def settings(self, request: ScoringRequest) -> dict[str, object]:
        """Return what changes an answer or a figure."""
        return {"similarity": self.similarity.name, **Task.settings(self, request)}

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
        lexical = _lexical(results)
        types = [f"{name}  {_figures(part, lexical)}" for name, part in results["types"].items()]
        whole = f"{_figures(results, lexical)}  majority {results['majority']:.1%}  empty {results['empty']}"
        return "\n  ".join(["", *said, *types, whole])

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return all three figures, and each type's exact match."""
        partial = f"partial_match{_lexical(results)}"
        shares = {
            "exact_match": results["exact_match"],
            partial: results["partial_match"],
            "token_f1": results["token_f1"],
        }
        shares |= {f"{name}, exact_match": part["exact_match"] for name, part in results["types"].items()}
        found = figures_of(shares)
        return {**found, "exact_match": replace(found["exact_match"], majority=results["majority"])}


def _generation(job: Job) -> list[dict[str, object]]:
    """Ask the fixed prompts, that everybody may see how the model talks."""
    scorer = job.generating({row: [{"role": "user", "content": text}] for row, text in enumerate(PROMPTS)})
    return [
        {"prompt": PROMPTS[row], "answer": fields["model_output"]}
        for row, fields in score_all(scorer, "fixed prompts").items()
    ]


def _lexical(results: Mapping[str, Any]) -> str:
    """Return ` (lexical)` for partial matches by letters, without an --embedding-model for the meaning."""
    return f" ({LEXICAL})" if results["similarity"]["by"].startswith(LEXICAL) else ""


def _figures(part: Mapping[str, Any], lexical: str) -> str:
    shares = f"exact {share_line(part['exact_match'])}  partial{lexical} {share_line(part['partial_match'])}"
    return f"{shares}  token F1 {part['token_f1']['value']:.3f}  n {part['exact_match']['n']}"


if __name__ == "__main__":
    run(cli)
