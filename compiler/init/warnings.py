"""Warnings next to a proposal: guesses, columns left out, fields in lines, answers given away."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import cast

from tuneyard.compiler.chat.message_rows import MESSAGES
from tuneyard.compiler.init.column_statistics import FileStatistics, Leaf
from tuneyard.compiler.init.proposal import Proposal, is_prose
from tuneyard.compiler.lint.empty_answers import EMPTY
from tuneyard.compiler.lint.text_keys import plain_text
from tuneyard.compiler.read.split_names import splits_named_in
from tuneyard.compiler.rows import Fields, walker
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.answer_flags import as_number
from tuneyard.core.errors import show_value, show_values
from tuneyard.core.language.message import _, joined

_PROMPT_NAMES = {"prompt", "question", "提示", "提示词", "问题"}
GIVEN_AWAY = 0.5
SHOWN_COLUMNS = 8
LONGEST = 400  # characters of a list of columns
_BELOW = re.compile(r"(?<!\n)\n(?:\n+|(?=#|---|[^\W\d_][\w -]{0,24}[:：](?!//)))(.+)")
_WORD = re.compile(r"[^\s'\",:{}\\]+")
_KIND = re.compile(r"(msg|message)?_?type|消息类型|类型", re.IGNORECASE)
_FRACTION = re.compile(r"-?\d{0,3}\.\d+|[01]|\d(\.\d+)?e-\d+")
_ROLES_TO_REPORT = (
    "question",
    "answer",
    "text",
    "summary",
    "label",
    "choices",
    "rating",
    "feedback",
    "context",
)


def warnings_of(statistics: FileStatistics, proposal: Proposal, left_out: Sequence[Leaf]) -> Iterator[str]:
    """List warnings before a compile: guesses, columns left out, fields in lines, leaked answers."""
    if statistics.source.header:
        names = ", ".join(statistics.source.header)
        yield _("the file has no header: the columns {columns} are named by content", columns=names)
    encoding = statistics.source.encoding
    if encoding != "utf-8":
        foreign_words = [word for word in _WORD.findall(str(statistics.first)) if not word.isascii()]
        words = show_value(" ".join(foreign_words))
        yield (
            _(
                "the file is not UTF-8; by its bytes it is taken as {name}, in which its "
                "words are {words}: look at the examples",
                name=encoding,
                words=words,
            )
        )
    if ("file",) in statistics.source.rows.values():
        yield _("each file is a row; leave `rows: file` out of the spec if each line is one")
    yield from _names_of_folders(statistics)
    yield from proposal.guesses
    yield from _lines_in_messages(statistics)
    if proposal.turns:
        yield from _kinds_of_messages(statistics)
    if left_out:  # prose, lists and known roles
        yield (
            _(
                "not used: {names}. If the model should read or answer with one of them, "
                "name it with --text, --label or --answer (also lists), or add it to the "
                "spec; marks of good and bad answers go there with `is: kto`",
                names=first_names([leaf.with_kind for leaf in left_out]),
            )
        )
    yield from _words_for_nothing(statistics, proposal)
    yield from _answers_given_away(statistics, proposal)


def _names_of_folders(statistics: FileStatistics) -> Iterator[str]:
    """Name the folders in a folder: their names may be classes, or splits that are read as one."""
    names = statistics.folder_names
    if len(names) > 1:
        yield (
            _(
                "the names of the folders are left out: {names}. If they are classes, write "
                "a table with a text and a class in each row",
                names=first_names(names),
            )
        )
    held_out = [name for name in names if set(splits_named_in(name)) - {TRAIN_SPLIT}]
    if held_out:
        yield (
            _(
                "the files of {held_out} are in {train_split}, as all others: list the "
                "folders of each split in the spec, under `files:` and `splits:` of `source:`",
                held_out=", ".join(held_out),
                train_split=TRAIN_SPLIT,
            )
        )


def _lines_in_messages(statistics: FileStatistics) -> Iterator[str]:
    """Warn of lines of a .txt that may be headings: below a message they are learned as a part of it."""
    if ("turns",) not in statistics.source.rows.values():
        return
    lines = []
    for row in statistics.first:
        for message in cast("list[Fields]", row[MESSAGES]):
            lines += _BELOW.findall(str(message["content"]))
    if lines:
        yield (
            _(
                "{number} lines below a turn follow a blank line, or begin with #, --- or a "
                "name and a colon, the first is {line}; they are learned as a part of the "
                "turn: delete headings, rules, notes and further speakers",
                number=len(lines),
                line=show_value(lines[0]),
            )
        )


def _kinds_of_messages(statistics: FileStatistics) -> Iterator[str]:
    """Name the column of an export that says which messages are pictures, links or calls."""
    for leaf in statistics.leaves.values():
        if _KIND.fullmatch(leaf.name) and len(leaf.values) > 1:
            yield (
                _(
                    "{name} has the values {values}: messages that are no text, such as "
                    "pictures, are learned as text; take them out of the file",
                    name=leaf.path,
                    values=show_values(leaf.values),
                )
            )


def unused_leaves(statistics: FileStatistics, proposal: Proposal, spec: Spec) -> list[Leaf]:
    """The fields of the rows that the spec does not use."""
    names = list(proposal.turns.values())
    for column in spec.columns:
        names += column.names
    used_paths = set(map(str.lower, names))
    return [
        leaf
        for leaf in statistics.leaves.values()
        if used_paths.isdisjoint(accumulate(leaf.path.lower().split("."), "{}.{}".format))  # a, a.b, a.b.c
    ]


def lost_prompt(statistics: FileStatistics, spec: Spec, unused: Sequence[Leaf]) -> Leaf | None:
    """The column called prompt or question that the spec leaves out, unless what it uses has the same text.

    The first message of a conversation is often in a column of its own.
    """
    used_paths = [name for column in spec.columns for name in column.names]
    for leaf in unused:
        if leaf.value_type != "text" or leaf.name not in _PROMPT_NAMES:
            continue
        rows_without = 0
        rows = 0
        for row, text in zip(statistics.first, statistics.each_value(leaf), strict=True):
            if not isinstance(text, str) or not text.strip():
                continue
            rows += 1
            used_values = [walker(path)(row) for path in used_paths]
            used_text = json.dumps(used_values, ensure_ascii=False, default=str)
            rows_without += json.dumps(text.strip(), ensure_ascii=False)[1:-1] not in used_text
        if 2 * rows_without > rows:
            return leaf
    return None


def first_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    listed: str = joined(names[:SHOWN_COLUMNS])
    if len(listed) > LONGEST:
        listed = f"{listed[:LONGEST]}…"
    if len(names) > SHOWN_COLUMNS:
        return _("{names} and {number} more", names=listed, number=len(names) - SHOWN_COLUMNS)
    return listed


def may_matter(statistics: FileStatistics, proposal: Proposal, leaf: Leaf) -> bool:
    """True if a column may be a part of an example: by its name, as a list, as prose, as files of images,
    or as a mark of it.

    Fractions next to a plain text may be what to answer.
    """
    if leaf.value_type in ("texts", "list", "turns", "several objects"):
        return True
    if not leaf.filled:
        return False
    is_flag = set(map(as_number, leaf.values)) - {None} == {0, 1}
    is_score = proposal.columns.keys() == {"text"} and all(map(_FRACTION.fullmatch, map(str, leaf.values)))
    return (
        any(map(leaf.is_called, _ROLES_TO_REPORT))
        or is_flag
        or is_score
        or statistics.names_media(leaf)
        or is_prose(statistics, leaf)
    )


def _words_for_nothing(statistics: FileStatistics, proposal: Proposal) -> Iterator[str]:
    """Warn of cells of prompts with a word for nothing. Those of answers are W204."""
    for leaf in proposal.prompts(statistics).values():
        words = [value for value in statistics.values(leaf) if value and plain_text(str(value)) in EMPTY]
        if words:
            yield (
                _(
                    "{column} has {values} (number of rows: {number}), which the model reads as "
                    "text: leave these cells empty",
                    column=leaf.path,
                    values=show_values(dict.fromkeys(words)),
                    number=len(words),
                )
            )


def _answers_given_away(statistics: FileStatistics, proposal: Proposal) -> Iterator[str]:
    """Warn if a text of the prompt contains the answer."""
    answer_leaf = proposal.answer(statistics)
    if answer_leaf is None:
        return
    for name, leaf in proposal.prompts(statistics).items():
        is_source = name == "context" or (name == "text" and not proposal.labels)  # a summary is of its text
        if is_source or leaf.value_type != "text":
            continue
        texts = []
        for text, answer in zip(statistics.values(leaf), statistics.values(answer_leaf), strict=True):
            # Short ones, as yes and 是, are in other texts by chance.
            if isinstance(text, str) and isinstance(answer, str) and len(answer.encode()) > 3:
                texts.append((text.lower(), answer.lower()))
        answers = {answer for _unused, answer in texts}
        contained = 0
        for text, answer in texts:
            lists_every_choice = len(answers) > 1 and all(choice in text for choice in answers)
            contained += answer in text and not lists_every_choice
        if contained > GIVEN_AWAY * len(texts):
            yield (
                _(
                    "{column} contains {answer} in {count} of {rows} rows: the model would only "
                    "copy it; leave the column out, or cut the answer from it",
                    column=leaf.path,
                    answer=answer_leaf.path,
                    count=contained,
                    rows=len(texts),
                )
            )
