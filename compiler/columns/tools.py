"""Tools that a row declares, and the calls of them in its messages."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from tuneyard.compiler.chat.message_forms import ASSISTANT, CALL
from tuneyard.compiler.columns.turns import Conversation
from tuneyard.compiler.rows import Fields, without
from tuneyard.compiler.spec.column_types import (
    Beside,
    CodedError,
    Column,
    ColumnReader,
    ColumnType,
    LoadedRow,
    Row,
)
from tuneyard.compiler.spec.model import TOOLS, Spec
from tuneyard.core.errors import show_value, show_values
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _
from tuneyard.core.records import Example
from tuneyard.core.records.calls import (
    OPEN,
    calls_of,
    declared,
    tools_text,
)

UNDECLARED_CALL = ProblemCode(
    "E109",
    _("a call that does not fit the tools of its row"),
    _("Declare the tool in `tools`, or correct the call."),
)
WRONG_ARGUMENTS = ProblemCode(
    "W215",
    _("a call that no tool of its row declares so"),
    _("Correct the call; `arguments: error` makes it an error."),
    _("Its schema refuses the arguments, or the row has no tools."),
)
CALL_IN_TEXT = ProblemCode(
    "W216",
    _("a call of a tool in the text of an answer"),
    _("Give the turn the role `function_call`."),
)


class CallError(NamedTuple):
    """A tool call that does not fit the row's tools. Without `error` it is a warning (an error if strict)."""

    message: str
    error: bool


class ToolsReader(ColumnReader):
    """Reads a row's tools as JSON text, and checks the calls in its messages against them."""

    def prepare(self) -> None:
        """Check calls if there are messages."""
        self.checks_rows = bool(self.spec.conversation_column)

    def read(self, value: object) -> str:
        """The tools as a JSON list in text, "" without any."""
        if isinstance(value, list):
            value = [tool for item in value for tool in common_tools(item)]
        return tools_text(value)

    def check_row(self, row: Row) -> Fields:
        """Refuse calls that do not fit the tools, and warn of calls that may not."""
        conversation: Conversation = row[self.spec.conversation_column]
        errors = dict.fromkeys(_call_errors(conversation, row[self.column.name]))
        is_strict = self.column.options.get("arguments") == "error"
        messages = [error.message for error in errors if error.error or is_strict]
        if messages:
            raise CodedError(UNDECLARED_CALL, *messages)
        for error in errors:
            self.file.warnings.append((WRONG_ARGUMENTS, error.message, ""))
        for chat_message in conversation:
            if chat_message.role == ASSISTANT and OPEN in chat_message.text:
                message = _(
                    "turn {number}: {token} in an answer: neither checked nor scored as a call",
                    number=chat_message.number,
                    token=OPEN,
                )
                self.file.warnings.append((CALL_IN_TEXT, message, _("give the turn the role function_call")))
        return {}


def common_tools(item: Fields) -> list[Any]:
    """The tools in an item of a list, in OpenAI's form: Gemini's item has several, Anthropic names the schema
    `input_schema`."""
    for key in ("functionDeclarations", "function_declarations"):
        tools = item.get(key)
        if item.keys() == {key} and isinstance(tools, list):
            return tools
    if "input_schema" in item and "parameters" not in item:
        return [{**without(item, "input_schema"), "parameters": item["input_schema"]}]
    return [item]


def _call_errors(conversation: Conversation, tools: str) -> Iterator[CallError]:
    """Check the calls in a row's messages against the tools that the row declares."""
    schemas = declared(tools)
    for chat_message in conversation:
        calls = calls_of(chat_message.text) if chat_message.role == CALL else []
        for name, arguments in calls:
            if name not in schemas:
                message = _("the tool {name} is not declared: the row declares none", name=show_value(name))
                if schemas:
                    message = _(
                        "the tool {name} is not declared: the row has {names}",
                        name=show_value(name),
                        names=show_values(schemas),
                    )
                yield CallError(
                    _("turn {number}: {message}", number=chat_message.number, message=message), bool(schemas)
                )
                continue
            fault = _schema_violation(json.dumps(schemas[name], sort_keys=True), arguments)
            if fault:
                yield CallError(
                    _(
                        "turn {number}: the call of {name}: {fault}",
                        number=chat_message.number,
                        name=show_value(name),
                        fault=fault,
                    ),
                    False,
                )


def _schema_violation(schema: str, arguments: JsonObject) -> str:
    """First violation of a tool's JSON Schema by these arguments, "" if they are valid."""
    validator = _validator(schema)
    if isinstance(validator, str):
        return validator
    for error in validator.iter_errors(arguments):
        path = ".".join(map(str, error.instance_path))
        return f"{path}: {error.message}" if path else str(error.message)
    return ""


@lru_cache(1000)
def _validator(schema: str) -> Any:
    """Compile a schema without fetching references. For an invalid schema the result is the reason."""
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(json.loads(schema), retriever=_no_retrieval)
    except (ValueError, RecursionError) as error:
        return _("the tool's parameters are no JSON Schema: {reason}", reason=str(error).splitlines()[0])


def _no_retrieval(uri: str) -> JsonObject:
    raise ValueError(_("{uri} is outside of it", uri=uri))


class ToolsType(ColumnType):
    """LLaMA-Factory reads tools from one column for all messages of a row."""

    def check(self, column: Column, spec: Spec) -> None:
        """Refuse another name of the column, since records call it so."""
        del spec
        if column.name != TOOLS:
            raise ValueError(
                _(
                    "column {name}: `is: tools` is for the column `{tools}`: rename it",
                    name=column.name,
                    tools=TOOLS,
                )
            )

    def loaded_pairs(self, example: Example, loaded: LoadedRow) -> list[tuple[object, object]]:
        """The tools as JSON text."""
        return [(example.tools, loaded["_tools"] or "")]


TOOL_LIST = ToolsType(
    TOOLS,
    {
        "description": _("a list of tools, or one as JSON text"),
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
    is_text=True,
    loaded_column="_tools",
    beside=Beside((TOOLS, "functions")),
    reader=ToolsReader,
)
