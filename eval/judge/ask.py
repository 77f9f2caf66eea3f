"""Compare runs, and ask further questions about them, without reading a file or printing.

Only runs of the same rows are compared; warnings report other prompts and settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tuneyard.core.errors import RequestError, show_value
from tuneyard.core.language.message import _, counted, joined, listed, relative
from tuneyard.core.language.number_format import Table
from tuneyard.core.training.metrics import ACCURACY, SHARE, Metric
from tuneyard.eval.figures.labels import short
from tuneyard.eval.judge.conclusions import Comparison
from tuneyard.eval.judge.equal_runs import equal_warnings
from tuneyard.eval.judge.question import Question
from tuneyard.eval.judge.questions.replicates import (
    Recipes,
    seed_warnings,
    with_settings,
    with_trainings,
)
from tuneyard.eval.judge.sections import compare, meaning
from tuneyard.eval.runs.contamination import training_warnings
from tuneyard.eval.runs.results import BASE
from tuneyard.eval.runs.scored_run import OF_ANSWERS, RunsByDataset, ScoredRun, models_of, question_of

MAY_DIFFER = ("model", "batch_tokens")  # settings that may differ, or that change no answer
FEW_GROUPS = 6  # of fewer clusters the sign test's p is 0.0625 or more, even if all agree
WITH_A_WORST = {SHARE: 1.0, "points": 100.0}
"""Units with a highest value, which is the worst if lower is better. The lowest is 0."""
MOST_LISTED = 5
MOST_LABELS = 20  # of more, expected answers are texts of their own
NOT_FOUND = "[invalid]"  # what lm-evaluation-harness writes for a text without an answer


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, their comparison with the base, and warnings.

    `tables` by caption and the records of table.json (`figures`) answer the further questions.
    """

    runs: RunsByDataset
    comparison: Comparison
    tables: Mapping[str, Table]
    figures: Mapping[str, Any]
    warnings: Sequence[str]

    @property
    def run_list(self) -> list[ScoredRun]:
        """All runs, by dataset and model."""
        return [run for by_model in self.runs.values() for run in by_model.values()]


def compare_runs(
    runs: RunsByDataset,
    questions: Sequence[Question] = (),
    warnings: Sequence[str] = (),
    metric: str = ACCURACY.name,
    decide_on: str = "",
    margin: float | None = None,
    recipes: Recipes = MappingProxyType({}),
    *,
    has_mean: bool = True,
) -> ComparedRuns:
    """Ask the questions about the runs, in their order, then compare all models with the base.

    The base is the model `base`, otherwise the first. `warnings` are those of the reading. For the other
    arguments see `compare`. `RequestError` if the runs did not answer the same rows, or cannot answer a
    question.
    """
    warned = [*warnings, *pairing_warnings(runs)]
    for by_model in runs.values():
        warned += check_rows(list(by_model.values()))
        warned += equal_warnings(list(by_model.values()))
        for run in by_model.values():
            warned += refusal_warnings(run)
        if metric in OF_ANSWERS:
            for run in by_model.values():
                warned += answer_warnings(run)
    if len(models_of(runs)) > 1 and all(len(by_model) == 1 for by_model in runs.values()):
        answered = []
        for dataset, by_model in runs.items():
            answered.append(_("{dataset} ({models})", dataset=dataset, models=joined(by_model)))
        raise RequestError(
            _(
                "nothing to compare: a single model answered each of {datasets}; score two models or "
                "more on the same dataset, and name the folders of both",
                datasets=joined(answered),
            )
        )
    base = BASE
    if base not in models_of(runs):
        first = models_of(runs)[0]
        base = next((setting for setting, trainings in recipes.items() if first in trainings), first)
    if recipes:
        runs = with_settings(runs, base, recipes)
        warned += seed_warnings(recipes)
    tables: dict[str, Table] = {}
    figures: dict[str, Any] = {}
    for question in questions:
        answer = question(runs, base)
        runs, base = answer.runs, answer.base
        tables |= answer.tables
        figures |= answer.figures
    measured = meaning(metric, runs)
    for by_model in runs.values():
        for run in by_model.values():
            warned += worst_warnings(run, measured)
    comparison = compare(runs, base, decide_on, margin, measured, has_mean=has_mean)
    if recipes:
        runs = with_trainings(runs)
    warned += _trained_on(runs, measured)
    for section in comparison.sections:
        warned += section.cautions
    return ComparedRuns(runs, comparison, tables, figures, warned)


def _trained_on(runs: RunsByDataset, metric: Metric) -> list[str]:
    """Warnings about training examples among the rows. Unchecked sources are listed once for each model."""
    warnings: list[str] = []
    logged: list[str] = []
    for dataset, by_model in runs.items():
        for model, run in by_model.items():
            reasons = tuple((run.facts.get("trained_on") or {}).get("not_checked", ()))
            for text in training_warnings(model, len(run.rows), run.facts, metric):
                if text.endswith(reasons):
                    warnings.append(text)
                else:
                    warnings.append(_("{dataset}: {text}", dataset=dataset, text=text))
            if model != BASE and "model" not in run.facts:  # another tool wrote the answers
                logged.append(model)
    if logged:
        models = joined(dict.fromkeys(logged))
        warnings.append(
            _("training examples not checked: no log says what {models} was trained on", models=models)
        )
    return list(dict.fromkeys(warnings))


def check_rows(runs: Sequence[ScoredRun]) -> list[str]:
    """Warnings about how the runs of one dataset were prompted, and with other questions.

    `RequestError` if two runs did not answer the same rows; it names them and the difference.
    """
    first, *others = runs
    warnings: list[str] = []
    count = len(set(first.groups or ()))
    if 0 < count < FEW_GROUPS:
        warning = _(
            "{dataset}: fewer than {few} clusters ({count} here) cannot show any difference; "
            "score examples of more",
            dataset=first.dataset,
            few=FEW_GROUPS,
            count=count,
        )
        warnings.append(warning)
    first_settings = _settings(first)
    questions = [question_of(record) for record in first.records]
    sources_by_difference: dict[str, list[str]] = {}
    for run in others:
        _check_same(run, first)
        differing = []
        for name, value in _settings(run).items():
            first_value = first_settings.get(name, value)
            if first_value != value:
                differing.append(
                    _(
                        "{setting} {value} and {other}",
                        setting=name,
                        value=show_value(value),
                        other=show_value(first_value),
                    )
                )
        if differing:
            sources_by_difference.setdefault(joined(differing, _("; ")), []).append(run.source)
        for row, record, other in zip(run.rows, run.records, questions, strict=False):
            text = question_of(record)
            if text not in other and other not in text:  # a tool may record it within its template
                warning = _(
                    "{both} have different questions, first in row {row}; score both on the same questions",
                    both=listed([relative(run.source), relative(first.source)]),
                    row=row,
                )
                warnings.append(warning)
                break
    for differing_settings, sources in sources_by_difference.items():
        both = listed(list(map(relative, [*sources, first.source])))
        warnings.append(
            _("{both} have different settings: {differing}", both=both, differing=differing_settings)
        )
    return warnings


def worst_warnings(run: ScoredRun, metric: Metric) -> list[str]:
    """A warning if every row has the worst value of a metric but accuracy, such as ROUGE-L 0."""
    if metric.name in OF_ANSWERS or metric.unit not in WITH_A_WORST:
        return []
    worst = 0.0 if metric.higher else WITH_A_WORST[metric.unit]
    values = [value for value in run.column(metric.name) if value is not None]
    if not values or any(value != worst for value in values):
        return []
    warning = _(
        "{model}: {metric} is {value:g} for every row of {dataset}; read some answers: their form, the "
        "labels or the template may be wrong",
        model=run.model,
        metric=metric.name,
        value=worst,
        dataset=run.dataset,
    )
    return [warning]


def refusal_warnings(run: ScoredRun) -> list[str]:
    """A warning of rows that a server refused, if there are any."""
    refused = [row for row, record in zip(run.rows, run.records, strict=False) if "refused" in record]
    if not refused:
        return []
    warning = _(
        "{model}: the server refused {count:,} of {total:,} rows of {dataset}, counted as unanswered "
        "({rows})",
        model=run.model,
        count=len(refused),
        total=len(run.rows),
        dataset=run.dataset,
        rows=_first_rows(refused),
    )
    return [warning]


def _first_rows(rows: Sequence[str]) -> str:
    """List the first rows, with an ellipsis if there are more."""
    names = list(rows[:MOST_LISTED])
    if len(rows) > MOST_LISTED:
        names.append("…")
    return joined(names)


def answer_warnings(run: ScoredRun) -> list[str]:
    """A warning if no answer is correct, or if most answers are none of the few expected ones."""
    if not any(run.correct):
        warning = _(
            "{model}: no answer to {dataset} is correct (expected {expected}, found "
            "{predicted}); read some of them: the form of the answers, the labels or the template may be "
            "wrong",
            model=run.model,
            dataset=run.dataset,
            expected=show_value(short(run.gold[0])),
            predicted=show_value(short(run.predicted[0])),
        )
        return [warning]
    labels = set(run.gold)
    rows = zip(run.predicted, run.correct, strict=True)
    others = [answer for answer, correct in rows if not correct and answer not in {*labels, NOT_FOUND}]
    if "unparsed" in run.facts or len(labels) > min(MOST_LABELS, len(run.rows) / 2):
        return []
    if len(others) <= len(run.rows) / 2:
        return []
    warning = _(
        "{model}: {count:,} of {total:,} answers are none of the expected ones ({examples}); "
        "write them as the expected ones to compare them",
        model=run.model,
        count=len(others),
        total=len(run.rows),
        examples=joined(map(show_value, list(dict.fromkeys(others))[:2])),
    )
    return [warning]


def _check_same(run: ScoredRun, first: ScoredRun) -> None:
    """`RequestError` if the run has other rows, expected answers or clusters than the first."""
    both = listed([relative(run.source), relative(first.source)])
    data, other_data = _hash(run, "data"), _hash(first, "data")
    if data and other_data and data != other_data:
        raise RequestError(
            _(
                "{both} were scored on different data ({data} and {other_data})",
                both=both,
                data=data[:16],
                other_data=other_data[:16],
            )
        )
    if run.rows != first.rows:
        only_in_one = sorted(set(first.rows) ^ set(run.rows), key=lambda row: (len(row), row))
        raise RequestError(
            _(
                "{both}: {count:,} and {others}; only one has row {rows}; score both on the same "
                "rows to compare them",
                both=both,
                count=len(run.rows),
                others=counted(len(first.rows), "row", "rows"),
                rows=_first_rows(only_in_one),
            )
        )
    for row, gold, first_gold in zip(run.rows, run.gold, first.gold, strict=True):
        if gold != first_gold:
            answers = listed([show_value(gold), show_value(first_gold)])
            raise RequestError(
                _(
                    "{both}: row {row} has different expected answers ({answers}): score both on the "
                    "same file",
                    both=both,
                    row=row,
                    answers=answers,
                )
            )
    if run.groups != first.groups:
        raise RequestError(
            _("{both}: the same rows are in different groups; score both with the same --cluster", both=both)
        )


def pairing_warnings(runs: RunsByDataset) -> list[str]:
    """One warning for all runs that do not name their data: only rows and expected answers pair them."""
    paired = [run for by_model in runs.values() if len(by_model) > 1 for run in by_model.values()]
    unnamed = [run for run in paired if not _hash(run, "data")]
    if not unnamed:
        return []
    warning = _(
        "{count} of {total} runs do not name their data (the first: {source}): "
        "paired by row and expected answer alone",
        count=len(unnamed),
        total=len(paired),
        source=relative(unnamed[0].source),
    )
    return [warning]


def _hash(run: ScoredRun, name: str) -> str:
    return str(run.facts.get("hashes", {}).get(name) or "")


def _settings(run: ScoredRun) -> dict[str, object]:
    """The settings besides the weights that may change an answer."""
    settings: dict[str, object] = {}
    for key in ("mode", "device", "dtype"):
        if key in run.facts:
            settings[key] = run.facts.get(key)
    recorded = run.facts.get("settings", {})
    settings |= {key: value for key, value in recorded.items() if key not in MAY_DIFFER}
    template = _hash(run, "chat_template")
    if template:
        settings["chat template"] = template[:13]
    return settings
