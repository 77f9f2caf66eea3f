"""Questions with choices: in a list, in a column each, or in columns of one letter."""

from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase

from tuneyard.compiler.init.column_statistics import MOST_VALUES, FileStatistics, Leaf
from tuneyard.compiler.init.labels import label_values, whole_number
from tuneyard.compiler.init.proposal import (
    Proposal,
    ProposedColumn,
    ProposedColumns,
    longest_prose,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.rows import Fields
from tuneyard.core.datasets.column_meanings import CHOICE_COLUMN, USUAL_NAMES, WRONG_CHOICE
from tuneyard.core.language.message import _

NEARLY_ALL = 0.95
"""The share of rows with the number of a choice; the compile rejects the others."""


def listed_choices(statistics: FileStatistics) -> Proposal | None:
    """A question or the beginning of a text, a list of choices, and the correct one of them."""
    choices = statistics.called("choices", value_types=["texts"])
    answer = statistics.named(
        (*USUAL_NAMES["chosen letter"], *USUAL_NAMES["chosen text"], "label"), ("text", "number")
    )
    named_question = question_leaf(statistics)
    question = named_question or longest_prose(statistics)
    if choices is None or answer is None or question is None:
        return None
    columns = {
        "question": ProposedColumn(question.path),
        "choices": ProposedColumn(choices.path, "choices"),
        "answer": ProposedColumn(answer.path, "choice"),
    }
    proposal = question_proposal(statistics, _("Questions with choices"), columns, "{question}\n{choices}")
    if named_question is None:
        proposal.guesses.append(
            _("{column} is used as the question: it is the longest text", column=question.path)
        )
    return proposal


def choices_in_columns(statistics: FileStatistics) -> Proposal | None:
    """The beginning of a text or a question, its choices in columns, and the correct one of them."""
    options: Fields = {}
    guesses = []
    answer = statistics.called("chosen text")
    wrong_choices = [leaf for leaf in statistics.leaves.values() if WRONG_CHOICE.fullmatch(leaf.name)]
    if answer is not None and wrong_choices:  # the distractors of SciQ
        choices = [answer, *sorted(wrong_choices, key=lambda leaf: leaf.name)]
        options["sort"] = True
    else:
        choices = _choice_columns(statistics)
        answer = _answer_of(statistics, choices)
        if answer is None:
            return None
        first = _first_number(answer, len(choices))
        if first is not None and not {0, len(choices)}.intersection(label_values(answer)[0]):
            first = int(choices[0].name.endswith("1"))  # as their names count
            guesses.append(
                _(
                    "{column}: its numbers fit a count from 0 and from 1; taken as from {first} "
                    "(`first` at the column is 0 or 1)",
                    column=answer.path,
                    first=first,
                )
            )
        if first:
            options["first"] = first
    columns = {}
    lines = []
    for name, leaf in zip(ascii_lowercase, choices, strict=False):
        columns[name] = ProposedColumn(leaf.path)
        lines.append(f"{name.upper()}. {{{name}}}")
    columns["answer"] = ProposedColumn(answer.path, "choice", {"of": list(columns), **options})
    return _columns_proposal(statistics, columns, lines, answer, guesses)


def _choice_columns(statistics: FileStatistics) -> list[Leaf]:
    """The columns with one choice each, in the order of their numbers or letters; [] if the file has none."""
    leaf_by_sign: dict[str, dict[str, Leaf]] = {}
    for leaf in statistics.leaves.values():
        match = CHOICE_COLUMN.fullmatch(leaf.name)
        if match and leaf.value_type == "text":
            leaf_by_sign.setdefault(match[1], {})[match[2]] = leaf
    for base, leaves in leaf_by_sign.items():
        fewest = 3 if base in ("", "answer") else 2  # two answers are rather to be compared
        signs = "".join(sorted(leaves))
        are_consecutive = any(series.startswith(signs) for series in ("0123456789", "123456789", "abcdefgh"))
        if are_consecutive and len(signs) >= fewest:
            return [leaves[sign] for sign in signs]
    return []


def _answer_of(statistics: FileStatistics, choices: Sequence[Leaf]) -> Leaf | None:
    """The column with the number, the letter or the text of the correct choice, None if there is none."""
    letters = set(ascii_uppercase[: len(choices)])
    for name in (*USUAL_NAMES["chosen letter"], *USUAL_NAMES["chosen number"], *USUAL_NAMES["chosen text"]):
        answer = statistics.named([name], ("text", "number"))
        if answer is None or answer in choices:
            continue
        lettered = sum(rows for value, rows in answer.values.items() if str(value).upper() in letters)
        if _first_number(answer, len(choices)) is not None or lettered > NEARLY_ALL * answer.filled:
            return answer
        rows = zip(statistics.values(answer), *map(statistics.values, choices), strict=True)
        if all(text in texts for text, *texts in rows):
            return answer
    return None


def _first_number(answer: Leaf, count: int) -> int | None:
    """The number of the first of `count` choices, 0 or 1, by nearly all answers; None for others."""
    for first in (0, 1):
        numbers = range(first, first + count)
        rows = sum(rows for value, rows in answer.values.items() if whole_number(value) in numbers)
        if rows > NEARLY_ALL * answer.filled:
            return first
    return None


def _columns_proposal(
    statistics: FileStatistics,
    columns: ProposedColumns,
    lines: Sequence[str],
    answer: Leaf,
    guesses: Sequence[str],
) -> Proposal | None:
    """The proposal for choices in `columns`, which `lines` put into the prompt; None without a question."""
    question = question_leaf(statistics) or statistics.called("beginning")
    if question is None or question is answer:
        return None
    premise = statistics.called("premise")
    all_columns = {"question": ProposedColumn(question.path), **columns}
    proposal = question_proposal(statistics, _("Questions with choices"), all_columns)
    text = ["{question}"]
    if premise is not None and "context" not in proposal.columns:
        proposal.columns["premise"] = ProposedColumn(premise.path)
        text.insert(0, "{premise}")
    proposal.write["instruction"] = "\n".join([*text, *lines])
    proposal.guesses += guesses
    if len(question.values) <= MOST_VALUES and 2 * len(question.values) <= question.filled:
        values = ", ".join(map(str, question.values))
        proposal.guesses.append(
            _(
                "{column} has few values ({values}): ask for it in words in the prompt",
                column=question.path,
                values=values,
            )
        )
    return proposal
