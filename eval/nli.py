"""python -m eval.nli --model models/demo-base --adapter rte --dataset alpaca_rte_eval --out results/rte

Prompts a base model and any number of adapters, the base loaded once, for yes, no or maybe (or any other
labels), and writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-nli.md explains them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from core.cli import examples
from core.errors import CLI, RequestError, run
from eval.backends.scorers import DIGITS, ChoiceScorer, Fields, Prompts, Scorer, score_in_halves
from eval.datasets.dataset import EvalDataset, read_datasets
from eval.datasets.shots import with_shots
from eval.metrics.answers import PARSERS
from eval.metrics.labels import (
    LOW_MASS,
    UNKNOWN,
    LabelSet,
    accuracy_line,
    choose_labels,
    spellings,
    summary,
)
from eval.runs.results import Prediction
from eval.scoring.images import with_images
from eval.scoring.job import Job
from eval.scoring.options import (
    Command,
    generate_options,
    model_options,
    rescoring,
    run_options,
    set_options,
    shots_options,
    take,
)
from eval.scoring.pipeline import score
from eval.scoring.task import Prepared, Task

CHECKED = 100  # rows that generate mode also answers by choice: a forward pass each


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


@click.command(
    context_settings=CLI,
    epilog=examples(
        "tuneyard eval nli --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
        "--limit 8 --out results/nli",
        "tuneyard eval nli --model models/demo-base --dataset demo_mnli_eval --limit 8 --out results/base",
    ),
)
@model_options
@rescoring
@set_options
@shots_options
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
    help="choice: also generate for N of the examples and say how often both agree.",
)
@generate_options(max_new_tokens=64)
@run_options
def cli(**given: Any) -> None:
    """Score yes/no/maybe questions (or any labels) with a base model and adapters on it.

    Each accuracy comes with its n, 95 % interval and the share of the commonest answer.
    """
    score(*prepare(**given))


def prepare(**given: Any) -> Prepared:
    """Return what is asked and how; `RequestError` for options that do not go together."""
    request = take(given)
    mode = given["mode"]
    if mode == "choice" and request.think:
        raise RequestError("--think needs --mode generate: a thought would stand before the labels")
    if mode == "choice" and request.preset:
        raise RequestError("--preset needs --mode generate: nothing is sampled where labels are compared")
    if mode == "choice" and request.backend == "openai":
        raise RequestError("--backend openai needs --url and --mode generate, and takes no --adapter")
    if mode == "choice" and request.backend == "vllm":
        raise RequestError("--backend vllm only generates: give --mode generate with it")
    if request.rescore and mode == "choice" and given["parser"] != "word":
        raise RequestError("--parser: these labels were chosen by log-probabilities, nothing is parsed")
    if given["check_generate"] and mode == "generate":
        raise RequestError("--check-generate is for --mode choice: here every answer is generated")
    shots = given.pop("shots"), given.pop("shots_from")
    sees = mode == "choice" and not given["check_generate"]
    sets = read_datasets(request.datasets, request.data, request.cluster, images=sees)
    sets = with_images(request, sets, shots=shots[0])
    labels = label_sets(sets, given)
    sets = with_shots(sets, *shots, {name: own.labels for name, own in labels.items()})
    return request, Nli(labels, **given, max_new_tokens=request.max_new_tokens), sets


def label_sets(sets: Sequence[EvalDataset], given: Mapping[str, Any]) -> dict[str, LabelSet]:
    """Return each dataset's labels by its name, of all its rows and by --choices and --count."""
    return {q.name: choose_labels(q.answers, given["choices"], given["count"], str(q.path)) for q in sets}


@dataclass(frozen=True, slots=True)
class Nli(Task):
    """Asking for one of some labels: each dataset's by its name, and the command's own options."""

    label_sets: Mapping[str, LabelSet]
    mode: str
    parser: str
    variants: str
    choices: str | None
    count: tuple[str, ...]
    check_generate: int
    max_new_tokens: int
    command: str = "eval.nli"

    def labels(self, job: Job) -> list[str]:
        """Return the labels of the job's dataset."""
        return self.label_sets[job.dataset.name].labels

    def settings(self) -> dict[str, object]:
        """Return the options that change an answer or what it counts as."""
        kept = ("mode", "variants", "choices", "check_generate")
        generates = self.mode == "generate" or self.check_generate
        generating = ("parser", "max_new_tokens") if generates else ()
        return {"count": list(self.count), **{name: getattr(self, name) for name in (*kept, *generating)}}

    def scorer(self, job: Job) -> Scorer:
        """Return one that chooses between the labels, or one that generates."""
        return job.generating() if self.mode == "generate" else self._choosing(job, job.prompts())

    def _choosing(self, job: Job, prompts: Prompts) -> Scorer:
        forms = {label: spellings(label, self.variants == "all") for label in self.labels(job)}
        images = {row: job.images(row) for row in prompts}
        return ChoiceScorer(job.model, prompts, forms, job.opened.budget, images)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the six fields of the published script, the row's number, and what else is known of it."""
        record, asked = job.dataset.records[row], job.rows[row]
        return {
            "instruction": record.get("instruction", asked.messages[-1]["content"]),
            "input": record.get("input", ""),
            "expected_output": asked.answer,
            "model_output": str(fields.get("model_output", "")),
            "predicted_output": self._label(job, fields),
            "idx": record.get("idx", -1),
            "row": row,
            **{key: value for key, value in fields.items() if not key.endswith("_output")},
        }

    def again(self, job: Job, kept: Prediction) -> Prediction:
        """Return the line anew; of kept log-probabilities, those of the labels that are asked for now."""
        logs = kept.get("choices")
        if not isinstance(logs, Mapping):
            return Task.again(self, job, kept)
        labels = self.labels(job)
        if missing := [label for label in labels if label not in logs]:
            raise RequestError(
                f"--rescore: {', '.join(missing)}: the kept log-probabilities are of {', '.join(logs)}; "
                "score without --rescore for other labels"
            )
        own = {label: float(logs[label]) for label in labels}
        best = max(own, key=lambda label: (own[label], label == kept["model_output"]))
        mass = {} if own == logs else {"label_mass": round(sum(map(math.exp, own.values())), DIGITS)}
        line = Task.again(self, job, {**kept, "choices": own, **mass})
        return {**line, "predicted_output": self.label_sets[job.dataset.name].counts.get(best, best)}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return accuracy and all that a decision needs beside it."""
        masses = [float(str(p["label_mass"])) for p in predictions if "label_mass" in p]
        return {
            "mode": self.mode,
            **summary(predictions, job.dataset.answers),
            "unparsed_rows": [p["row"] for p in predictions if p["predicted_output"] == UNKNOWN],
            "label_mass": round(sum(masses) / len(masses), 6) if masses else None,
            "labels": self.labels(job),
            **self._agreement(job, predictions),
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return accuracy, interval, n, majority, unparsed, label mass and agreement."""
        mass = f"  label mass {results['label_mass']:.2f}" if results["label_mass"] is not None else ""
        agree = [
            f"  {who} answers agree {results[check]['agree']}/{results[check]['n']}"
            for check, who in (("check_generate", "generated"), ("check_choice", "chosen"))
            if check in results
        ]
        said = {given for row in results["confusion"].values() for given, count in row.items() if count}
        always = f'  always "{said.pop()}"' if len(said) == 1 < len(results["confusion"]) else ""
        return f"{accuracy_line(results)}{always}  unparsed {results['unparsed']}{mass}{''.join(agree)}"

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Warn of labels that the model would hardly say, and of prompts that did not fit."""
        mass, said = results["label_mass"], []
        if mass is not None and mass < LOW_MASS:
            said.append(f"label mass {mass:.2f}: it would hardly say these labels")
        return said + Task.warnings(self, results)

    def _label(self, job: Job, fields: Fields) -> str:
        """Return what an answer is taken for, chosen or parsed, and what --count lets it count as."""
        labels = self.label_sets[job.dataset.name]
        if "refused" in fields:
            return UNKNOWN
        parse = PARSERS[self.parser]
        label = fields.get("predicted_output") or parse(str(fields["model_output"]), labels.labels)
        return labels.counts.get(str(label), str(label))

    def _agreement(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Answer some of the rows, evenly spread, in the other mode too; return how often both agree."""
        if job.kept:  # it would need the model
            return {}
        name, key = ("check_choice", "chosen") if self.mode == "generate" else ("check_generate", "generated")
        answered = [row for row, p in enumerate(predictions) if "refused" not in p]
        checks = self.check_generate or CHECKED * (self.mode == "generate" and job.chooses)
        count = min(checks, len(answered))
        if not count:
            return {}
        some = [answered[i * len(answered) // count] for i in range(count)]
        other = self.mode == "generate"
        scorer = self._choosing(job, job.prompts(some)) if other else job.generating(job.messages(some))
        found: dict[int, Fields] = {}
        for batch in scorer.batches:
            found.update(zip(batch, score_in_halves(scorer, batch), strict=True))
        differing = [
            {"row": row, key: found[row]["model_output"]}
            for row in sorted(found)
            if self._label(job, found[row]) != predictions[row]["predicted_output"]
        ]
        return {name: {"n": len(found), "agree": len(found) - len(differing), "differing": differing}}


if __name__ == "__main__":
    run(cli)
