"""Turns of conversations (ShareGPT, OpenAI messages) as outputs need them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, cast

from tuneyard.compiler.check.marks import TurnKeys, refuse_masked
from tuneyard.compiler.init.look import FileProfile
from tuneyard.compiler.init.proposal import Proposal, ProposedColumn, columns_beside, system_column
from tuneyard.compiler.kinds import Clean, ColumnReader, FileContext, Kind, Schema, Values, kind_of
from tuneyard.compiler.kinds.turn_forms import (
    ASSISTANT,
    CALL,
    IMAGES,
    OBSERVATION,
    ROLES,
    SYSTEM,
    USER,
    common_turns,
    role_and_content,
)
from tuneyard.compiler.spec.column_meanings import meaning
from tuneyard.compiler.spec.model import Column, Output, Spec
from tuneyard.core.calls import (
    RESULTS,
    WrongValueError,
    call_text,
    encoded_twice,
    function_text,
    only_thought,
    parse_calls,
    thought,
)
from tuneyard.core.datasets import filled
from tuneyard.core.errors import Problem, show_value

OPENAI = {role: role for role in (USER, ASSISTANT, SYSTEM, OBSERVATION)} | {CALL: "function_call"}
ROLE_NAMES: dict[str, Schema] = {
    "roles": {
        "description": "who speaks in these turns, by names of roles that have no other meaning",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"enum": ["user", "assistant", "system", "function_call", "observation"]},
    }
}
"""The option that says who speaks under names that `ROLES` lacks."""
SHAREGPT = OPENAI | {USER: "human", ASSISTANT: "gpt"}
CALL_MARKUP = re.compile(r"tool_call|<function|python_tag|^Action:", re.IGNORECASE | re.MULTILINE)
"""What models write where they call a tool: an answer that is a call already, as text."""


class Turn(NamedTuple):
    """One turn: who speaks (user, assistant, system, call, observation), the text, its number in the row.

    `images` are the paths of images that the content has, one for each `<image>` that they put in the text.
    """

    role: str
    text: str
    number: int = 0
    images: tuple[str, ...] = ()


def keeps(output: Output, *roles: str) -> bool:
    """Whether an output can hold turns of these speakers."""
    return output.format in ("sharegpt", "messages") or output.roles.keys() >= set(roles)


def _files(outputs: Iterable[Output]) -> str:
    """Return the files of outputs, for messages."""
    return ", ".join(output.file for output in outputs)


def read_turns(
    value: list[dict[str, object]],
    keys: TurnKeys,
    without_tools: str = "",
    beside: bool = False,
    *,
    asks: bool = False,
) -> list[Turn]:
    """Return turns in order; `WrongValueError` names the turn that is wrong.

    `keys` says which keys of the turns are left out on purpose, `without_tools` names the outputs that cannot
    hold calls of tools and what they return, `beside` says whether text beside a call is kept with it.

    Results that follow one another become one turn, and reasoning of its own key a thought before its turn.
    After an optional system turn, user (or observation) and assistant (or call) must alternate, and the last
    turn is the assistant's: what LLaMA-Factory's converters ask for. With `asks` the last turn is the user's
    (answers stand elsewhere).
    """
    turns = [_turn(number, item, keys, beside) for number, item in enumerate(value, 1)]
    _order_results(value, turns)
    system, talk = turns[: int(turns[0].role == SYSTEM)], list[Turn]()
    for turn in turns[len(system) :]:
        if turn.role in (CALL, OBSERVATION) and without_tools:
            lost = f"found the {turn.role} of a tool, which this output would make plain text"
            fix = "write sharegpt or messages"
            raise WrongValueError(f"turn {turn.number}: {lost} ({without_tools}); {fix}")
        if talk and turn.role == OBSERVATION == talk[-1].role:
            talk[-1] = talk[-1]._replace(text=f"{talk[-1].text}{RESULTS}{turn.text}")
            continue
        _refuse_order(turn, talk)
        talk.append(turn)
    if not talk:
        raise WrongValueError("found a system turn alone, expected a conversation")
    if asks and len(talk) % 2 == 0:
        raise WrongValueError(
            "the last turn is the assistant's, but the answer is in another column; expected the user's"
        )
    if not asks and len(talk) % 2:
        last = f"the last turn is the {talk[-1].role}'s"
        raise WrongValueError(f"{last}: nothing to learn; expected an assistant's")
    return [*system, *talk]


def read_answer(item: dict[str, object], keys: TurnKeys) -> str:
    """Return the text of one turn alone; `WrongValueError` unless it is the assistant's."""
    turn = _turn(1, item, keys, False)
    refuse_images([turn])
    if turn.role != ASSISTANT:
        raise WrongValueError(f"found {turn.role}, expected an answer of the assistant")
    return turn.text


def _refuse_order(turn: Turn, before: list[Turn]) -> None:
    """Refuse a turn of the wrong side, a call without its result and a result without its call."""
    due = (ASSISTANT, CALL) if len(before) % 2 else (USER, OBSERVATION)
    last = before[-1] if before else None
    if turn.role not in due:
        raise WrongValueError(f"turn {turn.number}: found {turn.role}, expected {due[0]} (turns alternate)")
    if last and last.role == CALL and turn.role == USER:
        raise WrongValueError(f"turn {turn.number}: found user, expected the result of the call before it")
    called = last and (last.role == CALL or CALL_MARKUP.search(last.text))
    if turn.role == OBSERVATION and not called:
        raise WrongValueError(f"turn {turn.number}: found the result of a tool, and no call before it")


def _order_results(value: list[dict[str, object]], turns: list[Turn]) -> None:
    """Give results the order of OpenAI's calls by ids, which no record keeps; others are wrong."""
    for number, item in enumerate(value):
        calls = item.get("tool_calls") if turns[number].role == CALL else None
        after = list(takewhile(lambda turn: turn.role == OBSERVATION, turns[number + 1 :]))
        if not isinstance(calls, list) or not after:
            continue
        due = [call.get("id") for call in calls]
        found = [value[turn.number - 1].get("tool_call_id") for turn in after]
        named = all(found) and all(due)
        if len(found) != len(due) or (named and Counter(map(str, found)) != Counter(map(str, due))):
            shown = ", ".join(map(show_value, found)) if all(found) else f"{len(found)}"
            expected = ", ".join(map(show_value, due)) if named else f"{len(due)}"
            raise WrongValueError(f"turn {number + 1}: found the results {shown}, expected {expected}")
        texts = {str(name): turn.text for name, turn in zip(found, after, strict=True)}
        if named and len(texts) == len(due):
            for at, (name, turn) in enumerate(zip(due, after, strict=True), number + 1):
                turns[at] = turn._replace(text=texts[str(name)])


def _turn(number: int, item: dict[str, object], keys: TurnKeys, beside: bool) -> Turn:
    try:
        role, text = _said(item, keys, beside)
        return Turn(role, text, number, tuple(cast("list[str]", item.get(IMAGES, ()))))
    except WrongValueError as error:
        raise WrongValueError(f"turn {number}: {error}") from error


def unread_keys(value: object) -> set[str]:
    """Return the keys of the turns in a value that hold something and that reading leaves out.

    The value is a list of turns or one turn; anything else has no such keys.
    """
    turns = value if isinstance(value, list) else [value]
    unread: set[str] = set()
    for turn in turns:
        if not isinstance(turn, dict) or len(turn) <= 2:
            continue
        name, content = role_and_content(turn)
        role = ROLES.get(str(turn.get(name)).lower())
        read = {name, content, IMAGES}
        if role == ASSISTANT:
            read.add("tool_calls")
        if role == OBSERVATION:
            read.add("tool_call_id")
        if role in (ASSISTANT, CALL):
            read.update(_reasons(turn))
        unread.update(key for key, each in turn.items() if key not in read and filled([each]))
    return unread


def _said(item: dict[str, object], keys: TurnKeys, beside: bool) -> tuple[str, str]:
    """Return the speaker and the text of a turn; `WrongValueError` for what would be lost of it."""
    name, key = role_and_content(item)
    role, known = ROLES.get(str(item.get(name)).lower()), ", ".join(ROLES)
    if role is None:
        raise WrongValueError(
            f"found the role {show_value(item.get(name))}, expected one of {known} "
            "(`roles:` at the column says who another one is)"
        )
    calls = item.get("tool_calls") if role == ASSISTANT else None
    reasons = _reasons(item) if role in (ASSISTANT, CALL) else {}
    if len(item) > 2:
        _refuse_loss(item, (name, key, *reasons), keys, bool(calls))
    text = _content(item.get(key), key, bool(calls))
    before = thought("\n".join(dict.fromkeys(reasons.values())))
    if before and "<think>" in text:
        raise WrongValueError(f"found reasoning both in {key!r} and beside it, expected it in one place")
    if not calls:
        return role, before + (function_text(text) if role == CALL else text)
    if text.strip() and not only_thought(text) and not beside:
        keep = "`calls: text` at the spec's column of turns keeps both"
        raise WrongValueError(f"{key} beside tool_calls would be lost; {keep}")
    return CALL, call_text(parse_calls(calls), before + text)


def refuse_images(turns: Iterable[Turn]) -> None:
    """Refuse turns with images in their content; `WrongValueError` names the first."""
    for turn in turns:
        if turn.images:
            image = show_value(turn.images[0])
            raise WrongValueError(
                f"turn {turn.number}: found the image {image}, which no column takes; spec media reads images"
            )


def encoded_calls(item: dict[str, object]) -> list[str]:
    """Return the tools whose calls in a turn that was read have arguments encoded as JSON twice."""
    name, key = ("from", "value") if "from" in item else ("role", "content")
    role = ROLES.get(str(item.get(name)).lower())
    if role == CALL:
        return encoded_twice(item.get(key))
    calls = item.get("tool_calls")
    return encoded_twice(calls) if role == ASSISTANT and calls else []


def _reasons(item: dict[str, object]) -> dict[str, str]:
    """Return the reasoning beside a turn's text by its keys, of which servers fill two with the same."""
    found = {key: text for key, text in item.items() if isinstance(text, str) and text}
    found = {key: text for key, text in found.items() if meaning(key) == meaning("reasoning")}
    return {key: text for key, text in found.items() if text == next(iter(found.values()))}


def _content(content: object, key: str, called: bool) -> str:
    """The text of a turn's content, whose parts are joined already (`common_turns`) if all are known."""
    if content is None and called:
        return ""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        types = ", ".join(dict.fromkeys(str(part.get("type") or next(iter(part), "")) for part in content))
        raise WrongValueError(f"found parts ({types}), expected text in {key!r}")
    if not isinstance(content, str):
        raise WrongValueError(f"found {show_value(content)}, expected text in {key!r}")
    return content


def _refuse_loss(item: dict[str, object], own: tuple[str, ...], keys: TurnKeys, called: bool) -> None:
    """Refuse a turn with more than its role, text and reasoning (`own`) in it that changes what it means."""
    taken = (*own, "tool_calls") if called else own
    lost = [key for key, value in item.items() if key not in taken and _means(key, value)]
    lost = [key for key in lost if not keys.is_left_out(key)]
    if lost:
        what = f"{', '.join(lost)} beside {'tool_calls' if called else own[1]}"
        raise WrongValueError(f"{what} would be lost; put it into the text or leave it out")


def _means(key: str, value: object) -> bool:
    """Whether a key of a turn changes what the turn says."""
    return bool((meaning(key) or key == "refusal") and filled([value]))


def cleaned(talk: list[Turn], clean: Clean) -> list[Turn]:
    """Return turns with their texts cleaned; what is said to tools and by them stays."""
    said = (USER, ASSISTANT, SYSTEM)
    return [t._replace(text=str(clean([t.text])[0])) if t.role in said else t for t in talk]


def masking_marks(value: list[dict[str, object]], keys: TurnKeys) -> dict[int, dict[str, object]]:
    """Return the marks that keep turns out of the loss, by the number of the turn."""
    marked = {}
    for number, item in enumerate(value, 1):
        marks = keys.masking(item) if len(item) > 2 else {}
        if marks:
            marked[number] = marks
    return marked


def answers_learned(spec: Spec, output: Output, talk: list[Turn]) -> list[int]:
    """Return the numbers of the turns in a conversation that are learned from one output of a spec.

    Of LLaMA-Factory 0.9.5: data/processor/supervised.py learns every answer and call, feedback.py (KTO) the
    last one, pairwise.py none of the turns before the two answers. Pretraining learns each turn in the text.
    """
    if not spec.writes_turns(output):
        return []
    answers = [turn for turn in talk if turn.role in (ASSISTANT, CALL)]
    if output.format == "text":
        answers = [turn for turn in answers if turn.role in output.roles]
    elif output.format == "alpaca" and output.turns == "first":
        answers = answers[:1]
    numbers = [turn.number for turn in answers]
    for column in spec.columns:
        numbers = kind_of(column.kind).learned_answers(numbers)
    return numbers


class TurnsReader(ColumnReader):
    """Reads the turns of one file's rows.

    `shortened` counts those of which one exchange alone is kept, `without_their_system` those whose system
    turn an output leaves out because the spec says so.
    """

    reads_each = True

    def __init__(self, column: Column, file: FileContext) -> None:
        super().__init__(column, file)
        spec = file.spec
        self.spec = spec
        self.keeps_text_with_calls = any(column.options.get("calls") == "text" for column in spec.columns)
        self.pair = [column for column in spec.columns if kind_of(column.kind).is_pair]
        self.without_tools = _files(o for o in spec.outputs if not keeps(o, CALL, OBSERVATION))
        # as a system text anything may stand there: none is kept, and the spec says so
        anything = spec.has_one_system or "system" in spec.ignore
        outputs = () if anything else spec.outputs
        self.without_system = _files(output for output in outputs if not keeps(output, SYSTEM))
        self.with_own_system = _files(output for output in outputs if spec.has_own_system(output))
        leave_out = [o for o in spec.outputs if spec.has_own_system(o) or not keeps(o, SYSTEM)]
        self.may_leave_out = _files(leave_out) if anything else ""
        self.without_their_system = 0
        self.checks_rows = "system" in spec.kinds and not anything
        self.first = any(output.format == "alpaca" and output.turns == "first" for output in spec.outputs)
        self.shortened = 0
        self.reads_images = bool(spec.named("images"))
        self.completions = [column.name for column in spec.columns if kind_of(column.kind).joins_turns]

    def unfold(self, values: Values) -> Values:
        """Bring conversations into OpenAI's form. A text with a completion is the user's turn."""
        roles = self.column.options.get("roles", {})
        talks = [common_turns(value, roles) for value in values]
        if self._has_completion():
            talks = [[{"role": USER, "content": talk}] if isinstance(talk, str) else talk for talk in talks]
        return talks

    def read(self, value: list[dict[str, object]]) -> list[Turn]:
        """The turns of one row, without the answer that is chosen. `WrongValueError` if a part is lost."""
        keys = self.file.keys_of(self.column)
        if self._ends_with_chosen():
            value = value[:-1]
        talk = read_turns(
            value,
            keys,
            self.without_tools,
            self.keeps_text_with_calls,
            asks=bool(self.pair) or self._has_completion(),
        )
        marked = masking_marks(value, keys)
        if marked:
            self._refuse_masked(marked, talk, keys)
        if not self.reads_images:
            refuse_images(talk)
        if talk[0].role == SYSTEM and talk[0].text.strip():
            self._refuse_system()
            self.without_their_system += bool(self.may_leave_out)
        self.shortened += self.first and len(talk) - (talk[0].role == SYSTEM) > 2
        return cleaned(talk, self.file.clean) if self.spec.clean else talk

    def _has_completion(self) -> bool:
        """Whether the answer is in a column of its own."""
        return any(name in self.file.sources for name in self.completions)

    def _ends_with_chosen(self) -> bool:
        """Whether the turns are taken from the column of the chosen answer, and end with it."""
        if not self.pair:
            return False
        source = self.file.sources.get(self.column.name)
        return source is not None and source == self.file.sources.get(self.spec.named("chosen")[0])

    def _refuse_system(self) -> None:
        """Refuse a system turn that an output would leave out, or that would take the place of its own."""
        found = "turn 1: found a system text"
        if self.without_system:
            lost = f"which this output would leave out ({self.without_system})"
            fix = "write sharegpt or messages, or leave it out by `ignore: [system]`"
            raise WrongValueError(f"{found}, {lost}; {fix}")
        if self.with_own_system:
            other = f"and this output has a `system` of its own ({self.with_own_system})"
            fix = "leave that out, or the turn by `ignore: [system]`"
            raise WrongValueError(f"{found}, {other}; {fix}")

    def _refuse_masked(self, marked: dict[int, dict[str, object]], talk: list[Turn], keys: TurnKeys) -> None:
        """Refuse a row of which an output would teach an answer that is marked as not to be learned."""
        answers: set[int] = set()
        history_can_be_masked = True
        for output in self.spec.outputs:
            learned = answers_learned(self.spec, output, talk)
            answers.update(learned)
            if learned and output.format == "text":
                history_can_be_masked = False
        refuse_masked(marked, sorted(answers), keys, history_can_be_masked=history_can_be_masked)

    def look_at(self, raw: Sequence[Any], values: Sequence[Any], place: Callable[[int], str]) -> None:
        """Warn of calls whose arguments were JSON inside JSON text."""
        for number, talk in enumerate(values):
            if not any(turn.role == CALL for turn in talk):
                continue
            for turn, item in enumerate(raw[number], 1):
                names = encoded_calls(item)
                if names:
                    called = ", ".join(map(show_value, names))
                    message = f"turn {turn}: the arguments of {called} are JSON inside JSON text: unwrapped"
                    self.file.warn(Problem("W220", place(number), message))

    def check_row(self, row: dict[str, Any], place: str) -> dict[str, object]:
        """Refuse a row with two system texts that differ: as a turn, and in a column."""
        del place
        first, text = row[self.column.name][0], row["system"]
        if first.role == SYSTEM and text and str(text).strip() not in ("", first.text.strip()):
            both = f"{show_value(first.text)} as a turn and {show_value(text)} beside the turns"
            raise WrongValueError(f"found two system texts, {both}; a record holds one")
        return {}

    def notes(self) -> list[str]:
        """How many conversations a part is left out of."""
        lines = []
        if self.shortened:
            message = "have more than the first exchange, which alone is written"
            lines.append(f"{self.shortened} conversations {message} (`turns: history` keeps the others)")
        if self.without_their_system:
            why = "the mixture has its own" if self.spec.has_one_system else "`ignore: [system]`"
            left_out = f"whose system turn {self.may_leave_out} leaves out ({why})"
            lines.append(f"{self.without_their_system} conversations {left_out}")
        return lines


class TurnsKind(Kind):
    """Turns of a conversation, with their tools, media, pair or marks in other columns."""

    def propose(self, profile: FileProfile) -> Proposal | None:
        """Conversations, if a column has turns."""
        turns = next((leaf for leaf in profile.leaves.values() if leaf.kind == "turns"), None)
        if turns is None:
            return None
        column: dict[str, object] = {"names": [turns.path], "is": self.name}
        if _has_text_with_calls(profile, turns.path):
            column["calls"] = "text"
        columns: dict[str, ProposedColumn] = {self.name: column}
        columns |= system_column(profile)
        columns |= columns_beside(profile, turns=True)
        return Proposal("Conversations", columns, {"format": "sharegpt"})


def _has_text_with_calls(profile: FileProfile, path: str) -> bool:
    """True if a turn has both text and a tool call."""
    for row in profile.first:
        turns = row.get(path)
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and turn.get("tool_calls") and turn.get("content"):
                return True
    return False


TURNS = TurnsKind(
    "turns",
    {"description": "a list of turns", "type": "array", "minItems": 1, "items": {"type": "object"}},
    options={
        "calls": {
            "description": "text beside a call of a tool in these turns: `text` keeps it before the call. "
            "Without it such a text is an error",
            "const": "text",
        },
        **ROLE_NAMES,
    },
    has_turns=True,
    leaf_types=("turns",),
    init_order=1,
    reader=TurnsReader,
)
