"""python -m eval.nli --model models/demo-base --adapter rte --dataset alpaca_rte_eval --out results/rte

Asks a base model and any number of adapters, the base loaded once, for yes, no or maybe (or any other
labels), and writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-nli.md explains them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from core.errors import CLI, RequestError, run
from eval.measure.answers import PARSERS
from eval.measure.labels import (
    LOW_MASS,
    UNKNOWN,
    accuracy_line,
    check_labels,
    find_labels,
    parse_choices,
    parse_counts,
    spellings,
    summary,
)
from eval.model.ask import Asker, Fields, ask_in_halves
from eval.model.questions import Questions, read_questions
from eval.options import Command, generate_options, model_options, run_options, set_options, take
from eval.output.results import Prediction
from eval.pipeline import Job, score


def label_options(command: Command) -> Command:
    """--variants, --choices and --count: between which labels is chosen."""
    variants = click.option(
        "--variants",
        type=click.Choice(["all", "none"]),
        default="all",
        show_default=True,
        help="choice: sum yes, Yes and both after a space, or take the bare label alone.",
    )
    choices = click.option(
        "--choices", metavar="A,B,…", help="The labels; by default those found in the data."
    )
    count = click.option(
        "--count",
        multiple=True,
        metavar="A=B",
        help="Let an answer A count as B: maybe=no for a set without maybe. Repeatable.",
    )
    return variants(choices(count(command)))


@click.command(context_settings=CLI)
@model_options
@set_options
@click.option(
    "--mode",
    type=click.Choice(["choice", "generate"]),
    default="choice",
    show_default=True,
    help="Compare the labels' probabilities, or generate an answer and parse it.",
)
@click.option(
    "--parser",
    type=click.Choice(list(PARSERS)),
    default="word",
    show_default=True,
    help="generate: take the answer as a word, or search it as the published script did.",
)
@label_options
@click.option(
    "--check-generate",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    help="choice: also generate for N of the rows and say how often both agree.",
)
@generate_options(max_new_tokens=64)
@run_options
def cli(**given: Any) -> None:
    """Score yes/no/maybe questions (or any labels) with a base model and adapters on it.

    Each accuracy comes with its n, 95 % interval and the share of the commonest answer.
    """
    request = take(given)
    task = Nli(**given, max_new_tokens=request.max_new_tokens)
    if task.mode == "choice" and request.think:
        raise RequestError("--think needs --mode generate: a thought would stand before the labels")
    if task.mode == "choice" and request.backend == "openai":
        raise RequestError("--backend openai needs --url and --mode generate, and takes no --adapter")
    if task.mode == "choice" and request.backend == "vllm":
        raise RequestError("--backend vllm only generates: give --mode generate with it")
    if task.check_generate and task.mode == "generate":
        raise RequestError("--check-generate is for --mode choice: here every answer is generated")
    sets = read_questions(request.datasets, request.data)
    for questions in sets:
        task.labels(questions)
    score(request, task, sets)


@dataclass(frozen=True, slots=True)
class Nli:
    """Asking for one of some labels: a field for each of the command's own options."""

    mode: str
    parser: str
    variants: str
    choices: str | None
    count: tuple[str, ...]
    check_generate: int
    max_new_tokens: int
    command: str = "eval.nli"

    def labels(self, questions: Questions) -> list[str]:
        """Return the labels of a set; `ContentError` or `RequestError` where data and options disagree."""
        place = str(questions.path)
        labels = (
            find_labels(questions.answers, place) if self.choices is None else parse_choices(self.choices)
        )
        check_labels(questions.answers, labels, place)
        parse_counts(self.count, labels)
        return labels

    def settings(self) -> dict[str, object]:
        """Return the options that change an answer or what it counts as."""
        kept = ("mode", "variants", "choices", "check_generate")
        generates = self.mode == "generate" or self.check_generate
        generating = ("parser", "max_new_tokens") if generates else ()
        return {"count": list(self.count), **{name: getattr(self, name) for name in (*kept, *generating)}}

    def asker(self, job: Job) -> Asker:
        """Return one that chooses between the labels, or one that generates."""
        if self.mode == "generate":
            return job.generating()
        every_form = self.variants == "all"
        return job.choosing({label: spellings(label, every_form) for label in self.labels(job.questions)})

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the six fields of the published script, the row's number, and what else is known of it."""
        record, asked = job.questions.records[row], job.rows[row]
        said = str(fields.get("model_output", ""))
        label = UNKNOWN if "refused" in fields else fields.get("predicted_output") or self._parse(job, said)
        group = {"group": record["group"]} if "group" in record else {}
        return {
            "instruction": record.get("instruction", asked.messages[-1]["content"]),
            "input": record.get("input", ""),
            "expected_output": asked.answer,
            "model_output": said,
            "predicted_output": self._counted(job, str(label)),
            "idx": record.get("idx", -1),
            "row": row,
            **{key: value for key, value in fields.items() if not key.endswith("_output")},
            **group,
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return accuracy and all that a decision needs beside it."""
        masses = [float(str(p["label_mass"])) for p in predictions if "label_mass" in p]
        checked = {"check_generate": self._agreement(job, predictions)} if self.check_generate else {}
        return {
            "mode": self.mode,
            **summary(predictions),
            "unparsed_rows": [p["row"] for p in predictions if p["predicted_output"] == UNKNOWN],
            "label_mass": round(sum(masses) / len(masses), 6) if masses else None,
            "refused": sum("refused" in p for p in predictions),
            "labels": self.labels(job.questions),
            **checked,
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return accuracy, interval, n, majority, unparsed, label mass and agreement."""
        mass = f"  label mass {results['label_mass']:.2f}" if results["label_mass"] is not None else ""
        checked = results.get("check_generate")
        agree = f"  generated answers agree {checked['agree']}/{checked['n']}" if checked else ""
        return f"{accuracy_line(results)}  unparsed {results['unparsed']}{mass}{agree}"

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Warn of labels that the model would hardly say, and of prompts that did not fit."""
        mass, said = results["label_mass"], []
        if mass is not None and mass < LOW_MASS:
            said.append(f"label mass {mass:.2f}: it would hardly say these labels")
        if results["refused"]:
            said.append(f"{results['refused']} prompts exceed the context and count as wrong")
        return said

    def _parse(self, job: Job, text: str) -> str:
        return PARSERS[self.parser](text, self.labels(job.questions))

    def _agreement(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Generate for some of the rows, evenly spread; return how often the parsed answer is the same."""
        count = min(self.check_generate, len(predictions))
        some = [i * len(job.rows) // count for i in range(count)]
        asker = job.generating({row: job.rows[row].messages for row in some})
        said: dict[int, str] = {}
        for batch in asker.batches:
            texts = (str(fields["model_output"]) for fields in ask_in_halves(asker, batch))
            said.update(zip(batch, texts, strict=True))
        differing = [
            {"row": row, "generated": said[row]}
            for row in sorted(said)
            if self._counted(job, self._parse(job, said[row])) != predictions[row]["predicted_output"]
        ]
        return {"n": len(said), "agree": len(said) - len(differing), "differing": differing}

    def _counted(self, job: Job, label: str) -> str:
        """Return what a label counts as here: --count says so for labels that no row expects."""
        meant = parse_counts(self.count, self.labels(job.questions)).get(label, label)
        return label if meant == label or label in job.questions.answers else meant


if __name__ == "__main__":
    run(cli)
