"""python -m eval.nli --model models/demo-base --adapter rte --dataset alpaca_rte_eval --out results/rte

Prompts a base model and any number of adapters, the base loaded once, for yes, no or maybe (or any other
labels), and writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-nli.md explains them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tuneyard.core.errors import RequestError, run
from tuneyard.eval.backends.scorers import DIGITS, Fields, Prompts, Scorer, choosing, score_all
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.datasets.shots import with_shots
from tuneyard.eval.metrics.answers import PARSERS
from tuneyard.eval.metrics.labels import (
    LOW_MASS,
    UNKNOWN,
    LabelSet,
    accuracy_line,
    choose_labels,
    spellings,
    summary,
)
from tuneyard.eval.read.results import Prediction
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.images import with_images
from tuneyard.eval.scoring.options import (
    ScoringRequest,
    choice,
    number,
    refuse_explicit,
    shots_options,
    together,
)
from tuneyard.eval.scoring.task import Job, Task

CHECKED = 100  # rows that generate mode also answers by choice: a forward pass each
label_options = together(
    choice(
        "--variants",
        ["all", "none"],
        "choice: sum yes, Yes and both after a space, or take the bare label alone.",
    ),
    click.option("--choices", metavar="A,B,…", help="The labels; by default those found in the data."),
    click.option(
        "--count",
        multiple=True,
        metavar="A=B",
        help="Let an answer A count as B: maybe=no for a set without maybe. Repeatable.",
    ),
)


@scoring_command(
    "tuneyard eval nli --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 8 --out results/nli",
    "tuneyard eval nli --model models/demo-base --dataset demo_mnli_eval --limit 8 --out results/base",
    own=[
        shots_options,
        choice(
            "--mode",
            ["choice", "generate"],
            "Compare the labels' probabilities, or generate an answer and parse it.",
        ),
        choice(
            "--parser",
            PARSERS,
            "generate: take the answer as a word, or search it as the published script did.",
        ),
        label_options,
        number(
            "--check-generate",
            "choice: also generate for N of the examples and say how often both agree.",
            least=0,
            default=0,
        ),
    ],
    longest=64,
)
def cli(request: ScoringRequest, shots: int, shots_from: tuple[str, ...], **given: Any) -> Asked:
    """Score yes/no/maybe questions (or any labels) with a base model and adapters on it.

    Each accuracy comes with its n, 95 % interval and the share of the commonest answer.
    """
    if given["mode"] == "choice":
        _check_choice(request, given["parser"])
        if not given["check_generate"] and not request.rescore:
            fix = "nothing is generated here: give --mode generate, or --check-generate N"
            refuse_explicit(("parser", "max_new_tokens"), fix)
    else:
        fix = "it is for --mode choice: here every answer is generated"
        refuse_explicit(("check_generate", "variants"), fix)
    sees = given["mode"] == "choice" and not given["check_generate"]
    sets = read_datasets(request.datasets, request.data, request.cluster, images=sees)
    sets = with_images(request, sets, shots=shots)
    labels = label_sets(sets, given)
    sets = with_shots(sets, shots, shots_from, {name: own.labels for name, own in labels.items()})
    return Nli(labels, **given), sets


def _check_choice(request: ScoringRequest, parser: str) -> None:
    """Refuse what does not go with comparing the labels' probabilities."""
    if request.think:
        raise RequestError("--think needs --mode generate: a thought would stand before the labels")
    if request.preset:
        raise RequestError("--preset needs --mode generate: nothing is sampled where labels are compared")
    if request.backend == "openai":
        raise RequestError("--backend openai needs --url and --mode generate, and takes no --adapter")
    if request.backend == "vllm":
        raise RequestError("--backend vllm only generates: give --mode generate with it")
    if request.rescore and parser != "word":
        raise RequestError("--parser: these labels were chosen by log-probabilities, nothing is parsed")


def label_sets(sets: Sequence[EvalDataset], given: Mapping[str, Any]) -> dict[str, LabelSet]:
    """Return each dataset's labels by its name, of all its rows and by --choices and --count."""
    return {q.name: choose_labels(q.answers, given["choices"], given["count"], str(q.path)) for q in sets}


def mean_mass(predictions: Sequence[Prediction]) -> float | None:
    """Return the mean label mass of those predictions that have one, None where none has."""
    masses = [p["label_mass"] for p in predictions if "label_mass" in p]
    return round(sum(masses) / len(masses), 6) if masses else None


def mass_warnings(mass: float | None, said: str = "labels") -> list[str]:
    """Warn of labels that the model would hardly say."""
    low = mass is not None and mass < LOW_MASS
    return [f"label mass {mass:.2f}: it would hardly say these {said}"] if low else []


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
    command: str = "eval.nli"
    summaries: tuple[str, ...] = ()

    def labels(self, job: Job) -> list[str]:
        """Return the labels of the job's dataset."""
        return self.label_sets[job.dataset.name].labels

    def settings(self, request: ScoringRequest) -> dict[str, object]:
        """Return the options that change an answer or what it counts as."""
        kept = {name: getattr(self, name) for name in ("mode", "variants", "choices", "check_generate")}
        if self.mode == "generate" or self.check_generate:
            kept |= {"parser": self.parser, **Task.settings(self, request)}
        return {"count": list(self.count), **kept}

    def scorer(self, job: Job) -> Scorer:
        """Return one that chooses between the labels, or one that generates."""
        return job.generating() if self.mode == "generate" else self._choosing(job, job.prompts())

    def _choosing(self, job: Job, prompts: Prompts) -> Scorer:
        forms = {label: spellings(label, self.variants == "all") for label in self.labels(job)}
        images = {row: job.images(row) for row in prompts}
        return choosing(job.model, prompts, forms, job.opened.budget, images)

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
        return {
            "mode": self.mode,
            **summary(predictions, job.dataset.answers),
            "unparsed_rows": [p["row"] for p in predictions if p["predicted_output"] == UNKNOWN],
            "label_mass": mean_mass(predictions),
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
        return mass_warnings(results["label_mass"]) + Task.warnings(self, results)

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
        generates = self.mode == "generate"
        name, key = ("check_choice", "chosen") if generates else ("check_generate", "generated")
        answered = [row for row, p in enumerate(predictions) if "refused" not in p]
        chooses = job.request.backend == "hf" and not job.request.think
        count = min(self.check_generate or CHECKED * (generates and chooses), len(answered))
        if not count:
            return {}
        some = [answered[i * len(answered) // count] for i in range(count)]
        scorer = self._choosing(job, job.prompts(some)) if generates else job.generating(job.messages(some))
        found = score_all(scorer, name.replace("_", " "))
        differing = [
            {"row": row, key: found[row]["model_output"]}
            for row in found
            if self._label(job, found[row]) != predictions[row]["predicted_output"]
        ]
        return {name: {"n": len(found), "agree": len(found) - len(differing), "differing": differing}}


if __name__ == "__main__":
    run(cli)
