"""A comparison as tables, as Markdown, which reads well in a terminal too, and as JSON for programs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tuneyard.core import version
from tuneyard.core.files import versions
from tuneyard.core.language import catalogue, current, in_english, tr, tr_counted
from tuneyard.core.number_format import (
    NONE,
    Scale,
    Table,
    grid,
    interval,
    limits,
    number,
    p_cell,
    percent,
    points,
    points_interval,
    scale_of,
)
from tuneyard.eval.judge.compared import ComparedRuns
from tuneyard.eval.judge.conclusions import MEAN, Comparison, ModelScore, PairedTest, Section
from tuneyard.eval.judge.question import AnsweredQuestion
from tuneyard.eval.judge.questions.choice import Choice, HeldOutChoice
from tuneyard.eval.judge.questions.label_bias import Calibrate, LabelBias
from tuneyard.eval.judge.questions.replicates import ReplicatedRecipe, Replicates
from tuneyard.eval.judge.questions.slices import BySlices, Slice
from tuneyard.eval.metrics.labels import short
from tuneyard.eval.read.run import ScoredRun
from tuneyard.eval.show.repeats import CAPTION, repeats_table
from tuneyard.eval.show.verdict import headline, section_name, verdict

LEFT_OUT = (
    "The intervals are for these examples and these weights. They leave out what another training seed, "
    "another prompt or other data would change."
)
NUMBERED = "The plots number what no installed font can write (a CJK font would):"
WIDE = 7  # more columns than this do not fit a screen
DIFFERENCES = ("", "difference, points (95 %)", "fixed", "regressed", "p", "minimum detectable effect")
MEASURED = ("", "difference (95 %)", "better", "worse", "p", "minimum detectable effect")
BIAS = "Label bias, fitted on half of the examples: accuracy on the other half"
OTHERS = "Differences in the other metrics of the examples; the verdict rests on accuracy"
BIASES = (
    "",
    "accuracy (95 % interval)",
    "without label bias",
    "label bias, nats",
    "gain over the base, points",
    "gain without label bias, points (95 %)",
    "of it label bias, points (95 %)",
)


def scores(comparison: Comparison) -> Table:
    """Return every model's accuracy on every set and on average, beside the majority class's; of another
    metric its figures."""
    scale = scale_of(comparison.metric)
    columns = [[_heading(comparison), tr("majority-class baseline"), *comparison.models]]
    for section in comparison.sections:
        cells = [_score(section.figures.get(model), scale) for model in comparison.models]
        columns.append([f"{section_name(section.name)}, n = {section.n:,}", _majority(section), *cells])
    if comparison.metric:  # in which the majority class has no figure
        columns = [[head, *cells] for head, _, *cells in columns]
    return _turned(columns)


def _heading(comparison: Comparison) -> str:
    if not comparison.metric:
        return tr("accuracy (95 % interval)")
    meaning = comparison.sets[0].meaning
    told = "{name} ({unit}, lower is better), 95 % interval"
    if meaning.higher:
        told = "{name} ({unit}, higher is better), 95 % interval"
    return tr(told, name=comparison.metric, unit=_unit(meaning.unit))


def figures(comparison: Comparison) -> dict[str, Table]:
    """Return what is known beside accuracy, by caption: macro-F1, calibration, metrics of examples."""
    found = {
        tr("Macro-F1 of every model on every dataset that has labels."): _macro_f1s(comparison),
        tr("Calibration: how far confidence is from accuracy."): _calibrations(comparison),
        tr("Means of the metrics that are computed for each example."): _example_metrics(comparison),
    }
    return {caption: table for caption, table in found.items() if table.rows}


def _macro_f1s(comparison: Comparison) -> Table:
    columns = [[tr("macro-F1 (95 % interval)"), *comparison.models]]
    for section in comparison.sets:
        scores = {model: figure.macro_f1 for model, figure in section.figures.items()}
        if any(scores.values()):
            columns.append([section.name, *(interval(scores.get(model)) for model in comparison.models)])
    return _turned(columns) if len(columns) > 1 else Table([], [])


def _calibrations(comparison: Comparison) -> Table:
    rows = [
        [_on(model, section.name), f"{100 * one.error:.1f}", f"{100 * one.chance:.1f}", f"{one.n:,}"]
        for section in comparison.sets
        for model, figure in section.figures.items()
        if (one := figure.calibration)
    ]
    return _table(["calibration", "ECE, points", "95th percentile if calibrated", "n"], rows)


def _example_metrics(comparison: Comparison) -> Table:
    """Every metric of examples that results.json declares, a line for each dataset."""
    rows = []
    for section in comparison.sets:
        for name in dict.fromkeys(name for figure in section.figures.values() for name in figure.metrics):
            own = {model: one.metrics[name] for model, one in section.figures.items() if name in one.metrics}
            one = next(iter(own.values()))
            told = _metric_on(name, section.name, one.get("unit"), one.get("higher_is_better") is True)
            rows.append([told, *(_measured(own.get(model)) for model in comparison.models)])
    return Table([tr("metric (95 % interval)"), *comparison.models], rows)


def question_tables(compared: ComparedRuns) -> dict[str, Table]:
    """Tables that come before the comparison, by caption: repeats, and every question that was asked."""
    tables: dict[str, Table] = {}
    repeats = repeats_table(compared.runs)
    if repeats:
        tables[tr(CAPTION)] = repeats
    for answer in compared.answers:
        if answer.records:
            caption, table = answer_table(answer, compared.comparison.base)
            tables[caption] = table
    if compared.other_metrics:
        tables[tr(OTHERS)] = metric_differences(compared.other_metrics)
    return tables


def answer_table(answer: AnsweredQuestion, base: str) -> tuple[str, Table]:
    """The caption and table of one answered question."""
    match answer.question:
        case HeldOutChoice():
            (choice,) = answer.records
            examples = tr_counted(choice.n, "example")
            caption = tr("Chosen on {examples}, compared on the others", examples=examples)
            return caption, choice_table(choice)
        case Replicates():
            return tr("Replicates"), replicate_table(answer.records)
        case BySlices(field):
            return tr("By {field}", field=field), slice_table(answer.records, base)
        case Calibrate():
            return tr(BIAS), bias_table(answer.records)
        case question:
            raise TypeError(f"{type(question).__name__} has no table")


def metric_differences(found: Sequence[Comparison]) -> Table:
    """Return every model against the base in several metrics, a row for each dataset and the mean."""
    rows = []
    for section in (section for each in found for section in each.sections):
        where, meaning = section_name(section.name), section.meaning
        named = _metric_on(section.metric, where, meaning.unit, meaning.higher)
        rows += [[named, *_difference(test, section.metric)[:5]] for test in section.against_base]
    return _table(["metric", *MEASURED[:5]], rows)


def _metric_on(name: str, dataset: str, unit: object, higher: bool) -> str:
    told = "{name} on {dataset} ({unit}, lower is better)"
    if higher:
        told = "{name} on {dataset} ({unit}, higher is better)"
    return tr(told, name=name, dataset=dataset, unit=_unit(str(unit)))


def _unit(name: str) -> str:
    """Return one of our units in the current language, one of a plug-in as it is (with braces, maybe)."""
    return catalogue(current()).get(name, name)


def _measured(figure: Mapping[str, object] | None) -> str:
    if figure is None:
        return "–"
    value, ci95 = float(str(figure.get("value"))), figure.get("ci95")
    known = isinstance(ci95, list) and len(ci95) == 2 and None not in ci95
    shown = limits(number, (value, *ci95)) if isinstance(ci95, list) and known else number(value)
    return f"{shown}, n = {figure.get('n')}"


def differences(section: Section) -> dict[str, Table]:
    """Return every comparison with the base, then every pair of the others, those of the best model first, by
    caption; so of macro-F1 where the answers are labels."""
    best, name = section.best, section_name(section.name)
    of_best = [t.seen_from(best) for t in section.between if best and best in (t.model, t.against)]
    others = [test for test in section.between if best not in (test.model, test.against)]
    shown = [*section.against_base, *of_best, *others]
    told = "Differences in accuracy on {name}, example by example."
    if section.name == MEAN:
        told = "Differences in mean accuracy, example by example."
    f1s = [
        [_pair(test), points_interval(f1.value, f1.low, f1.high), p_cell(f1.p)]
        for test in shown
        if (f1 := test.macro_f1)
    ]
    header = MEASURED if section.metric else DIFFERENCES
    found = {
        tr(told, name=name): _table(header, [_difference(test, section.metric) for test in shown]),
        tr("Differences in macro-F1 on {name}.", name=name): _table(
            ["", "difference of macro-F1, points (95 %)", "p"], f1s
        ),
    }
    return {caption: table for caption, table in found.items() if table.rows}


def replicate_table(recipes: Sequence[ReplicatedRecipe]) -> Table:
    """Return each recipe's mean over its trainings against the base; limits over seeds and examples."""
    header = [
        "replicates",
        "trainings",
        "difference from the base, points (95 % over seeds and examples)",
        "p",
        "standard deviation between seeds",
        "standard error of the examples",
    ]
    rows = [
        [
            _on(one.name, one.dataset),
            f"{len(one.models)}",
            points_interval(one.found.value, one.found.low, one.found.high),
            p_cell(one.found.p),
            f"{100 * one.found.between:.1f}",
            NONE if one.found.sampling is None else f"{100 * one.found.sampling:.1f}",
        ]
        for one in recipes
    ]
    return _table(header, rows)


def choice_table(choice: Choice) -> Table:
    """Return every candidate's accuracy on the rows that were chosen on, the best first."""
    rows = [
        [tr("{model} (chosen)", model=model) if model == choice.model else model, percent(one)]
        for model, one in sorted(choice.scores.items(), key=lambda item: -item[1])
    ]
    return _table(["candidate", "mean accuracy there"], rows)


def bias_table(found: Sequence[LabelBias]) -> Table:
    """Return every model's accuracy and gain over the base with and without its label bias."""
    rows = [
        [
            f"{_on(one.model, one.dataset)}, n = {one.raw.n:,}",
            *(interval((rate.value, *rate.ci95)) for rate in (one.raw, one.calibrated)),
            ", ".join(f"{label} {value:+.2f}".replace("-", "−") for label, value in one.bias.items()),
            NONE if one.raw_gain is None else points(one.raw_gain),
            *(
                NONE if part is None else points_interval(part.value, part.low, part.high)
                for part in (one.gain, one.of_bias)
            ),
        ]
        for one in found
    ]
    return _table(BIASES, rows)


def slice_table(slices: Sequence[Slice], base: str) -> Table:
    """Return every model against the base on each slice; limits and p are those of all slices together."""
    rows = [
        [
            tr("{value} of {dataset}, n = {n:,}", value=one.value, dataset=one.dataset, n=one.n),
            f"{test.model} − {base}",
            f"{percent(one.accuracy[test.model])} − {percent(one.accuracy[base])}",
            *_difference(test)[1:5],
        ]
        for one in slices
        for test in one.tests
    ]
    return _table(["slice", "", "accuracy", *DIFFERENCES[1:5]], rows)


def method(section: Section) -> str:
    """Return how p and intervals of a section were computed, in plain sentences."""
    test = tr(" p and intervals come from one test.")
    if section.name == MEAN:
        rows = tr("Every dataset counts alike.")
    elif section.groups is not None:
        examples, clusters = tr_counted(section.n, "example"), tr_counted(section.groups, "cluster")
        rows = tr("{examples} in {clusters}.", examples=examples, clusters=clusters)
        test = tr(" p and intervals come from one test, which takes clusters whole.")
    else:
        rows = tr_counted(section.n, "independent example") + tr(".")
        one_pair = len(section.against_base) == 1 and not section.between
        if one_pair and not section.metric:
            test = tr(" p is that of the mid-p McNemar test.")
    return rows + test + _corrected(len(section.against_base), len(section.between))


def _corrected(against: int, between: int) -> str:
    """Return the sentence on the correction for several comparisons, or "" if there is only one."""
    if against > 1 and between > 1:
        told = (
            " They are corrected for {against} comparisons with the base and {between} among the others "
            "(max statistic)."
        )
        return tr(told, against=against, between=between)
    if against > 1:
        return tr(" They are corrected for {count} comparisons with the base (max statistic).", count=against)
    if between > 1:
        return tr(
            " They are corrected for {count} comparisons among the others (max statistic).", count=between
        )
    return ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table([name and tr(name) for name in header], rows)


def _on(model: str, dataset: str) -> str:
    return tr("{model} on {dataset}", model=model, dataset=dataset)


def _turned(columns: Sequence[Sequence[str]]) -> Table:
    """Models as rows and sets as columns; the other way round where there are many sets."""
    header, *rows = list(zip(*columns, strict=True)) if len(columns) <= WIDE else columns
    return Table(header, rows)


def _majority(section: Section) -> str:
    if math.isnan(section.majority):
        return NONE
    label = f" ({short(section.majority_label)})" if section.majority_label else ""
    return percent(section.majority) + label


def _score(figure: ModelScore | None, scale: Scale) -> str:
    if figure is None:
        return NONE
    unparsed = tr(", {count} unparsed", count=figure.unparsed) if figure.unparsed else ""
    trained = ""
    if figure.trained_on and figure.trained_on_at_most:
        trained = tr(", trained on up to {count:,}", count=figure.trained_on)
    elif figure.trained_on:
        trained = tr(", trained on {count:,}", count=figure.trained_on)
    always = tr(', always "{label}"', label=figure.always) if figure.always else ""
    return scale.interval((figure.value, figure.low, figure.high)) + always + unparsed + trained


def _pair(test: PairedTest) -> str:
    return f"{test.model} − {test.against}"


def _difference(test: PairedTest, metric: str = "") -> list[str]:
    scale = scale_of(metric)
    return [
        _pair(test),
        limits(scale.gain, (test.value, test.low, test.high)),
        f"{test.better:,}",
        f"{test.worse:,}",
        p_cell(test.p),
        scale.size(test.smallest),
    ]


def markdown(comparison: Comparison, numbered: Mapping[str, str]) -> str:
    """Return the whole judgement: scores, then each section's comparisons under its verdict; `numbered`
    is the key of the labels that the plots could not write out."""
    parts = [grid(table) for table in (scores(comparison), *figures(comparison).values())]
    parts += [_section(section, comparison) for section in comparison.sections]
    if numbered:
        key = "\n".join(f"- {number} {short(label)}" for label, number in numbered.items())
        parts.append(f"{tr(NUMBERED)}\n\n{key}")
    return "\n\n".join([*parts, tr(LEFT_OUT)]) + "\n"


def _section(section: Section, comparison: Comparison) -> str:
    decides = section is comparison.mean and not section.decided_by and section.against_base
    whole = [headline(comparison)] if decides else []
    parts = [f"## {section_name(section.name)}", *whole, verdict(section, comparison.base)]
    tables = [grid(table) for table in differences(section).values()]
    return "\n\n".join([*parts, *tables, *([method(section)] if tables else [])])


def to_json(
    comparison: Comparison, runs: Sequence[ScoredRun], warnings: Sequence[str], plots: Sequence[str]
) -> dict[str, object]:
    """Return the comparison as plain JSON values, each section with its decision and verdict; of another
    metric than accuracy its name, unit and direction, too."""
    meaning = comparison.sets[0].meaning
    measured = {"unit": meaning.unit, "higher_is_better": meaning.higher}
    return {
        **({"metric": comparison.metric, **measured} if comparison.metric else {}),
        "base": comparison.base,
        "models": list(comparison.models),
        "sets": {section.name: _section_json(section, comparison.base) for section in comparison.sets},
        "mean": comparison.mean and _section_json(comparison.mean, comparison.base),
        "plots": list(plots),
        "left_out": LEFT_OUT,
        "warnings": [in_english(warning) for warning in warnings],
        "runs": [run.source for run in runs],
        "versions": versions("numpy"),
        "tuneyard": version(),
    }


def _section_json(section: Section, base: str) -> dict[str, object]:
    return {
        "n": section.n,
        "groups": section.groups,
        "majority": None if math.isnan(section.majority) else section.majority,
        "majority_label": section.majority_label or None,
        "models": {model: _figure_json(one, section.metric) for model, one in section.figures.items()},
        "comparisons": [
            _finite(dataclasses.asdict(test)) for test in (*section.against_base, *section.between)
        ],
        "ship": section.best,
        "margin": section.margin,
        "within_margin": [
            test.model
            for test in section.against_top
            if section.margin is not None and test.low > -section.margin
        ],
        "decided_by": section.decided_by or None,
        "tied_with": [test.against for test in section.rivals],
        "verdict": verdict(section, base),
        **({"left_out": section.left_out} if section.metric else {}),
    }


def _figure_json(figure: ModelScore, metric: str) -> dict[str, object]:
    told = dataclasses.asdict(figure)
    value = told.pop("value")
    if metric:
        named = ("low", "high", "stderr", "n", "trained_on", "trained_on_at_most")
        return _finite({"value": value, **{name: told[name] for name in named}})
    return {"accuracy": value, **told}


def _finite(told: Mapping[str, object]) -> dict[str, object]:
    """Return a record with null for limits that so few rows leave open: JSON has no infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in told.items()}
