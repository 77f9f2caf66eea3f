"""tuneyard eval nli --model models/demo-base --adapter rte --dataset alpaca_rte_eval --out results/rte

Prompts a base model and any number of adapters, the base loaded once, for yes, no or maybe (or any other
labels), and writes OUT/<model>/<dataset>/{results.json,predictions.jsonl}. docs/eval-nli.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError, show_value, show_values
from tuneyard.core.language.message import _, joined, marked, relative
from tuneyard.core.language.messages import say
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.answers import PARSERS, one_spelling
from tuneyard.eval.figures.labels import (
    UNKNOWN,
    LabelSet,
    check_labels,
    find_labels,
    parse_choices,
    parse_counts,
    spellings,
    summary,
)
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import DIGITS, BatchPlan, Fields
from tuneyard.eval.report.lines import accuracy_line
from tuneyard.eval.runs.results import Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import (
    Evaluation,
    Job,
    answer_without,
)
from tuneyard.eval.scoring.options import RescorableOption, number
from tuneyard.eval.scoring.request import (
    OptionValues,
    ScoringRequest,
)
from tuneyard.eval.statistics.rates import is_answered

label_options = [
    click.option(
        "--variants",
        type=click.Choice(["all", "none"]),
        default="all",
        show_default=True,
        help="choice: sum yes, Yes and both after a space, or take the bare label alone.",
    ),
    click.option(
        "--choices",
        cls=RescorableOption,
        metavar="A,B,…",
        help="The labels.  [the different answers in the data]",
    ),
    click.option(
        "--count",
        cls=RescorableOption,
        multiple=True,
        metavar="A=B",
        help="Let an answer A count as B, such as maybe=no for a dataset without maybe. Repeatable.",
    ),
]


@scoring_command(
    "nli",
    "tuneyard eval nli --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 8 --out results/nli",
    "tuneyard eval nli --model models/demo-base --dataset demo_mnli_eval --limit 8 --out results/base",
    options=[
        click.option(
            "--mode",
            type=click.Choice(["choice", "generate"]),
            show_default="choice, with --preset generate",
            help="Compare the labels' probabilities, or generate an answer and parse it.",
        ),
        click.option(
            "--parser",
            cls=RescorableOption,
            type=click.Choice(list(PARSERS)),
            show_default="word, with --preset substring",
            help="generate: find the label as a word, or search the text as the published script did.",
        ),
        *label_options,
        number(
            "--check-generate",
            type=click.IntRange(0),
            default=0,
            help="Also answer N of the examples in the other mode and report how often both agree.",
        ),
    ],
    images=lambda options: (
        mode_of(options["mode"], options["preset"]) == "choice" and not options["check_generate"]
    ),
    shots=True,
    longest=64,
    bare=True,
)
def cli(request: ScoringRequest, datasets: Sequence[EvalDataset], **options: Any) -> Declared:
    """Score yes/no/maybe questions (or any labels) with a base model and adapters on it.

    Each accuracy comes with its n, 95 % interval and the share of the most common answer.
    """
    options["mode"] = mode_of(options["mode"], request.preset)
    if options["parser"] is None:
        options["parser"] = "substring" if request.preset else "word"
    if options["mode"] == "choice":
        if request.think:
            raise RequestError(_("--think needs --mode generate: a thought would come before the labels"))
        if request.preset:
            raise RequestError(
                _("--preset needs --mode generate: nothing is sampled where labels are compared")
            )
        if request.rescore or not options["check_generate"]:
            reason = _(
                "nothing is generated here: leave it out, or give --mode generate or --check-generate N"
            )
            request.refuse_explicit(("parser", "max_new_tokens"), reason)
    elif options["check_generate"]:
        _check_labels_comparable(request, options["check_generate"])
    else:
        reason = _("no labels are compared here: leave it out, or give --mode choice or --check-generate N")
        request.refuse_explicit(("variants",), reason)
    return Nli(label_sets(datasets, options), **options), datasets


def _check_labels_comparable(request: ScoringRequest, count: int) -> None:
    """`RequestError` if generated answers cannot be checked by comparing labels after the same prompts."""
    if request.think:
        raise RequestError(
            _(
                "--check-generate {count}: labels cannot be compared after a thought; leave out --think or "
                "--check-generate",
                count=count,
            )
        )
    if request.backend_kind.is_server:
        raise RequestError(
            _(
                "--check-generate {count}: a server compares labels with --mode choice alone; give that, or "
                "leave out --check-generate",
                count=count,
            )
        )


def mode_of(mode: str | None, preset: str | None) -> str:
    """The mode of the options: the published script, which `--preset document` repeats, generates."""
    if mode is not None:
        return mode
    return "generate" if preset else "choice"


def label_sets(datasets: Sequence[EvalDataset], options: OptionValues) -> dict[str, LabelSet]:
    """Labels of each dataset by its name: --choices or the answers of all its rows, with --count applied.

    `ContentError` or `RequestError` if answers and options disagree.
    """
    label_sets = {}
    for dataset in datasets:
        place, choices = relative(dataset.path), []
        if options["choices"] is not None:
            choices = parse_choices(options["choices"])
        label_of = one_spelling(dataset.answers, choices)
        answers = [label_of[answer] for answer in dataset.answers]
        labels = choices or find_labels(answers, place)
        if choices:
            check_labels(answers, labels, place)
        _say_spellings(place, label_of)
        counts = parse_counts(options["count"], labels)
        counts = {label: other for label, other in counts.items() if label not in answers}
        label_sets[dataset.name] = LabelSet(labels, counts, label_of)
    return label_sets


def _say_spellings(place: str, label_of: Mapping[str, str]) -> None:
    """Note expected answers that count as a label of another spelling."""
    for label in dict.fromkeys(label_of.values()):
        others = [answer for answer, its_label in label_of.items() if its_label == label != answer]
        if others:
            say(
                _(
                    "note: {place}: label {label}, also for {others}",
                    place=place,
                    label=show_value(label),
                    others=show_values(others),
                ),
                to_stderr=True,
            )


@dataclass(frozen=True, slots=True)
class Nli(Evaluation):
    """Prompting for one of some labels: each dataset's by its name, and the command's own options."""

    label_sets: Mapping[str, LabelSet]
    mode: str
    variants: str
    parser: str = "word"
    choices: str | None = None
    count: tuple[str, ...] = ()
    check_generate: int = 0
    summaries: tuple[str, ...] = ()
    further_settings: Mapping[str, object] = field(default_factory=dict)
    """What else decides the answers, by a command that scores labels in its own way."""

    @property
    def chooses(self) -> bool:
        """True unless answers are generated."""
        return self.mode == "choice"

    @property
    def shot_answers(self) -> Mapping[str, Sequence[str]]:
        """An example before a question has one of the dataset's labels as its answer, in any spelling."""
        return {name: [*each.labels, *each.label_of] for name, each in self.label_sets.items()}

    def settings(self, request: ScoringRequest, backend: Backend) -> dict[str, object]:
        """Options that change an answer, or the label that it counts as."""
        names = ("mode", "variants", "choices", "check_generate")
        settings = {"count": list(self.count), **{name: getattr(self, name) for name in names}}
        if self.mode == "generate" or self.check_generate:
            settings["parser"] = self.parser
            settings.update(Evaluation.settings(self, request, backend))
        return {**settings, **self.further_settings}

    def batch_plan(self, job: Job) -> BatchPlan:
        """Choose between the labels, or generate."""
        return job.generating() if self.mode == "generate" else self._choosing(job)

    def _choosing(self, job: Job, rows: Sequence[int] | None = None) -> BatchPlan:
        labels = self.label_sets[job.dataset.name].labels
        forms = {label: spellings(label, self.variants == "all") for label in labels}
        return job.choosing(forms, rows)

    def further(self, job: Job) -> BatchPlan | None:
        """Answer `check_generate` evenly spread rows in the other mode, too."""
        answered = [row for row in range(len(job.rows)) if row not in job.batch_plan.too_long]
        count = min(self.check_generate, len(answered))
        if not count:
            return None
        rows = [answered[i * len(answered) // count] for i in range(count)]
        if self.mode == "generate":
            return self._choosing(job, rows)
        return job.generating(job.messages(rows))

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The six fields of the published script, the row's number, and the other fields of the answer."""
        record, example = job.dataset.records[row], job.rows[row]
        label_of = self.label_sets[job.dataset.name].label_of
        return {
            "instruction": record.get("instruction", example.question),
            "input": record.get("input", ""),
            "expected_output": label_of.get(example.answer, example.answer),
            "model_output": str(fields.get("model_output", "")),
            "predicted_output": self._label(job, fields),
            "idx": record.get("idx", -1),
            "row": row,
            **answer_without(fields, ["model_output"]),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Accuracy and the other figures of results.json."""
        unparsed = [line["row"] for line in predictions if line["predicted_output"] == UNKNOWN]
        masses = [line["label_mass"] or 0.0 for line in predictions if "label_mass" in line]
        return {
            "mode": self.mode,
            **summary(predictions),
            "unparsed_rows": unparsed,
            "label_mass": round(sum(masses) / len(masses), DIGITS) if masses else None,
            "labels": self.label_sets[job.dataset.name].labels,
            **(self._agreement(job, predictions) if job.further else {}),
        }

    def line(self, results: Results) -> str:
        """Accuracy, interval, n, majority, unparsed, label mass and agreement."""
        parts = [accuracy_line(results)]
        predicted: set[str] = set()
        for counts in results["confusion"].values():
            predicted.update(label for label, count in counts.items() if count)
        if len(predicted) == 1 < len(results["confusion"]):
            parts.append(_('always "{label}"', label=predicted.pop()))
        parts.append(_("unparsed {count}", count=results["unparsed"]))
        if results["label_mass"] is not None:
            parts.append(_("label mass {mass:.2f}", mass=results["label_mass"]))
        checks = {
            "check_generate": marked("generated answers agree {agree}/{n}"),
            "check_choice": marked("chosen answers agree {agree}/{n}"),
        }
        for check, template in checks.items():
            if check in results:
                parts.append(_(template, agree=results[check]["agree"], n=results[check]["n"]))
        return joined(parts, "  ")

    def _label(self, job: Job, fields: Fields) -> str:
        """The label of a chosen or generated answer, with --count applied."""
        labels = self.label_sets[job.dataset.name]
        if not is_answered(fields):
            return UNKNOWN
        output, choices = str(fields["model_output"]), fields.get("choices")
        if choices:  # rounded: of equal ones the answer is the likeliest
            label = max(choices, key=lambda label: (choices[label], label == output))
        else:
            label = PARSERS[self.parser](output, labels.labels)
        return labels.counts.get(label, label)

    def _agreement(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Count how often the answers of both modes agree."""
        name, key = "check_generate", "generated"
        if self.mode == "generate":
            name, key = "check_choice", "chosen"
        differing = []
        for row, fields in sorted(job.further.items()):
            if self._label(job, fields) != predictions[row]["predicted_output"]:
                differing.append({"row": row, key: fields["model_output"]})
        return {
            name: {"n": len(job.further), "agree": len(job.further) - len(differing), "differing": differing}
        }


if __name__ == "__main__":
    run_command(cli)
