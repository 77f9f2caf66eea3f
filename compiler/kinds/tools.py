"""Tools that a row declares, and the calls of them in its turns."""

from collections.abc import Mapping
from typing import Any

from tuneyard.compiler.kinds import Beside, ColumnReader, FileContext, Kind, RecordLayout
from tuneyard.compiler.kinds.turn_forms import ASSISTANT, CALL
from tuneyard.compiler.kinds.turns import Turn
from tuneyard.compiler.spec.column import Column
from tuneyard.compiler.spec.model import TOOLS
from tuneyard.core.errors import Problem
from tuneyard.core.records import Example
from tuneyard.core.records.calls import OPEN, Call, WrongValueError, call_errors, calls_of, tools_text


class ToolsReader(ColumnReader):
    """Reads a row's tools as JSON text, and checks the calls in its turns against them."""

    reads_each = True

    def __init__(self, column: Column, file: FileContext) -> None:
        super().__init__(column, file)
        self.checks_rows = bool(file.spec.turns)

    def read(self, value: object) -> str:
        """The tools as a JSON list in text, "" without any."""
        if isinstance(value, list):
            value = [tool for item in value for tool in common_tools(item)]
        return tools_text(value)

    def check_row(self, row: dict[str, Any], place: str) -> dict[str, object]:
        """Refuse calls that do not fit the tools, and warn of calls that may not."""
        talk: list[Turn] = row[self.file.spec.turns]
        tools: str = row[self.column.name]
        calls: list[tuple[int, Call]] = []
        for turn in talk:
            if turn.role == CALL:
                calls += [(turn.number, call) for call in calls_of(turn.text)]
        errors = dict.fromkeys(call_errors(calls, tools))
        is_strict = self.column.options.get("arguments") == "error"
        messages = [error.message for error in errors if error.error or is_strict]
        if messages:
            raise WrongValueError(*messages)
        for error in errors:
            self.file.warn(Problem("W215", place, error.message))
        for turn in talk:
            if turn.role == ASSISTANT and OPEN in turn.text:
                message = f"turn {turn.number}: {OPEN} in an answer: neither checked nor scored as a call"
                self.file.warn(Problem("W216", place, message, "", "give the turn the role function_call"))
        return {}


def common_tools(item: object) -> list[object]:
    """The tools in an item of a list, in OpenAI's form: Gemini's item has several, Anthropic names the schema
    `input_schema`."""
    if not isinstance(item, dict):
        return [item]
    for key in ("functionDeclarations", "function_declarations"):
        if item.keys() == {key} and isinstance(item[key], list):
            tools: list[object] = item[key]
            return tools
    if "input_schema" in item and "parameters" not in item:
        rest = {key: value for key, value in item.items() if key != "input_schema"}
        return [{**rest, "parameters": item["input_schema"]}]
    return [item]


class ToolsKind(Kind):
    """LLaMA-Factory reads tools from one column for all turns of a row."""

    def check(self, column: str, layout: RecordLayout) -> None:
        """Refuse another name of the column, since records call it so."""
        del layout
        if column != TOOLS:
            raise ValueError(f"column {column}: `is: tools` is for the column `{TOOLS}`: rename it")

    def loaded_pairs(self, example: Example, loaded: Mapping[str, Any]) -> list[tuple[object, object]]:
        """The tools as JSON text."""
        return [(example.tools, loaded["_tools"] or "")]


TOOL_LIST = ToolsKind(
    TOOLS,
    {
        "description": "a list of tools, or one as JSON text",
        "type": ["string", "array", "null"],
        "items": {"type": "object"},
    },
    options={
        "arguments": {
            "description": "arguments of calls that do not fit the JSON Schema of these tools: `error` "
            "refuses them. Without it they are a warning",
            "const": "error",
        }
    },
    is_optional=True,
    row_code="E109",
    is_text=True,
    loaded_columns=("_tools",),
    beside=Beside((TOOLS,)),
    reader=ToolsReader,
)
