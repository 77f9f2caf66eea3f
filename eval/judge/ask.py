"""Compare runs, and ask further questions about them, without reading a file or printing.

Only runs of the same rows are compared. Other prompts and settings are findings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from tuneyard.core.errors import RequestError, show_value
from tuneyard.core.language.message import _, counted, joined, listed, relative
from tuneyard.core.training.metrics import ACCURACY, SHARE, Metric
from tuneyard.eval.judge.conclusions import (
    Answer,
    Choice,
    ChoiceOnHalf,
    Comparison,
    OtherMetrics,
    Question,
    QuestionResult,
)
from tuneyard.eval.judge.findings import (
    DifferentQuestions,
    DifferentSettings,
    EqualLogProbabilities,
    FewClusters,
    NoCorrectAnswer,
    RefusedRows,
    TrainingNotRecorded,
    UnexpectedAnswers,
    UnnamedData,
    WorstValues,
)
from tuneyard.eval.judge.questions.replicates import (
    Recipes,
    few_seeds,
    with_settings,
    with_trainings,
)
from tuneyard.eval.judge.sections import compare, meaning
from tuneyard.eval.runs.findings import RunFinding, training_findings
from tuneyard.eval.runs.results import BASE
from tuneyard.eval.runs.scored_run import OF_ANSWERS, RunsByDataset, ScoredRun, models_of, question_of

MAY_DIFFER = ("model", "batch_tokens")  # settings that may differ, or that change no answer
FEW_GROUPS = 6  # of fewer clusters the sign test's p is 0.0625 or more, even if all agree
WITH_A_WORST = {SHARE: 1.0, "points": 100.0}
"""Units with a highest value, which is the worst if lower is better. The lowest is 0."""
MOST_LISTED = 5
NOT_FOUND = "[invalid]"  # what lm-evaluation-harness writes for a text without an answer
LOGS = ("choices", "chosen_logp", "rejected_logp", "answer_logp", "loss")
"""Fields with log-probabilities: of labels, of both answers of a pair, of one answer, and of a text."""


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, their comparison with the base, the answers to further questions, and findings."""

    runs: RunsByDataset
    comparison: Comparison
    answers: Sequence[Answer]
    findings: Sequence[RunFinding]

    @property
    def run_list(self) -> list[ScoredRun]:
        """All runs, by dataset and model."""
        return [run for by_model in self.runs.values() for run in by_model.values()]

    @property
    def choices(self) -> Sequence[Choice]:
        """The choice on each dataset, then the one on their mean, which decides. [] if nothing was chosen."""
        for answer in self.answers:
            if isinstance(answer, ChoiceOnHalf):
                return answer.choices
        return []


def compare_runs(
    runs: RunsByDataset,
    questions: Sequence[Question] = (),
    findings: Sequence[RunFinding] = (),
    metric: str = ACCURACY.name,
    decide_on: str = "",
    margin: float | None = None,
    recipes: Recipes = MappingProxyType({}),
    *,
    has_mean: bool = True,
) -> ComparedRuns:
    """Ask the questions about the runs, in their order, then compare all models with the base.

    The base is the model `base`, otherwise the first. `findings` are those of the reading. For the other
    arguments see `compare`. `RequestError` if the runs did not answer the same rows, or cannot answer a
    question.
    """
    every_finding = [*findings, *unnamed_data(runs)]
    for by_model in runs.values():
        every_finding += check_rows(list(by_model.values()))
        every_finding += equal_log_probabilities(list(by_model.values()))
        for run in by_model.values():
            every_finding += refused_rows(run)
        if metric in OF_ANSWERS:
            for run in by_model.values():
                every_finding += wrong_answers(run)
    _check_comparable(runs)
    base = BASE
    if base not in models_of(runs):
        first = models_of(runs)[0]
        base = next((setting for setting, trainings in recipes.items() if first in trainings), first)
    if recipes:
        runs = with_settings(runs, base, recipes)
        every_finding += few_seeds(recipes)
    answers: list[Answer] = []
    for question in questions:
        result = question(runs, base)
        runs, base = result.runs, result.base
        answers.append(result.answer)
    compared_by = meaning(metric, runs)
    for by_model in runs.values():
        for run in by_model.values():
            every_finding += worst_values(run, compared_by)
    comparison = compare(runs, base, decide_on, margin, compared_by, has_mean=has_mean)
    if recipes:
        runs = with_trainings(runs)
    every_finding += _trained_on(runs, compared_by)
    for section in comparison.sections:
        every_finding += section.cautions
    return ComparedRuns(runs, comparison, answers, every_finding)


def _check_comparable(runs: RunsByDataset) -> None:
    """`RequestError` if there are several models, and no two of them answered the same dataset."""
    if len(models_of(runs)) > 1 and all(len(by_model) == 1 for by_model in runs.values()):
        models_by_dataset = []
        for dataset, by_model in runs.items():
            models_by_dataset.append(_("{dataset} ({models})", dataset=dataset, models=joined(by_model)))
        raise RequestError(
            _(
                "nothing to compare: a single model answered each of {datasets}; score two models or "
                "more on the same dataset, and name the folders of both",
                datasets=joined(models_by_dataset),
            )
        )


def other_metrics(runs: RunsByDataset, base: str) -> QuestionResult:
    """Compare with the base in every metric that all runs state and all their examples have.

    table.json has the metrics of each model already.
    """
    every_run: list[ScoredRun] = []
    for by_model in runs.values():
        for run in by_model.values():
            every_run += run.trainings or [run]
    names = [name for name in every_run[0].metrics if all(name in run.metrics for run in every_run)]
    comparisons = {name: compare(runs, base, metric=meaning(name, runs)) for name in names}
    return QuestionResult(runs, base, OtherMetrics(comparisons))


def _trained_on(runs: RunsByDataset, metric: Metric) -> list[RunFinding]:
    """Training examples among the rows. Unchecked sources are listed once for each model."""
    findings: list[RunFinding] = []
    models_of_logs: list[str] = []
    for dataset, by_model in runs.items():
        for model, run in by_model.items():
            findings += training_findings(model, dataset, len(run.rows), run.facts, metric)
            if model != BASE and "model" not in run.facts:  # another tool wrote the answers
                models_of_logs.append(model)
    if models_of_logs:
        findings.append(TrainingNotRecorded(tuple(dict.fromkeys(models_of_logs))))
    return list(dict.fromkeys(findings))


def check_rows(runs: Sequence[ScoredRun]) -> list[RunFinding]:
    """How the prompts of one dataset's runs differ, also their questions.

    `RequestError` if two runs did not answer the same rows; it names them and the difference.
    """
    first, *others = runs
    findings: list[RunFinding] = []
    count = len(set(first.groups or ()))
    if 0 < count < FEW_GROUPS:
        findings.append(FewClusters(first.dataset, count, FEW_GROUPS))
    first_settings = _settings(first)
    questions = [question_of(record) for record in first.records]
    differing_runs: dict[str, list[ScoredRun]] = {}
    differences_by_text: dict[str, tuple[tuple[str, object, object], ...]] = {}
    for run in others:
        _check_same(run, first)
        differences = []
        for name, value in _settings(run).items():
            first_value = first_settings.get(name, value)
            if first_value != value:
                differences.append((name, value, first_value))
        if differences:
            text = repr(differences)
            differences_by_text[text] = tuple(differences)
            differing_runs.setdefault(text, []).append(run)
        for row, record, other in zip(run.rows, run.records, questions, strict=False):
            question = question_of(record)
            if question not in other and other not in question:  # a tool may record it within its template
                findings.append(DifferentQuestions((run.source, first.source), row))
                break
    for text, runs_with_them in differing_runs.items():
        sources = (*(run.source for run in runs_with_them), first.source)
        findings.append(DifferentSettings(sources, differences_by_text[text]))
    return findings


def worst_values(run: ScoredRun, metric: Metric) -> list[RunFinding]:
    """A finding if every row has the worst value of a metric but accuracy, such as ROUGE-L 0."""
    if metric.name in OF_ANSWERS or metric.unit not in WITH_A_WORST:
        return []
    worst = 0.0 if metric.higher else WITH_A_WORST[metric.unit]
    values = [value for value in run.column(metric.name) if value is not None]
    if not values or any(value != worst for value in values):
        return []
    return [WorstValues(run.model, run.dataset, metric.name, worst)]


def refused_rows(run: ScoredRun) -> list[RunFinding]:
    """A finding of rows that a server refused, if there are any."""
    refused = [row for row, record in zip(run.rows, run.records, strict=False) if "refused" in record]
    if not refused:
        return []
    return [RefusedRows(run.model, run.dataset, tuple(refused), len(run.rows))]


def wrong_answers(run: ScoredRun) -> list[RunFinding]:
    """A finding if no answer is correct, or if most answers are none of the few expected ones."""
    if not any(run.correct):
        return [NoCorrectAnswer(run.model, run.dataset, run.gold[0], run.predicted[0])]
    labels = run.labels
    rows = zip(run.predicted, run.correct, strict=True)
    others = [answer for answer, correct in rows if not correct and answer not in {*labels, NOT_FOUND}]
    if "unparsed" in run.facts or not labels:
        return []
    if len(others) <= len(run.rows) / 2:
        return []
    examples = tuple(dict.fromkeys(others))[:2]
    return [UnexpectedAnswers(run.model, len(others), len(run.rows), examples)]


def equal_log_probabilities(runs: Sequence[ScoredRun]) -> Iterator[EqualLogProbabilities]:
    """Yield a finding for each pair of runs of one dataset whose log-probabilities are bit-equal.

    They are one model, or one of them was not loaded: another weight changes log-probabilities in their last
    digits, even if every answer stays. Runs of one adapter under two names are equal for a good reason.
    """
    logs = {run.model: _log_probabilities(run) for run in runs}
    for one, other in combinations(runs, 2):
        if not logs[one.model] or logs[one.model] != logs[other.model] or _is_same_adapter(one, other):
            continue
        adapted, reference = other, one
        if other.model == BASE:
            adapted, reference = one, other
        folders = tuple(map(str, adapted.facts.get("adapters", {}).values()))
        yield EqualLogProbabilities(one.dataset, adapted.model, reference.model, folders)


def _is_same_adapter(one: ScoredRun, other: ScoredRun) -> bool:
    """True if both runs have adapters of the same content and weights."""
    facts = []
    for run in (one, other):
        digests = run.facts.get("hashes", {}).get("adapters", {})
        weights = run.facts.get("weights", {})
        facts.append(sorted((str(digest), str(weights.get(name))) for name, digest in digests.items()))
    return bool(facts[0]) and facts[0] == facts[1]


def _log_probabilities(run: ScoredRun) -> Sequence[object]:
    """The log-probabilities of each row that has some, [] if the run has none.

    Readers of other tools keep the share of the likeliest label. A log may have one share in all rows.
    """
    rows = []
    for record in run.records:
        logs = {name: record[name] for name in LOGS if isinstance(record.get(name), Mapping | float)}
        if logs:
            rows.append(logs)
    if rows or not run.confidence or len(set(run.confidence)) == 1:
        return rows
    return [*zip(run.predicted, run.confidence, strict=True)]


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
        rows = only_in_one[:MOST_LISTED]
        if len(only_in_one) > MOST_LISTED:
            rows.append("…")
        raise RequestError(
            _(
                "{both}: {count:,} and {others}; only one has row {rows}; score both on the same "
                "rows to compare them",
                both=both,
                count=len(run.rows),
                others=counted(len(first.rows), "row", "rows"),
                rows=joined(rows),
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


def unnamed_data(runs: RunsByDataset) -> list[RunFinding]:
    """One finding for all runs that do not name their data: only rows and expected answers pair them."""
    paired = [run for by_model in runs.values() if len(by_model) > 1 for run in by_model.values()]
    unnamed = [run for run in paired if not _hash(run, "data")]
    if not unnamed:
        return []
    return [UnnamedData(len(unnamed), len(paired), unnamed[0].source)]


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
