"""Tool calls in generated answers: one pass through an answer, and a reader for each notation.

LLaMA-Factory 0.9.5 writes calls in 13 tool formats (data/tool_utils.py). Its extractors do not read all of
what its formatters write: no call of glm4_moe and minimax2, no tool `get-weather` (default, lfm2), no text
with a colon (gemma4), the number 5 for the text "5" (formats with XML). So the calls are read here. The tests
compare the result with the formatters and, where they are right, with the extractors.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tuneyard.core.files import JsonObject, unique
from tuneyard.core.language.message import _
from tuneyard.core.records.calls import OPEN, Call, WrongValueError, declared, parse_calls, read_strict
from tuneyard.eval.figures.answers import THOUGHT_WORDS
from tuneyard.eval.tools.call_values import (
    LONGEST_NAME,
    PYTHON_TEXT,
    SPACE,
    UnreadableCallError,
    ValueReader,
    python_literal,
)

NOTATIONS = {
    "default": "action",
    "gemma4": "gemma4",
    "glm4": "glm4",
    "glm4_moe": "glm4_moe",
    "lfm2": "lfm2",
    "ling": "tagged",
    "llama3": "bare",
    "minimax1": "minimax1",
    "minimax2": "minimax2",
    "mistral": "bare",
    "qwen": "tagged",
    "qwen3_5": "qwen3_5",
    "seed_oss": "seed_oss",
}
"""The notation of each of LLaMA-Factory's tool formats. A further one is `function`, Llama 3.1's own."""
MOST_FAILURES = 100  # calls in an answer that cannot be read; the answer is invalid after the first
MOST_BEGINNINGS = 20  # places of a text where JSON without marks may begin

THOUGHT_ENDS = dict(THOUGHT_WORDS)
FUNCTION_OPEN = re.compile(
    rf"\s*<function=\s*([^<>\s]{{1,{LONGEST_NAME}}})\s*>?"
)  # seed_oss is trained without >
FUNCTION_END = re.compile(r"\s*</function>")
XML_KEY = re.compile(r"\s*<parameter=([^>\n]+)>")
XML_VALUE_END = re.compile(r"</parameter>(?=\s*(?:<parameter=|</function>))")
LINES_KEY = re.compile(r"\s*<parameter=([^>\n]+)>\n?")
LINES_VALUE_END = re.compile(r"\n?</parameter>(?=\s*(?:<parameter=|</function>))")
INVOKE_OPEN = re.compile(rf'\s*<invoke name="([^"\n]{{1,{LONGEST_NAME}}})">')
INVOKE_END = re.compile(r"\s*</invoke>")
INVOKE_KEY = re.compile(r'\s*<parameter name="([^"\n]+)">')
INVOKE_VALUE_END = re.compile(r'</parameter>(?=\s*(?:<parameter name="|</invoke>))')
PAIRS_OPEN = re.compile(
    rf"\s*+([^\n<>{{}}\[\]]{{1,{LONGEST_NAME}}}?)\s*+(?=<arg_key>|{OPEN}|</tool_call>|\Z)"
)
PAIRS_KEY = re.compile(r"\s*<arg_key>([^<\n]+)</arg_key>\s*<arg_value>")
PAIRS_VALUE_END = re.compile("</arg_value>")
WRAPPING = re.compile(r"\s*(?:```(?:json)?|\")?\s*")
"""What models write around the input of an action, as LLaMA-Factory's prompt does."""
ACTION = re.compile(rf"Action:\s*(\S[^\n]{{0,{LONGEST_NAME}}}?)\s*Action Input:\s*")
PYTHON_CALL = re.compile(rf"\s*([^\s(),=\[\]<>]{{1,{LONGEST_NAME}}})\s*\(\s*")
PYTHON_KEY = re.compile(r"\s*([^\s=,()\"'][^=,()\"']*)=\s*")
PYTHON_TEXT_END = re.compile(
    r"\"(?=\s*(?:,[^=,()\"']+=|\)\s*(?:,\s*[^\s(),=]+\(|\]?\s*(?:<\|tool_call_end\|>|\Z))))"
)
GEMMA_NAME = re.compile(rf"([^{{\s]{{1,{LONGEST_NAME}}})\{{")
BEGUN = re.compile(r'\s*\[?\s*\{\s*"name"\s*:')
LINE_AND_OBJECT = re.compile(r"([^\n]+)\n\s*(?=\{)")


class Answer(NamedTuple):
    """The calls in an answer ([] for none). `valid` is False if a call begins but cannot be parsed."""

    calls: list[Call]
    valid: bool


class CallsAt(NamedTuple):
    """Calls of one notation, and the place in the answer after them."""

    calls: list[Call]
    end: int
    notation: str


def read_answer(
    text: str, tools: str = "", expected: Sequence[Call] = (), tool_format: str | None = None
) -> Answer:
    """Parse the calls in an answer, without its thought and the text around the calls.

    `tools` are those that the prompt declares. XML does not mark texts: a value is one if the data's call
    (`expected`) has a text there, otherwise if the tool's JSON Schema says so. With a `tool_format` calls in
    other notations are not valid, otherwise every notation is read.
    """
    notation = NOTATIONS[tool_format] if tool_format else None
    return CallScanner(text, tools, expected, notation).answer()


def with_arguments(value: object) -> object:
    """Rename `parameters`, as Llama 3 writes them, to `arguments` in the JSON of calls."""
    calls = value if isinstance(value, list) else [value]
    renamed: list[object] = []
    for call in calls:
        if isinstance(call, dict) and "parameters" in call and "arguments" not in call:
            renamed.append({"name": call.get("name"), "arguments": call["parameters"]})
        else:
            renamed.append(call)
    return renamed


def _refuse_constant(name: str) -> None:
    raise ValueError(_("{name} is not JSON", name=name))


DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse_constant)


class CallScanner:
    """Reads one answer from its beginning to its end. Each reader gets the place of a mark of `STARTS`."""

    def __init__(self, text: str, tools: str, expected: Sequence[Call], notation: str | None) -> None:
        self.text = text
        self.schemas = declared(tools)
        self.notation = notation
        self.beginnings = 0
        self.first_word = len(text) - len(text.lstrip())
        self.expected: dict[tuple[str, str], list[object]] = defaultdict(list)
        for name, arguments in expected:
            for key, value in arguments.items():
                self.expected[name, key].append(value)

    def answer(self) -> Answer:
        """All calls that are not in a thought."""
        calls: list[Call] = []
        valid = True
        position, start, failures = 0, 0, 0  # `start` is after the last thought
        while failures < MOST_FAILURES and (mark := MARKS.search(self.text, position)):
            word = mark[0]
            position = mark.end()
            if mark["blank"] is not None:
                continue
            if word in THOUGHT_ENDS:
                thought_end = self.text.find(THOUGHT_ENDS[word], position)
                if thought_end < 0:
                    return Answer(calls if valid else [], valid)
                position = start = thought_end + len(THOUGHT_ENDS[word])
                continue
            if word in THOUGHT_ENDS.values():  # the thought began in the prompt
                calls, valid = [], True
                start = position
                continue
            try:
                if word in STARTS:
                    calls_here = STARTS[word](self, mark.start()) if self._is_start(mark) else None
                else:
                    calls_here = self._without_mark(mark, start)
                    if mark["line"] is None:
                        position = mark.start() + 1
            except UnreadableCallError:
                valid = False
                failures += 1
                continue
            if calls_here is not None:
                position = calls_here.end
                calls += calls_here.calls
                valid = valid and self.notation in (None, calls_here.notation)
        if valid and not calls and self.notation == "lfm2":
            return self._python_without_mark(start)
        return Answer(calls if valid else [], valid)

    def _is_start(self, mark: re.Match[str]) -> bool:
        """True if a mark that is also an ordinary word begins a call."""
        if mark[0] == "Action:":
            return ACTION.match(self.text, mark.start()) is not None
        if mark[0] == "functools[":
            return mark.start() == self.first_word
        return True

    def read_tool_call(self, start: int) -> CallsAt:
        """JSON (qwen, ling), XML (qwen3_5) or a name and pairs (glm4_moe) after `<tool_call>`."""
        place = self._after_space(start + len(OPEN))
        if self.text.startswith(("{", "["), place):
            calls, end = self._json_calls(place)
            place = self._after_space(end)
            if place < len(self.text) and not self.text.startswith("</tool_call>", place):
                raise UnreadableCallError
            return CallsAt(calls, place, "tagged")
        if self.text.startswith("<function=", place):
            return self.read_function(place)
        return self._pairs(place)

    def read_function(self, start: int) -> CallsAt:
        """`<function=NAME>` with parameters in lines (qwen3_5) or an object (Llama 3.1)."""
        return self._function(start, LINES_KEY, LINES_VALUE_END, "qwen3_5")

    def read_seed(self, start: int) -> CallsAt:
        """`<seed:tool_call>` with functions like those of qwen3_5, without line breaks around values."""
        return self._function(start + len("<seed:tool_call>"), XML_KEY, XML_VALUE_END, "seed_oss")

    def read_invokes(self, start: int) -> CallsAt:
        """Calls of minimax2. LLaMA-Factory writes them without the tag around them."""
        place = start
        if self.text.startswith("<minimax:tool_call>", start):
            place += len("<minimax:tool_call>")
        calls = []
        while opening := INVOKE_OPEN.match(self.text, place):
            name = opening[1]
            arguments, place = self._parameters(name, opening.end(), INVOKE_KEY, INVOKE_VALUE_END)
            place = self._after(INVOKE_END, place)
            calls.append(Call(name, arguments))
        if not calls:
            raise UnreadableCallError
        return CallsAt(calls, place, "minimax2")

    def read_lines(self, start: int) -> CallsAt:
        """Calls of minimax1: an object in each line between `<tool_calls>` tags."""
        place = self._after_space(start + len("<tool_calls>"))
        calls: list[Call] = []
        while self.text.startswith("{", place):
            more, place = self._json_calls(place)
            calls += more
            place = self._after_space(place)
        if not calls or not self.text.startswith("</tool_calls>", place):
            raise UnreadableCallError
        return CallsAt(calls, place, "minimax1")

    def read_marked(self, start: int) -> CallsAt:
        """JSON after Mistral's, Llama's or Phi's mark."""
        place = start
        for mark in ("[TOOL_CALLS]", "<|python_tag|>", "functools"):
            if self.text.startswith(mark, start):
                place = self._after_space(start + len(mark))
        calls, end = self._json_calls(place)
        return CallsAt(calls, end, "bare")

    def read_action(self, start: int) -> CallsAt:
        """Calls of the format `default`: `Action: NAME`, `Action Input: OBJECT`."""
        opening = ACTION.match(self.text, start)
        if opening is None:
            raise UnreadableCallError
        arguments: object = ""
        end = place = self._after(WRAPPING, opening.end())
        if place < len(self.text) and not ACTION.match(self.text, place):
            arguments, end = self._json(place)
        rest = self._after(WRAPPING, end)
        if rest < len(self.text) and not ACTION.match(self.text, rest):
            raise UnreadableCallError
        return CallsAt(_checked([{"name": opening[1], "arguments": arguments}]), rest, "action")

    def read_gemma(self, start: int) -> CallsAt:
        """A call of gemma4: keys without quotes, texts between marks of their own."""
        opening = GEMMA_NAME.match(self.text, start + len("<|tool_call>call:"))
        if opening is None:
            raise UnreadableCallError
        values = ValueReader(self.text)
        arguments, end = values.read_object(opening.end() - 1)
        return CallsAt([Call(opening[1], arguments)], end, "gemma4")

    def read_python(self, start: int) -> CallsAt:
        """Calls of lfm2 as Python writes them, a list of them or a single one."""
        place = start
        if self.text.startswith("<|tool_call_start|>", start):
            place += len("<|tool_call_start|>")
        place = self._after_space(place)
        is_list = self.text.startswith("[", place)
        place += is_list
        calls = []
        while opening := PYTHON_CALL.match(self.text, place):
            arguments, place = self._keywords(opening[1], opening.end())
            calls.append(Call(opening[1], arguments))
            place = self._after_space(place)
            if not (is_list and self.text.startswith(",", place)):
                break
            place += 1
        if is_list:
            place = self._expect("]", place)
        place = self._after_space(place)
        if not calls or (place < len(self.text) and not self.text.startswith("<|tool_call_end|>", place)):
            raise UnreadableCallError
        return CallsAt(calls, place, "lfm2")

    def _python_without_mark(self, start: int) -> Answer:
        """Calls of lfm2 from a server that leaves special tokens out."""
        place = self._after_space(start)
        if not self.text.startswith("[", place):
            return Answer([], True)
        try:
            return Answer(self.read_python(place).calls, True)
        except UnreadableCallError:
            return Answer([], False)

    def _without_mark(self, mark: re.Match[str], start: int) -> CallsAt | None:
        """Calls from here to the end of the answer: JSON (llama3, mistral), or after a name's line (glm4).

        None if there are none. After other text, only calls of declared tools count.
        """
        self.beginnings += 1
        if self.beginnings > MOST_BEGINNINGS:
            return None
        if mark["line"] is not None:
            return self._after_name(mark, start)
        is_first = not self.text[start : mark.start()].strip()
        try:
            calls, end = self._json_calls(mark.start())
            is_last = not self.text[end:].strip()
        except UnreadableCallError:
            is_last = False
        if not is_last:
            if is_first and BEGUN.match(self.text, mark.start()):
                raise UnreadableCallError
            return None
        if not is_first and any(call.name not in self.schemas for call in calls):
            return None
        return CallsAt(calls, end, "bare")

    def _after_name(self, mark: re.Match[str], start: int) -> CallsAt | None:
        """Calls of glm4, each a line with the tool's name and its arguments as JSON."""
        line_start = max(self.text.rfind("\n", start, mark.start()) + 1, start)
        line = self.text[line_start : mark.start()]
        name = self._name_at_end(line)
        if not name and self.notation == "glm4" and not self.text[start:line_start].strip():
            name = line.strip()
        if not name:
            return None
        calls: list[Call] = []
        place = self._after_space(mark.start())
        while name:
            arguments, end = self._json(place)
            calls += _checked([{"name": name, "arguments": arguments}])
            place = self._after_space(end)
            following = LINE_AND_OBJECT.match(self.text, place)
            name = ""
            if following:
                name, place = following[1].strip(), following.end()
        if place < len(self.text):
            raise UnreadableCallError
        return CallsAt(calls, place, "glm4")

    def _name_at_end(self, line: str) -> str:
        """The declared tool whose name ends a line, as a word of its own; "" if there is none."""
        line = line.rstrip()
        names = [name for name in self.schemas if line.endswith(name)]
        name = max(names, key=len, default="")
        before = line[: len(line) - len(name)]
        if before and re.match(r"[\w-]", before[-1]):
            return ""
        return name

    def _function(
        self, start: int, key: re.Pattern[str], value_end: re.Pattern[str], notation: str
    ) -> CallsAt:
        """A function in tags, whose arguments are parameters or one object."""
        opening = FUNCTION_OPEN.match(self.text, start)
        if opening is None:
            raise UnreadableCallError
        name = opening[1]
        place = self._after_space(opening.end())
        if self.text.startswith("{", place):
            value, end = self._json(place)
            place = self._after_space(end)
            if place < len(self.text):
                place = self._after(FUNCTION_END, place)
            return CallsAt(_checked([{"name": name, "arguments": value}]), place, "function")
        arguments, place = self._parameters(name, opening.end(), key, value_end)
        place = self._after(FUNCTION_END, place)
        return CallsAt([Call(name, arguments)], place, notation)

    def _pairs(self, place: int) -> CallsAt:
        """A call of glm4_moe. LLaMA-Factory writes it without `</tool_call>`."""
        opening = PAIRS_OPEN.match(self.text, place)
        if opening is None:
            raise UnreadableCallError
        name = opening[1]
        arguments, end = self._parameters(name, opening.end(), PAIRS_KEY, PAIRS_VALUE_END)
        if not arguments and name not in self.schemas and self.notation != "glm4_moe":
            raise UnreadableCallError
        return CallsAt([Call(name, arguments)], end, "glm4_moe")

    def _parameters(
        self, tool: str, place: int, key: re.Pattern[str], value_end: re.Pattern[str]
    ) -> tuple[JsonObject, int]:
        """Arguments whose values are written as they are, each between tags."""
        arguments: JsonObject = {}
        while opening := key.match(self.text, place):
            name = opening[1]
            raw, place = self._text_until(tool, name, opening.end(), value_end)
            if name in arguments:
                raise UnreadableCallError
            if key is LINES_KEY and raw not in self.expected.get((tool, name), ()):
                raw = raw.strip()  # as LLaMA-Factory's extractor of qwen3_5
            arguments[name] = self._typed(tool, name, raw)
        return arguments, place

    def _text_until(self, tool: str, key: str, start: int, end: re.Pattern[str]) -> tuple[str, int]:
        """A value and the place after its end. The expected value may have the end's mark in it."""
        for value in self.expected.get((tool, key), ()):
            if isinstance(value, str) and self.text.startswith(value, start):
                closing = end.match(self.text, start + len(value))
                if closing:
                    return value, closing.end()
        closing = end.search(self.text, start)
        if closing is None:
            raise UnreadableCallError
        return self.text[start : closing.start()], closing.end()

    def _typed(self, tool: str, key: str, raw: str) -> object:
        """The value of an argument that does not show whether it is a text."""
        values = self.expected.get((tool, key), ())
        if raw in values:
            return raw
        if values:
            is_text = all(isinstance(value, str) for value in values)
        else:
            properties = self.schemas.get(tool, {}).get("properties")
            schema = properties.get(key) if isinstance(properties, dict) else None
            is_text = isinstance(schema, dict) and schema.get("type") == "string"
        if is_text:
            return raw
        try:
            return read_strict(raw.strip())
        except ValueError:
            return raw

    def _keywords(self, tool: str, place: int) -> tuple[JsonObject, int]:
        """Keyword arguments of Python, up to the bracket that closes the call."""
        arguments: JsonObject = {}
        values = ValueReader(self.text)
        place = self._after_space(place)
        while not self.text.startswith(")", place):
            opening = PYTHON_KEY.match(self.text, place)
            if opening is None:
                raise UnreadableCallError
            key = opening[1].strip()
            if key in arguments:
                raise UnreadableCallError
            if self.text.startswith('"', opening.end()):
                arguments[key], place = self._python_text(tool, key, opening.end())
            else:
                arguments[key], place = values.read(opening.end())
            place = self._after_space(place)
            if self.text.startswith(",", place):
                place = self._after_space(place + 1)
        return arguments, place + 1

    def _python_text(self, tool: str, key: str, start: int) -> tuple[str, int]:
        """A text in quotes. LLaMA-Factory writes quotes and backslashes in it as they are, Python escapes."""
        raw, end = self._text_until(tool, key, start + 1, PYTHON_TEXT_END)
        if raw in self.expected.get((tool, key), ()):
            return raw, end
        escaped = PYTHON_TEXT.match(self.text, start)
        if escaped and PYTHON_TEXT_END.match(self.text, escaped.end() - 1):
            return python_literal(escaped[0]), escaped.end()
        return raw, end

    def _json_calls(self, start: int) -> tuple[list[Call], int]:
        """The calls in the JSON that begins here, and the place after it."""
        value, end = self._json(start)
        return _checked(with_arguments(value)), end

    def _json(self, start: int) -> tuple[Any, int]:
        try:
            value, end = DECODER.raw_decode(self.text, start)
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise UnreadableCallError from error
        return value, end

    def _after_space(self, place: int) -> int:
        space = SPACE.match(self.text, place)
        return space.end() if space else place

    def _after(self, pattern: re.Pattern[str], place: int) -> int:
        match = pattern.match(self.text, place)
        if match is None:
            raise UnreadableCallError
        return match.end()

    def _expect(self, sign: str, place: int) -> int:
        place = self._after_space(place)
        if not self.text.startswith(sign, place):
            raise UnreadableCallError
        return place + len(sign)


def _checked(value: object) -> list[Call]:
    try:
        return parse_calls(value)
    except WrongValueError as error:
        raise UnreadableCallError from error


STARTS: dict[str, Callable[[CallScanner, int], CallsAt]] = {
    OPEN: CallScanner.read_tool_call,
    "<function=": CallScanner.read_function,
    "<seed:tool_call>": CallScanner.read_seed,
    "<tool_calls>": CallScanner.read_lines,
    "<minimax:tool_call>": CallScanner.read_invokes,
    '<invoke name="': CallScanner.read_invokes,
    "<|tool_call>call:": CallScanner.read_gemma,
    "<|tool_call_start|>": CallScanner.read_python,
    "[TOOL_CALLS]": CallScanner.read_marked,
    "<|python_tag|>": CallScanner.read_marked,
    "functools[": CallScanner.read_marked,
    "Action:": CallScanner.read_action,
}
"""The mark that begins a call, and its reader."""
MARKS = re.compile(
    "|".join(re.escape(mark) for mark in [*STARTS, *THOUGHT_ENDS, *THOUGHT_ENDS.values()])
    + r"|(?P<line>\n\s*+(?=\{))|(?P<blank>\n\s+)"
    + r'|(?:\[\s*)?\{\s*"(?:name|arguments|parameters)"\s*:'
)
"""Where a call, a thought, its end or a JSON object begins. White space (`blank`) begins none."""
