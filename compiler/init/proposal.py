"""A proposed spec in parts, and the parts that proposals of several shapes share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from tuneyard.compiler.chat.message_forms import ASSISTANT, SYSTEM, USER, common_messages, speaker
from tuneyard.compiler.init.column_statistics import CHINESE, PROSE, FileStatistics, Leaf
from tuneyard.compiler.init.labels import Labels
from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.compiler.spec.column_types import KTO_TAG, Beside, column_types
from tuneyard.core.datasets.column_meanings import meaning, usual_name
from tuneyard.core.language.message import _, marked
from tuneyard.core.plugins import guarded
from tuneyard.core.records import PAIR
from tuneyard.core.records.calls import thought

LOOKED_AT_ROWS = 50
NEARLY_ALL = 0.9
"""The share of rows that decides what a file is. The compile rejects the others."""
PROMPTS = ("question", "context", "premise", "hypothesis", "text")
"""The target columns with texts that the model reads."""
ANSWERS = ("answer", "label")
"""The target columns with what it answers."""
TEMPLATES = {"context": "input", "answer": "output", "label": "output", "system": "system"}
"""The part of an alpaca record that a target column fills, besides the instruction."""

ENDS = {
    "unasked": (
        0,
        ASSISTANT,
        marked(
            "{number} of the first {total} conversations begin with the assistant: what it says "
            "before the user is left out, and counted (`unasked: drop`)"
        ),
    ),
    "unanswered": (
        -1,
        USER,
        marked(
            "some conversations end with the user: what follows their last answer is "
            "left out, and counted (`unanswered: drop`)"
        ),
    ),
}
"""The options that leave out messages: where such a message is, who speaks, and the guess that says so."""


class ProposedColumn(NamedTuple):
    """A column of a proposal: the path of its source, its type ("": text, or the label), and further keys."""

    path: str
    type: str = ""
    settings: Mapping[str, object] = {}

    def in_spec(self) -> list[str] | Fields:
        """The column as a spec has it."""
        if not self.type:
            return [self.path]
        return {"names": [self.path], "is": self.type, **self.settings}


ProposedColumns = dict[str, ProposedColumn]
"""Columns of a proposal by their name in the spec."""


@dataclass
class Proposal:
    """A spec in parts: its subject, its columns, the templates of its one output, its labels.

    `guesses` are sentences about choices that the file does not prove. `turns` are the columns of a table
    with one message a row.
    """

    about: str
    columns: ProposedColumns
    write: dict[str, str]
    labels: Labels = field(default_factory=dict)
    guesses: list[str] = field(default_factory=list)
    turns: dict[str, str] = field(default_factory=dict)

    def prompts(self, statistics: FileStatistics) -> dict[str, Leaf]:
        """The leaves of the texts that the model reads, by target column."""
        return {name: statistics.leaves[self.columns[name].path] for name in PROMPTS if name in self.columns}

    def answer(self, statistics: FileStatistics) -> Leaf | None:
        """The leaf of the answer or the label, None without one."""
        for name in ANSWERS:
            if name in self.columns:
                return statistics.leaves[self.columns[name].path]
        return None


def alpaca_output(instruction: str, columns: ProposedColumns) -> dict[str, str]:
    """The format and the templates of an output. A part without a column is left out."""
    write = {"format": "alpaca", "instruction": instruction}
    for name, registry_key in TEMPLATES.items():
        if name in columns:
            write[registry_key] = f"{{{name}}}"
    return write


def columns_beside(statistics: FileStatistics, *, conversations: bool) -> ProposedColumns:
    """The columns that the column types recognise next to conversations, or next to questions with answers.

    An answer of a pair has no mark.
    """
    columns: ProposedColumns = {}
    feedback: ProposedColumns = {}
    for column_type in column_types().values():
        beside = column_type.beside
        if beside is None or not (beside.conversations if conversations else beside.questions):
            continue
        if statistics.user_columns and column_type.placeholder():
            continue  # the model reads the named columns alone
        with guarded(column_type.plugin):
            source = _source_of(beside, statistics)
        if not source:
            continue
        proposed = ProposedColumn(source, column_type.name, beside.settings)
        if column_type.compared == KTO_TAG:
            feedback[column_type.registry_key] = proposed
            continue
        columns[column_type.name] = proposed
    if PAIR[0] not in columns:
        columns |= feedback
    return columns


def _source_of(beside: Beside, statistics: FileStatistics) -> str:
    """The source column next to messages or a question that a column type takes, "" if the file has none."""
    columns = {usual_name(column): column for column in sorted(statistics.filled_columns())}
    if not columns.keys() >= set(beside.needs):
        return ""
    for name in beside.names:
        column = columns.get(name)
        if not column:
            continue
        values = [row.get(column) for row in statistics.first]
        other_values = [value for value in values if value is not None]
        if len(other_values) >= NEARLY_ALL * len(values):  # an odd row is the compile's to reject
            values = other_values
        if beside.accepts(name, values):
            return column
    return ""


def system_column(statistics: FileStatistics) -> ProposedColumns:
    """The column of the system text, {} if the file has none."""
    leaf = statistics.called("system")
    if leaf is None:
        return {}
    return {"system": ProposedColumn(leaf.path, "extra")}


def question_leaf(statistics: FileStatistics) -> Leaf | None:
    """The question by the user's choice or by its name."""
    return statistics.user_leaf("text") or statistics.called("question") or statistics.named_like("question")


def longest_prose(statistics: FileStatistics, besides: Leaf | None = None) -> Leaf | None:
    """The leaf with the most text, if it is prose and not a word or a number."""
    texts = [
        leaf
        for leaf in statistics.leaves.values()
        if leaf is not besides and is_prose(statistics, leaf) and not meaning(leaf.path)
    ]
    longest = max(texts, key=lambda leaf: leaf.length, default=None)
    if longest is None or longest.length < PROSE * statistics.rows:
        return None
    return longest


def is_prose(statistics: FileStatistics, leaf: Leaf) -> bool:
    """True if most values of a column are sentences, and no words, ids or dates."""
    if leaf.value_type != "text" or leaf.length < PROSE * leaf.filled:
        return False
    values = islice(statistics.each_value(leaf), LOOKED_AT_ROWS)
    texts = [value for value in values if isinstance(value, str) and value]
    prose = [text for text in texts if CHINESE.search(text) or (" " in text and not text[:4].isdigit())]
    return 2 * len(prose) > len(texts)


def is_free_text(statistics: FileStatistics, leaf: Leaf) -> bool:
    """True for prose of which most values differ."""
    return 2 * len(leaf.hashes) > statistics.rows and is_prose(statistics, leaf)


def context_leaf(statistics: FileStatistics) -> Leaf | None:
    """The text or texts that a question is about: the user's second one, that of a usual name, or prose."""
    context = statistics.user_leaf("text2") or statistics.called("context", value_types=("text", "texts"))
    if context is None and not statistics.user_columns:
        context = statistics.called("text", "summarized")
        if context is not None and context.characters < PROSE * statistics.rows:
            return None
    return context


def question_proposal(
    statistics: FileStatistics, about: str, columns: ProposedColumns, instruction: str = "{question}"
) -> Proposal:
    """A question with an answer or a pair in `columns`. Adds context, system text and the like."""
    guesses: list[str] = []
    has_answer = "answer" in columns
    context = context_leaf(statistics)
    taken = [column.path for column in columns.values()]
    if context is not None and context.path not in taken:
        type_name = "list" if context.value_type == "texts" else "extra"
        columns["context"] = ProposedColumn(context.path, type_name)
        if not context.is_called("context"):
            guesses.append(
                _(
                    "{context} is used as the input of {question}",
                    context=context.path,
                    question=columns["question"].path,
                )
            )
    if has_answer:
        columns |= columns_beside(statistics, conversations=False)
    columns |= system_column(statistics)
    write = alpaca_output(instruction, columns)
    reasoning = statistics.called("reasoning")
    if has_answer and reasoning is not None and reasoning.path not in taken:
        columns["reasoning"] = ProposedColumn(reasoning.path, "extra")
        write["output"] = f"{thought('{reasoning}')}{{answer}}"
    return Proposal(about, columns, write, guesses=guesses)


def messages_in(conversation: object, roles: Mapping[str, str] = {}) -> list[Fields]:
    """The messages of a conversation, [] for anything else. `roles` maps further names of roles."""
    turns = common_messages(conversation, roles)
    return turns if are_objects(turns) else []


def conversation_proposal(
    path: str,
    conversations: Iterable[object],
    roles: Mapping[str, str],
    options: Iterable[str] = ENDS,
    settings: Mapping[str, object] = {},
) -> Proposal:
    """Conversations under a path, with its `settings`, and with those of the `options` that they need.

    `roles` maps further names of roles.
    """
    settings = dict(settings)
    if roles:
        settings["roles"] = roles
    speakers = [
        [name for name in map(speaker, messages_in(conversation, roles)) if name != SYSTEM]
        for conversation in conversations
    ]
    guesses: list[str] = []
    for option in options:
        position, role, template = ENDS[option]
        count = sum(names[position] == role for names in speakers if names)
        if count:
            settings[option] = "drop"
            guesses.append(_(template, number=count, total=len(speakers)))
    columns = {"turns": ProposedColumn(path, "turns", settings)}
    return Proposal(_("Conversations"), columns, {"format": "sharegpt"}, guesses=guesses)
