"""A sentence for each finding of reading and judging runs, and how a command prints it."""

from functools import singledispatch

from tuneyard.core.errors import show_value
from tuneyard.core.language.message import Message, _, counted, joined, listed, marked, relative, with_texts
from tuneyard.core.language.messages import say, warn
from tuneyard.core.text.quoting import one_line
from tuneyard.eval.figures.labels import short
from tuneyard.eval.judge import findings as judged
from tuneyard.eval.runs import findings as read

MOST_LISTED = 5


def print_finding(finding: read.RunFinding) -> None:
    """Print a note or a warning on standard error."""
    if isinstance(finding, read.Note):
        say(sentence(finding), to_stderr=True)
    else:
        warn(with_texts(sentence(finding), one_line))


@singledispatch
def sentence(finding: read.RunFinding) -> Message:
    """The finding as a message. `TypeError` for a kind without a sentence."""
    raise TypeError(_("{kind}: expected a finding with a sentence", kind=type(finding).__name__))


@sentence.register
def _held_out_half(finding: read.HeldOutHalf) -> Message:
    return _("note: {path}: a sweep, compared on its held-out half", path=finding.sweep)


@sentence.register
def _chosen_setting(finding: read.ChosenSetting) -> Message:
    return _(
        "note: {folder}: a sweep, its best setting is compared on the half that did not "
        "choose it; table.md has the others",
        folder=finding.sweep,
    )


@sentence.register
def _deciding_score(finding: read.DecidingScore) -> Message:
    return _(
        "note: {path}: the score {score} says which answers are correct; --metric compares {names}",
        path=finding.log,
        score=finding.score,
        names=", ".join(finding.others),
    )


@sentence.register
def _failed_training(finding: read.FailedTraining) -> Message:
    return _("{run}: left out, it failed", run=finding.run)


@sentence.register
def _unfinished_run(finding: read.UnfinishedRun) -> Message:
    return _("{path}: left out, unfinished; resume with --resume", path=finding.folder)


@sentence.register
def _chosen_on_these_rows(finding: read.ChosenOnTheseRows) -> Message:
    return _(
        "{places}: a sweep chose on these rows, so its best is partly lucky; compare its held-out/",
        places=joined(map(relative, finding.folders)),
    )


def _on_dataset(dataset: str, text: Message) -> Message:
    if not dataset:
        return text
    return _("{dataset}: {text}", dataset=dataset, text=text)


@sentence.register
def _trained_on_examples(finding: read.TrainedOnExamples) -> Message:
    where = ""
    if finding.sources:
        where = f" ({', '.join(finding.sources)})"
    template = marked("{model} was trained on {count:,} of these {examples}{where}: {what}")
    if finding.at_most:
        template = marked(
            "{model} was trained on up to {count:,} of these {examples}{where}; "
            "no record says how many of them the training read: {what}"
        )
    if not finding.metric.counts_correct:
        meaning = _("its {metric} on them is that of training", metric=finding.metric.name)
    elif finding.examples == finding.n and not finding.at_most:
        meaning = _("this is training accuracy")
    else:
        meaning = _("its accuracy on them is training accuracy")
    text = _(
        template,
        model=finding.model,
        count=finding.examples,
        examples=counted(finding.n, "example", "examples"),
        where=where,
        what=meaning,
    )
    return _on_dataset(finding.dataset, text)


@sentence.register
def _scored_training_rows(finding: read.ScoredTrainingRows) -> Message:
    text = _(
        "{model} is scored on training rows: {datasets} (a training split) contains {count:,} of these "
        "{examples}, and models that were trained on it have seen them",
        model=finding.model,
        count=finding.examples,
        examples=counted(finding.n, "example", "examples"),
        datasets=listed(finding.training_datasets),
    )
    if finding.drawn:
        text = _("{text}, unless their recipe had this very file with the same val_size and seed", text=text)
    if finding.held_out:
        option = " ".join(f"--dataset {name}" for name in finding.held_out)
        text = _("{text}; score the held-out rows: {option}", text=text, option=option)
    return _on_dataset(finding.dataset, text)


@sentence.register
def _trained_on_same_name(finding: read.TrainedOnSameName) -> Message:
    text = _(
        "{model} was trained on a dataset of this name ({source})",
        model=finding.model,
        source=finding.source,
    )
    return _on_dataset(finding.dataset, text)


@sentence.register
def _checkpoint_chosen_here(finding: read.CheckpointChosenHere) -> Message:
    text = _(
        "{model}: its checkpoint was chosen on these examples ({source}): score others, too",
        model=finding.model,
        source=finding.source,
    )
    return _on_dataset(finding.dataset, text)


@sentence.register
def _training_not_checked(finding: read.TrainingNotChecked) -> Message:
    return _("{model}: training examples not checked: {reason}", model=finding.model, reason=finding.reason)


@sentence.register
def _training_not_recorded(finding: judged.TrainingNotRecorded) -> Message:
    return _(
        "training examples not checked: no log says what {models} was trained on",
        models=joined(finding.models),
    )


@sentence.register
def _unnamed_data(finding: judged.UnnamedData) -> Message:
    return _(
        "{count} of {total} runs do not name their data (the first: {source}): "
        "paired by row and expected answer alone",
        count=finding.unnamed,
        total=finding.runs,
        source=relative(finding.first),
    )


@sentence.register
def _few_clusters(finding: judged.FewClusters) -> Message:
    return _(
        "{dataset}: fewer than {few} clusters ({count} here) cannot show any difference; "
        "score examples of more",
        dataset=finding.dataset,
        few=finding.expected,
        count=finding.clusters,
    )


@sentence.register
def _different_questions(finding: judged.DifferentQuestions) -> Message:
    return _(
        "{both} have different questions, first in row {row}; score both on the same questions",
        both=listed(list(map(relative, finding.sources))),
        row=finding.row,
    )


@sentence.register
def _different_settings(finding: judged.DifferentSettings) -> Message:
    differences = []
    for setting, value, other in finding.differences:
        differences.append(
            _(
                "{setting} {value} and {other}",
                setting=setting,
                value=show_value(value),
                other=show_value(other),
            )
        )
    return _(
        "{both} have different settings: {differing}",
        both=listed(list(map(relative, finding.sources))),
        differing=joined(differences, _("; ")),
    )


@sentence.register
def _worst_values(finding: judged.WorstValues) -> Message:
    return _(
        "{model}: {metric} is {value:g} for every row of {dataset}; read some answers: their form, the "
        "labels or the template may be wrong",
        model=finding.model,
        metric=finding.metric,
        value=finding.value,
        dataset=finding.dataset,
    )


@sentence.register
def _refused_rows(finding: judged.RefusedRows) -> Message:
    rows = list(finding.rows[:MOST_LISTED])
    if len(finding.rows) > MOST_LISTED:
        rows.append("…")
    return _(
        "{model}: the server refused {count:,} of {total:,} rows of {dataset}, counted as unanswered "
        "({rows})",
        model=finding.model,
        count=len(finding.rows),
        total=finding.n,
        dataset=finding.dataset,
        rows=joined(rows),
    )


@sentence.register
def _no_correct_answer(finding: judged.NoCorrectAnswer) -> Message:
    return _(
        "{model}: no answer to {dataset} is correct (expected {expected}, found "
        "{predicted}); read some of them: the form of the answers, the labels or the template may be "
        "wrong",
        model=finding.model,
        dataset=finding.dataset,
        expected=show_value(short(finding.expected)),
        predicted=show_value(short(finding.predicted)),
    )


@sentence.register
def _unexpected_answers(finding: judged.UnexpectedAnswers) -> Message:
    return _(
        "{model}: {count:,} of {total:,} answers are none of the expected ones ({examples}); "
        "write them as the expected ones to compare them",
        model=finding.model,
        count=finding.answers,
        total=finding.n,
        examples=joined(map(show_value, finding.examples)),
    )


@sentence.register
def _equal_log_probabilities(finding: judged.EqualLogProbabilities) -> Message:
    folders = map(relative, finding.adapters or ("ADAPTER",))
    return _(
        "{dataset}: all log-probabilities of {model} and {other} are bit-equal: nothing was learned, or "
        "the adapter was not loaded; if `{command}` shows ΔW = 0, train again, otherwise score again and "
        "read the warnings of loading",
        dataset=finding.dataset,
        model=finding.model,
        other=finding.other,
        command=" ".join(["tuneyard adapter show", *folders]),
    )


@sentence.register
def _few_seeds(finding: judged.FewSeeds) -> Message:
    return _(
        "--replicates {name}: the interval over {count} seeds is wide; train five",
        name=finding.setting,
        count=finding.trainings,
    )


@sentence.register
def _rare_labels(finding: judged.RareLabels) -> Message:
    return _(
        "{dataset}: fewer than {count} examples of {labels}: the interval of macro-F1 may be too narrow",
        dataset=finding.dataset,
        count=finding.expected,
        labels=joined([short(label) for label in finding.labels]),
    )


@sentence.register
def _skewed_difference(finding: judged.SkewedDifference) -> Message:
    return _(
        "{dataset}: a few examples decide the difference (very skewed): its interval may be too narrow",
        dataset=finding.dataset,
    )
