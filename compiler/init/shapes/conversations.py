"""Conversations: messages, or questions with their answers. Plain texts."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from tuneyard.compiler.chat.message_forms import (
    ASSISTANT,
    ROLES,
    SPEAKER,
    SPEAKERS,
    USER,
    role_and_content,
    speaker,
)
from tuneyard.compiler.init.column_statistics import FileStatistics, Leaf
from tuneyard.compiler.init.labels import author_leaves
from tuneyard.compiler.init.proposal import (
    ENDS,
    Proposal,
    ProposedColumn,
    columns_beside,
    conversation_proposal,
    messages_in,
    system_column,
)
from tuneyard.compiler.init.shapes.pairs import rated_pair
from tuneyard.compiler.rows import Fields, are_objects, walker
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.language.message import _

COMPLETIONS = ("completion", "response", "answer", "output", "ideal")
"""Columns that may answer messages which end with the user."""
_TURN = re.compile(
    rf"^(?:(?:#+ |\*\*).*[?？](?:\*\*)?$|{SPEAKER.pattern}|[\[(]?[qa问答]\d*[\]).、]"
    r"|[^\W\d_][\w .-]{0,24}[ \t]*(?:\([\d:]+\))?[:：](?!//))",
    re.MULTILINE | re.IGNORECASE,
)
"""The beginning of a question, of a message, or of a field with a name: `## Why?`, `Q1.`, `Anna (10:05):`."""
_ASKING = re.compile(r"^(?:#+ |\*\*).*[?？](?:\*\*)?$", re.MULTILINE)
"""A heading that asks, as those of a FAQ. The answers below may be long."""
_MESSAGE = re.compile(
    r"[\[(]?((\d{1,4}[./-]){2}\d{1,4},? +)?\d{1,2}:\d\d(:\d\d)?( ?[ap]\.?m\.?)?[\])]?\s", re.IGNORECASE
)
"""A line of an exported chat: `12/03/2024, 21:15 - Anna: text`, `[10:00] Anna: text`, `00:00:10 Anna`."""
FEW = 3
SAME = 0.95
_FIELD_SIGNS = ("++$++", "|||", "\t", "|", ";")
_TAGGED = re.compile(r"\S+[ \t](.*[ \t])?(O|[BIESM]-\S+)|-DOCSTART-.*")
"""A token and its tag, as in CoNLL's files: `王 B-PER`."""


def conversations(statistics: FileStatistics) -> Proposal | None:
    """Conversations, if a column has messages.

    Messages written as text may be a copy of the others, or of a question and its answer, or its earlier
    messages.
    """
    is_answered = statistics.called("question") and statistics.called("answer")
    candidates = []
    for leaf in statistics.leaves.values():
        if not _has_messages(statistics, leaf) or leaf.is_called("rejected"):
            continue  # of two dialogues the chosen one has the prompt
        if not (leaf.characters and is_answered) or leaf.is_called("question"):
            candidates.append(leaf)
    messages = min(candidates, key=lambda leaf: leaf.characters > 0, default=None)  # lists come first
    return _conversations(statistics, messages.path) if messages else None


def _has_messages(statistics: FileStatistics, leaf: Leaf) -> bool:
    """True for messages, and for questions that are texts of earlier messages, too (BELLE).

    Messages that all end with the user need their answer or a usual name: a model may have written by them.
    """
    is_question = leaf.is_called("question")
    if leaf.value_type != "turns" and not is_question:
        return False
    if not _mostly_end_with_user(statistics.values(leaf)):
        return leaf.value_type == "turns"
    return (
        is_question or any(map(leaf.is_called, ("turns", "exchanges"))) or bool(_completion_path(statistics))
    )


def exchanges(statistics: FileStatistics) -> Proposal | None:
    """Conversations, if a column has lists of questions with their answers (Capybara), or of texts (LIMA)."""
    for name in USUAL_NAMES["exchanges"]:
        values = [row.get(name) for row in statistics.first]
        conversations = list(filter(_are_exchanges, values))
        if 2 * len(conversations) > len(values):
            proposal = _conversations(statistics, name)
            if not are_objects(conversations[0]):
                if "question_id" in statistics.leaves:
                    raise ContentError(
                        _(
                            "{path}: each row has a question_id, and the texts of {column} are questions "
                            "that follow one another (MT-bench), without an answer between them; write "
                            "each row as a list `messages` of turns with `role` (user or assistant) and "
                            "`content`, which spec messages compiles",
                            path=statistics.path,
                            column=name,
                        )
                    )
                proposal.guesses.append(
                    _("the texts of {column} take turns: the first is the user's", column=name)
                )
            return proposal
    return None


def _conversations(statistics: FileStatistics, path: str) -> Proposal:
    """A proposal for the messages under a path, with what the file has next to them."""
    conversations = list(map(walker(path), statistics.first))
    messages = list(chain.from_iterable(map(messages_in, conversations)))
    has_text_with_call = any(message.get("tool_calls") and message.get("content") for message in messages)
    settings = {"calls": "text"} if has_text_with_call else {}
    asks = _mostly_end_with_user(conversations)
    pair = rated_pair(statistics) if asks else {}
    beside = columns_beside(statistics, conversations=True) | pair
    completion = _completion_path(statistics)
    options = list(ENDS)
    if completion and asks:
        beside["completion"] = ProposedColumn(completion, "completion")
        options = ["unasked"]
    elif pair or statistics.called("rejected", value_types=("text", "turns")):
        options = ["unasked"]
    proposal = conversation_proposal(path, conversations, _roles_of_speakers(messages), options, settings)
    proposal.columns |= {**system_column(statistics), **beside}
    return proposal


def _roles_of_speakers(messages: Iterable[Fields]) -> dict[str, str]:
    """The roles of speakers whose names are no roles, such as customer and agent."""
    roles = {}
    for message in messages:
        name = str(message.get(role_and_content(message)[0]))
        role = SPEAKERS.get(name.lower())
        if role and name.lower() not in ROLES:
            roles[name] = role
    return roles


def _completion_path(statistics: FileStatistics) -> str:
    """The path of the assistant's message beside the messages, or of its text; "" if there is none."""
    for leaf in statistics.leaves.values():
        parent, _unused, name = leaf.path.rpartition(".")
        if name == "role" and parent and _is_of_assistant(leaf):
            return parent
    completion = statistics.named(COMPLETIONS, ("text", "turns"))
    return completion.path if completion else ""


def _is_of_assistant(role: Leaf) -> bool:
    """True if a column of roles has the assistant alone, under any of its names."""
    return {ROLES.get(str(value)) for value in role.values} == {ASSISTANT}


def _mostly_end_with_user(conversations: Iterable[object]) -> bool:
    """True if the last message of most conversations is the user's. Values that are none do not count."""
    conversations = list(filter(messages_in, conversations))
    return bool(conversations) and 2 * len(list(filter(_ends_with_user, conversations))) > len(conversations)


def _ends_with_user(conversation: object) -> bool:
    """True if the last message of a conversation is the user's."""
    messages = messages_in(conversation)
    return bool(messages) and speaker(messages[-1]) == USER


def _are_exchanges(value: object) -> bool:
    """True for a list of questions with their answers, or of texts that take turns."""
    messages = messages_in(value) if isinstance(value, list) else []
    return bool(messages) and all(map(speaker, messages))


def plain_text(statistics: FileStatistics) -> Proposal | None:
    """Texts for pretraining, or dialogues in them. A text next to a question is its answer, so it is none."""
    text = statistics.user_leaf("text")
    if text is None:
        text = statistics.called("text", "exchanges")
        if text is None:
            return None
        dialogues = list(filter(messages_in, statistics.values(text)))
        if 2 * len(dialogues) > len(statistics.first):
            return _conversations(statistics, text.path)
        if statistics.called("question") or not text.is_called("text"):
            return None
        _refuse_answers_alone(statistics, text.path)
        _refuse_rows_in_lines(statistics, text.path)
    write = {"format": "text", "text": "{text}"}
    return Proposal(
        _("Plain text for pretraining"),
        {"text": ProposedColumn(text.path)},
        write,
        guesses=list(_messages_of_people(statistics, text.path)),
    )


def _messages_of_people(statistics: FileStatistics, path: str) -> Iterator[str]:
    """Warn of rows that are single messages of a chat, of questions in a text, and of named speakers."""
    authors = author_leaves(statistics)
    lines = [str(row.get(path, "")) for row in statistics.first]
    messages = list(filter(_MESSAGE.match, lines))
    sign = ""
    if authors:
        sign = _("{column} is its author", column=authors[0].path)
    elif 3 * len(messages) > len(lines):
        sign = show_value(messages[0])
    if sign:
        yield (
            _(
                "each row looks like one message of a chat ({sign}), and plain text learns "
                "it alone. To learn answers, write a table with one turn a row: "
                "conversation, role (user or assistant), text",
                sign=sign,
            )
        )
    text = "\n".join(lines)
    count = len(text.splitlines())
    messages = _TURN.findall(text)
    has_assistant = ASSISTANT in {SPEAKERS.get(name.lower()) for name in messages}
    has_questions = len(_ASKING.findall(text)) > FEW
    most = FEW if has_assistant or has_questions else 0.5 * count
    if len(messages) > most:
        yield (
            _(
                "{messages} of {lines} lines look like questions, turns or fields, and plain "
                "text learns them as one text. To learn answers, begin the file with the "
                "first question, and write `Q:` before each question and `A:` before its "
                "answer, or `User:` and `Assistant:`; of fields, write .jsonl with a key for "
                "each",
                messages=len(messages),
                lines=count,
            )
        )


def _refuse_answers_alone(statistics: FileStatistics, path: str) -> None:
    """`ContentError` for an assistant's messages without their questions, as in the output of a batch."""
    role = statistics.leaves.get(f"{path.rpartition('.')[0]}.role")
    if role is not None and _is_of_assistant(role):
        raise ContentError(
            _(
                "{path}: {column} has a model's answers, and no column has what they answer; "
                "add it to each row (the input of a batch has it under the same custom_id), "
                "or learn them as plain text: --text {column}",
                path=statistics.path,
                column=path,
            )
        )


def _refuse_rows_in_lines(statistics: FileStatistics, path: str) -> None:
    """`ContentError` if a .txt is a list, or has objects, labelled texts (fastText), tags or Anki's cards."""
    lines = list(map(str.strip, statistics.lines(path)))
    if all(line.startswith("__label__") for line in lines):
        raise ContentError(
            _(
                "{path}: each line begins with its label (__label__), expected plain text; "
                "write a table: (printf 'label\\ttext\\n'; sed -E '/^#/d; s/^__label__([^ ]+) "
                "+/\\1\\t/' OLD) > NEW.tsv",
                path=statistics.path,
            )
        )
    if str(statistics.first[0].get(path)).startswith("#separator:"):
        raise ContentError(
            _(
                "{path}: each line has the fields of one of Anki's cards, expected plain "
                "text; write a table: grep -v '^#' OLD > NEW.tsv",
                path=statistics.path,
            )
        )
    if statistics.is_txt and all(map(_TAGGED.fullmatch, lines)):
        raise ContentError(
            _(
                "{path}: each line is a token and its tag ({line}), expected plain text; "
                'write a JSON line for each sentence: {{"question": the sentence, "answer": '
                "its entities}}",
                path=statistics.path,
                line=show_value(lines[0]),
            )
        )
    if statistics.is_txt and "".join(lines[:3]).startswith(('[{"', "[{'")):
        raise ContentError(
            _(
                "{path}: one list of objects over its lines, expected plain text; name it .json",
                path=statistics.path,
            )
        )
    for sign in _FIELD_SIGNS if statistics.is_txt else ():
        counts = Counter(line.count(sign) for line in statistics.lines(path))
        ((count, lines_with_it),) = counts.most_common(1)
        if count and lines_with_it >= SAME * len(lines):
            raise ContentError(
                _(
                    "{path}: each line has {count} fields with {sign} between them, expected "
                    "plain text; name it .csv, without comments (#), or write .jsonl with a key "
                    "for each field. To learn whole lines: --text {column}",
                    path=statistics.path,
                    count=count + 1,
                    sign=json.dumps(sign),
                    column=path,
                )
            )
    if sum(line.startswith("{") and line.endswith("}") for line in lines) >= SAME * len(lines):
        if statistics.is_txt:
            raise ContentError(
                _("{path}: each line is an object, expected plain text; name it .jsonl", path=statistics.path)
            )
        raise ContentError(
            _(
                "{path}: {column} has an object as JSON text in each row, expected plain "
                "text; write the objects as rows: jq -c '.{column} | fromjson' OLD > NEW.jsonl",
                path=statistics.path,
                column=path,
            )
        )
