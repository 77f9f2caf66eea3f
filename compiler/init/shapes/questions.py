"""Questions with an answer: text, a number, yes or no, calls of tools. Texts with a summary."""

from collections import Counter
from collections.abc import Sequence

from tuneyard.compiler.init.column_statistics import FileStatistics, Leaf, paths_above
from tuneyard.compiler.init.labels import (
    TRUTH,
    VALUE_TYPES,
    label_leaf,
    named_labels,
)
from tuneyard.compiler.init.proposal import (
    Proposal,
    ProposedColumn,
    alpaca_output,
    columns_beside,
    is_free_text,
    longest_prose,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.init.shapes.labelled import choice_of_words, paired_texts
from tuneyard.compiler.spec.model import TOOLS
from tuneyard.core.datasets.column_meanings import USUAL_NAMES, roles_of_name
from tuneyard.core.language.message import _
from tuneyard.core.records.calls import WrongValueError, parse_calls

SUMMARIZE = {False: "Summarize this text.\n\n{text}", True: "请概括下面的文字。\n\n{text}"}
_OTHER_ANSWERS = USUAL_NAMES["prose answer"]
CHOICES_OF_TASK = "value.choices"
"""The end of the path to Label Studio's choices, which are several if an annotator may choose several."""
TEXTS_OF_TASK = "value.text"
"""The end of the path to the texts that an annotator wrote."""
_ENVELOPE = {*USUAL_NAMES["text"], "answer", "response", "output", "message", "value", "completion", "reply"}
"""Names of the text in an object that wraps an answer: `response.content`, `answers.text`."""
CALLS_AS_ANSWERS = "answers"
"""The column of the calls in APIGen's rows, which have a list of tools next to it."""


def answered_question(statistics: FileStatistics) -> Proposal | None:
    """A question and its answer: text, a list of accepted texts, a number, or true and false."""
    answer = statistics.user_leaf("answer") or _answer_leaf(statistics)
    answer_object = None if statistics.user_columns else _answer_object(statistics, answer)
    answer = answer_object or answer
    if answer is None:
        return None
    is_choice = answer.path.endswith(CHOICES_OF_TASK)
    is_of_task = is_choice or answer.path.endswith(TEXTS_OF_TASK)
    named_question = question_leaf(statistics)
    question = named_question or statistics.called("context")
    is_text = is_free_text(statistics, answer) and label_leaf(statistics) is None
    is_text = is_text or answer is answer_object
    if question is None and (statistics.user_columns or is_of_task or is_text):
        question = statistics.called("text") or longest_prose(statistics, besides=answer)
    if question is None or question is answer:
        return None
    guesses = []
    if answer is answer_object:
        statistics.leaves[answer.path] = answer
        guesses.append(
            _(
                "{column} is an object, which is learned as JSON text; --answer names a part of it instead",
                column=answer.path,
            )
        )
    if named_question is None:
        guesses.append(_("{column} is used as the question: no column is named as one", column=question.path))
    if answer.name in _OTHER_ANSWERS and not statistics.user_columns:
        guesses.append(
            _(
                "{column} is used as the answer to {question}: no column is named as one",
                column=answer.path,
                question=question.path,
            )
        )
    if answer.value_type == "truth value":
        return yes_or_no_question(statistics, question, answer)
    type_name = "answer" if answer.value_type in ("text", "texts") else "any"
    if answer.value_type == "texts" and (is_choice or answer.is_called("label")):
        type_name = "list"
        guesses.append(
            _(
                "{column} is learned with each of its labels on a line: name all in the prompt",
                column=answer.path,
            )
        )
    columns = {
        "question": ProposedColumn(question.path),
        "answer": ProposedColumn(answer.path, type_name),
    }
    proposal = question_proposal(statistics, _("Questions and answers"), columns)
    proposal.guesses += guesses
    values = [value for value in statistics.values(answer) if isinstance(value, list)]
    if type_name == "answer" and any(len(set(map(str, value))) > 1 for value in values):
        proposal.guesses.append(
            _(
                "{column} is a list, of which the first text is learned, as of alternatives; "
                "if they are parts of one answer, write `is: list` for the column, which "
                "joins them",
                column=answer.path,
            )
        )
    return proposal


def two_texts(statistics: FileStatistics) -> Proposal | None:
    """A question and its answer under any names, if exactly two columns have prose that hardly repeats.

    A pair of texts whose label is missing, as in the test split of a benchmark, has no answer.
    """
    if paired_texts(statistics) is not None:
        return None
    texts = [
        leaf
        for leaf in statistics.leaves.values()
        if is_free_text(statistics, leaf) and not leaf.is_called("reasoning")
    ]
    if len(texts) != 2 or texts[1].is_called("question"):
        return None
    question, answer = texts
    columns = {"question": ProposedColumn(question.path), "answer": ProposedColumn(answer.path, "answer")}
    proposal = question_proposal(statistics, _("Questions and answers"), columns)
    proposal.guesses.append(
        _(
            "{column} is used as the answer to {question}: no other column has so much "
            "text. --text and --answer name others",
            column=answer.path,
            question=question.path,
        )
    )
    return proposal


def yes_or_no_question(statistics: FileStatistics, question: Leaf, answer: Leaf) -> Proposal:
    """A question that true and false answer, with the text that it is about (BoolQ)."""
    chinese = question.in_chinese
    labels = named_labels(TRUTH, [], chinese)
    columns = {"question": ProposedColumn(question.path), "label": ProposedColumn(answer.path)}
    prompt = "{question}\n\n" + choice_of_words(labels, chinese)
    proposal = question_proposal(statistics, _("Yes-no questions"), columns, prompt)
    proposal.labels = labels
    return proposal


def _answer_leaf(statistics: FileStatistics) -> Leaf | None:
    """The answer by its name: text if there is one, then truth values or numbers, then lists of texts.

    Without any, a program is the answer, or doccano's `label` of sentences. Short texts under `code` are
    codes of something, as of a diagnosis.
    """
    for value_type in (*VALUE_TYPES, "texts"):
        answer = statistics.called("answer", value_types=[value_type])
        if answer is not None and not (answer.goes_by("target") and answer is label_leaf(statistics)):
            return answer
    answer = statistics.named([CHOICES_OF_TASK, TEXTS_OF_TASK], ["texts"]) or statistics.named_like("answer")
    if answer is not None:
        return answer
    names = _OTHER_ANSWERS
    if statistics.called("reasoning") is not None:
        names = (*names, "content")  # as in a message
    program = statistics.named(names)
    if program is None or not is_free_text(statistics, program) or label_leaf(statistics) is not None:
        return None
    return program


def _answer_object(statistics: FileStatistics, part: Leaf | None) -> Leaf | None:
    """A column called as answers are that holds an object of several values, None if there is none.

    `part` is the answer by its name alone: `output.kpi.a` is a number of a report, `output.judgement` an
    answer. An object around a text, such as `response.content`, is none of its own.
    """
    if part is not None and ("." not in part.path or _is_named_text(part)):
        return None
    values_by_name: dict[str, list[object]] = {}
    for row in statistics.first:
        for name, value in row.items():
            values = values_by_name.setdefault(name, [])
            if value not in (None, ""):
                values.append(value)
    leaves_inside: dict[str, list[Leaf]] = {}
    for leaf in statistics.leaves.values():
        for path in paths_above(leaf.path):
            leaves_inside.setdefault(path, []).append(leaf)
    for name, values in values_by_name.items():
        if not goes_by_answer(name) or not all(isinstance(value, dict) for value in values):
            continue
        inner_leaves = leaves_inside.get(name, [])
        texts = [leaf for leaf in inner_leaves if leaf.value_type in ("text", "texts")]
        is_envelope = (
            any(leaf.name in _ENVELOPE for leaf in texts) or texts == inner_leaves[:1] == inner_leaves
        )
        if inner_leaves and not is_envelope:
            return Leaf(name, value_types=Counter({"object": len(values)}), filled=len(values))
    return None


def _is_named_text(leaf: Leaf) -> bool:
    """True for texts under a name of answers. One letter is no name: `a` is next to `b`."""
    return leaf.value_type in ("text", "texts") and len(leaf.name) > 1


def goes_by_answer(name: str) -> bool:
    """True for a column that is called as answers are."""
    return "answer" in roles_of_name(name)


def summarized_text(statistics: FileStatistics) -> Proposal | None:
    """A text and its summary."""
    text = statistics.called("summarized")
    summary = statistics.called("summary")
    if text is None or summary is None:
        return None
    columns = {"text": ProposedColumn(text.path), "answer": ProposedColumn(summary.path, "answer")}
    return Proposal(_("Texts with a summary"), columns, alpaca_output(SUMMARIZE[text.in_chinese], columns))


def answered_by_calls(statistics: FileStatistics) -> Proposal | None:
    """A question, tools, and calls of them as JSON."""
    question = question_leaf(statistics)
    values = [row.get(CALLS_AS_ANSWERS) for row in statistics.first]
    if question is None or TOOLS not in statistics.filled_columns() or not _are_calls(values):
        return None
    columns = {
        "turns": ProposedColumn(question.path, "turns"),
        "completion": ProposedColumn(CALLS_AS_ANSWERS, "completion", {"tool_calls": True}),
    }
    columns |= columns_beside(statistics, conversations=True)
    return Proposal(_("Questions answered by calls of tools"), columns, {"format": "sharegpt"})


def _are_calls(values: Sequence[object]) -> bool:
    """True if all values are calls of tools. A row may have an empty list: the compile refuses that row."""
    filled_values = [value for value in values if value not in ("[]", [])]
    for value in filled_values:
        try:
            parse_calls(value)
        except WrongValueError:
            return False
    return bool(filled_values)
