"""Which model is better than the base, in accuracy or in another metric?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneyard.core.language.number_format import (
    NONE,
    Table,
    interval,
    limits,
    number,
    p_cell,
    percent,
    points_interval,
)
from tuneyard.core.language.translation import tr
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.judge.cells import (
    DIFFERENCES,
    MEASURED,
    difference_cells,
    metric_on_dataset,
    on_dataset,
    translated,
    unit_name,
)
from tuneyard.eval.judge.conclusions import MEAN, Comparison, ModelScore, PairedTest, Section
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.judge.questions.replicates import seed_warnings
from tuneyard.eval.judge.sections import Recipes, compare
from tuneyard.eval.metrics import metric_meaning
from tuneyard.eval.metrics.labels import short
from tuneyard.eval.read.scored_run import RunsByDataset
from tuneyard.eval.statistics.estimate import Estimate, Mean

ACCURACY_NAME = "accuracy"
WIDE = 7  # more columns than this do not fit a screen


@dataclass(frozen=True, slots=True)
class AgainstBase(Question):
    """Compare every model with the base, by accuracy or by the metric `by`.

    The verdict is on the mean, or on the dataset `decide_on`. `margin` is a share. A recipe of `recipes` is
    one candidate: the mean of its models, which are trainings with different seeds.
    """

    by: str = ACCURACY_NAME
    decide_on: str = ""
    margin: float | None = None
    recipes: Recipes = field(default_factory=dict)
    key = "against_base"

    @property
    def metric(self) -> str:
        """The metric compared, "" for accuracy."""
        if self.by == ACCURACY_NAME:
            return ""
        return self.by

    @property
    def warnings(self) -> list[str]:
        """A warning for each recipe of fewer than five trainings."""
        return seed_warnings(self.recipes)

    def answer(self, runs: RunsByDataset, base: str) -> AnsweredQuestion:
        """One record, the whole comparison."""
        metric = meaning(self.by, runs)
        comparison = compare(runs, base, self.decide_on, self.margin, metric, self.recipes)
        return AnsweredQuestion(self, [comparison], runs, base)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Scores and other figures, then the differences of each section."""
        del base  # each comparison names it
        tables: dict[str, Table] = {}
        for comparison in records:
            tables[_heading(comparison)] = scores(comparison)
            tables |= figures(comparison)
            for section in comparison.sections:
                tables |= differences(section)
        return tables

    def json(self, records: Sequence[Any]) -> dict[str, object]:
        """Base, models, and figures and tests of each section."""
        (comparison,) = records
        fields: dict[str, object] = {}
        if not comparison.is_accuracy:
            metric = comparison.metric
            fields = {"metric": metric.name, "unit": metric.unit, "higher_is_better": metric.higher}
        mean = None
        if comparison.mean is not None:
            mean = _section_json(comparison.mean)
        return {
            **fields,
            "base": comparison.base,
            "models": list(comparison.models),
            "sets": {section.name: _section_json(section) for section in comparison.sets},
            "mean": mean,
        }


def meaning(metric: str, runs: RunsByDataset) -> Metric:
    """Unit and direction of a metric, as the runs declare it."""
    facts_by_source = {}
    for by_model in runs.values():
        for run in by_model.values():
            facts_by_source[run.source] = run.facts
    return metric_meaning(metric, facts_by_source)


def scores(comparison: Comparison) -> Table:
    """Every model's figure on every dataset and on average; of accuracy, the majority class's too."""
    names = list(comparison.models)
    if comparison.is_accuracy:
        names = [tr("majority-class baseline"), *names]
    columns = [[_heading(comparison), *names]]
    for section in comparison.sections:
        cells = [_score(section.figures.get(model), comparison.metric) for model in comparison.models]
        if comparison.is_accuracy:
            cells = [_majority(section), *cells]
        columns.append([f"{section_name(section.name)}, n = {section.n:,}", *cells])
    return _turned(columns)


def section_name(name: str) -> str:
    """A dataset's name, or that of the mean in the current language."""
    if name == MEAN:
        return tr(MEAN)
    return name


def _heading(comparison: Comparison) -> str:
    if comparison.is_accuracy:
        return tr("accuracy (95 % interval)")
    metric = comparison.metric
    template = "{name} ({unit}, lower is better), 95 % interval"
    if metric.higher:
        template = "{name} ({unit}, higher is better), 95 % interval"
    return tr(template, name=metric.name, unit=unit_name(metric))


def figures(comparison: Comparison) -> dict[str, Table]:
    """Figures besides accuracy, by caption: macro-F1, calibration, metrics of examples."""
    tables = {
        tr("Macro-F1 of every model on every dataset that has labels."): _macro_f1s(comparison),
        tr("Calibration: how far confidence is from accuracy."): _calibrations(comparison),
        tr("Means of the metrics that are computed for each example."): _example_metrics(comparison),
    }
    return {caption: table for caption, table in tables.items() if table.rows}


def _macro_f1s(comparison: Comparison) -> Table:
    columns = [[tr("macro-F1 (95 % interval)"), *comparison.models]]
    for section in comparison.sets:
        f1s = {model: score.macro_f1 for model, score in section.figures.items()}
        if any(f1s.values()):
            cells = [_share(f1s.get(model)) for model in comparison.models]
            columns.append([section.name, *cells])
    if len(columns) == 1:
        return Table([], [])
    return _turned(columns)


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return NONE
    return interval((estimate.value, estimate.low, estimate.high))


def _calibrations(comparison: Comparison) -> Table:
    rows = []
    for section in comparison.sets:
        for model, score in section.figures.items():
            if score.calibration:
                error, chance = 100 * score.calibration.error, 100 * score.calibration.chance
                name = on_dataset(model, section.name)
                rows.append([name, f"{error:.1f}", f"{chance:.1f}", f"{score.calibration.n:,}"])
    header = translated(["calibration", "ECE, points", "95th percentile if calibrated"])
    return Table([*header, "n"], rows)


def _example_metrics(comparison: Comparison) -> Table:
    """Every metric of examples that results.json declares, a row for each dataset."""
    rows = []
    for section in comparison.sets:
        names: dict[str, None] = {}
        for score in section.figures.values():
            names.update(dict.fromkeys(score.metrics))
        for name in names:
            declared = {model: score.metrics.get(name) for model, score in section.figures.items()}
            fields = next(one for one in declared.values() if one is not None)
            metric = Metric(str(fields.get("unit")), fields.get("higher_is_better") is True, name)
            cells = [_declared_value(declared.get(model)) for model in comparison.models]
            rows.append([metric_on_dataset(metric, section.name), *cells])
    return Table([tr("metric (95 % interval)"), *comparison.models], rows)


def _declared_value(fields: Mapping[str, object] | None) -> str:
    """A value of results.json with its limits, if it has both."""
    if fields is None:
        return NONE
    value = float(str(fields.get("value")))
    ci95 = fields.get("ci95")
    text = number(value)
    if isinstance(ci95, list) and len(ci95) == 2 and None not in ci95:
        text = limits(number, (value, *ci95))
    return f"{text}, n = {fields.get('n')}"


def differences(section: Section) -> dict[str, Table]:
    """Every comparison with the base, then every pair of the others, those of the best model first.

    By caption; of macro-F1 too if the answers are labels.
    """
    best = section.best
    tests = list(section.against_base)
    others = []
    for test in section.between:
        if best is not None and best in (test.model, test.against):
            tests.append(test.seen_from(best))
        else:
            others.append(test)
    tests += others
    caption = "Differences in accuracy on {name}, example by example."
    if section.name == MEAN:
        caption = "Differences in mean accuracy, example by example."
    header = MEASURED
    if section.is_accuracy:
        header = DIFFERENCES
    name = section_name(section.name)
    rows, f1_rows = [], []
    for test in tests:
        rows.append(difference_cells(test, section.metric))
        f1 = test.macro_f1
        if f1 is not None:
            pair = f"{test.model} − {test.against}"
            f1_rows.append([pair, points_interval(f1.value, f1.low, f1.high), p_cell(f1.p)])
    f1_header = translated(["", "difference of macro-F1, points (95 %)", "p"])
    tables = {
        tr(caption, name=name): Table(translated(header), rows),
        tr("Differences in macro-F1 on {name}.", name=name): Table(f1_header, f1_rows),
    }
    return {caption: table for caption, table in tables.items() if table.rows}


def _turned(columns: Sequence[Sequence[str]]) -> Table:
    """Models as rows and datasets as columns; the other way round if there are many datasets."""
    lines = list(columns)
    if len(columns) <= WIDE:
        lines = list(zip(*columns, strict=True))
    header, *rows = lines
    return Table(header, rows)


def _majority(section: Section) -> str:
    if math.isnan(section.majority):
        return NONE
    if not section.majority_label:
        return percent(section.majority)
    return f"{percent(section.majority)} ({short(section.majority_label)})"


def _score(score: ModelScore | None, metric: Metric) -> str:
    if score is None:
        return NONE
    text = metric.interval_text((score.value, score.low, score.high))
    if score.always:
        text += tr(', always "{label}"', label=short(score.always))
    if score.unparsed:
        text += tr(", {count} unparsed", count=score.unparsed)
    if score.trained_on and score.trained_on_at_most:
        text += tr(", trained on up to {count:,}", count=score.trained_on)
    elif score.trained_on:
        text += tr(", trained on {count:,}", count=score.trained_on)
    return text


def _section_json(section: Section) -> dict[str, object]:
    majority = None
    if not math.isnan(section.majority):
        majority = section.majority
    within_margin = []
    if section.margin is not None:
        within_margin = [test.model for test in section.against_top if test.low > -section.margin]
    fields: dict[str, object] = {
        "n": section.n,
        "groups": section.groups,
        "majority": majority,
        "majority_label": section.majority_label or None,
        "models": {model: _score_json(score, section) for model, score in section.figures.items()},
        "comparisons": [paired_test_json(test) for test in (*section.against_base, *section.between)],
        "ship": section.best,
        "margin": section.margin,
        "within_margin": within_margin,
        "decided_by": section.decided_by or None,
        "tied_with": [test.against for test in section.rivals],
    }
    if not section.is_accuracy:
        fields["left_out"] = section.left_out
    return fields


def _score_json(score: ModelScore, section: Section) -> dict[str, object]:
    value_name = "value"
    if section.is_accuracy:
        value_name = "accuracy"
    fields = mean_json(score, value_name)
    fields |= {"trained_on": score.trained_on, "trained_on_at_most": score.trained_on_at_most}
    if score.trainings:
        fields |= {"trainings": list(score.trainings), "seed_deviation": score.seed_deviation}
    if not section.is_accuracy:
        return fields
    macro_f1 = None
    if score.macro_f1 is not None:
        macro_f1 = [score.macro_f1.value, score.macro_f1.low, score.macro_f1.high]
    calibration = None
    if score.calibration is not None:
        calibration = score.calibration.as_json()
    fields |= {"unparsed": score.unparsed, "macro_f1": macro_f1, "calibration": calibration}
    return {**fields, "metrics": dict(score.metrics), "always": score.always}


def mean_json(mean: Mean, value_name: str = "value") -> dict[str, object]:
    """A mean with its interval as table.json has it."""
    return {
        value_name: mean.value,
        "low": finite(mean.low),
        "high": finite(mean.high),
        "stderr": finite(mean.stderr),
        "n": mean.n,
    }


def paired_test_json(test: PairedTest) -> dict[str, object]:
    """A paired test as table.json has it."""
    macro_f1 = None
    if test.macro_f1 is not None:
        macro_f1 = test.macro_f1.as_json()
    return {
        "model": test.model,
        "against": test.against,
        "value": finite(test.value),
        "low": finite(test.low),
        "high": finite(test.high),
        "n": test.n,
        "better": test.better,
        "worse": test.worse,
        "smallest": finite(test.smallest),
        "p": test.p,
        "macro_f1": macro_f1,
        "shrunk": test.shrunk,
    }


def finite(value: float) -> float | None:
    """The number, or None if too few rows give no limit: JSON has no infinity."""
    if math.isfinite(value):
        return value
    return None
