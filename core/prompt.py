"""From a record to what the model reads: messages, then text, then token ids, the same as in training.

As LLaMA-Factory 0.9.5 makes them (data/converter.py); tests/integration/test_prompt.py holds it to that.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tuneyard.core.calls import RESULTS, WrongValueError, before_calls, calls_of, tools_text, wrapped_tools
from tuneyard.core.errors import ContentError, RequestError, nearest, show_value
from tuneyard.core.files import read_object
from tuneyard.core.time_limit import bounded

if TYPE_CHECKING:
    from llamafactory.data.template import Template
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
Encode = Callable[[list[Message]], list[int]]
Render = Callable[[list[Message], bool], str]  # of messages, whether an answer is asked for

ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
PAIRS = ({"prompt": "question", "response": "answer"}, {"prompt": "prompt", "response": "response"})
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
OPENAI_TAGS = SHAREGPT_TAGS | {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}
OPENAI = {"formatting": "sharegpt", "tags": OPENAI_TAGS}
BARE = {name: name for name in ("system", "history", "tools")}  # columns of a record without a registry entry
PLACEHOLDERS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
"""What stands in a text for each file of these columns, as LLaMA-Factory has it."""
ANSWERS = ("assistant", "function")  # the roles of what a model writes
MESSAGES = ("messages", "text")  # where records keep messages as OpenAI has them


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is asked (`messages`, the user's turn last), the answer that the data expects, or "", its role.

    Calls of tools are messages of the role `function`, what they return of `observation`, both as
    LLaMA-Factory holds them; the first message has the `tools` (a JSON list as text) where there are any.
    `images` are paths as the record has them, one for each `<image>` in the messages.
    """

    messages: list[Message]
    answer: str
    role: str = "assistant"
    images: tuple[str, ...] = ()


def conversation(record: Mapping[str, object], entry: Mapping[str, object], place: str) -> Conversation:
    """Return a record as messages and answer, by its entry ({}: its keys); `ContentError` names `place`."""
    images = tuple(one for one in _images(record, entry) if isinstance(one, str))
    field = next((name for name in MESSAGES if isinstance(record.get(name), list)), None)
    if not entry and field:
        entry = {**OPENAI, "columns": {"messages": field, **BARE}}
    elif not entry and isinstance(record.get("conversations"), list):
        entry = {"formatting": "sharegpt", "columns": BARE}
    elif not entry and isinstance(record.get("text"), str):
        entry = {"columns": {"prompt": "text"}}
    if entry.get("formatting", "alpaca") == "alpaca":
        default = ALPACA if entry else {**_found_columns(record), **BARE}
        found = _from_alpaca(record, strings(entry.get("columns")) or default, place)
    else:
        found = _from_sharegpt(record, entry, place)
    return replace(found, images=images) if images else found


def refuse_media(
    record: Mapping[str, object], entry: Mapping[str, object], place: str, images: bool = False
) -> None:
    """Refuse a record with images, videos or audios: its text is not all that the model is asked.

    With `images` these are let through, where the entry names their column: else training leaves them out.
    """
    columns = strings(entry.get("columns"))
    named = columns or {kind: kind for kind in PLACEHOLDERS}
    for kind in PLACEHOLDERS:
        if kind not in named or not record.get(named[kind]):
            continue
        if kind == "images" and images and (columns or not entry):
            for path in _images(record, entry):
                if not (isinstance(path, str) and path):
                    found = f"found {show_value(path)}, expected the path of an image"
                    raise ContentError(f"{place}: {named[kind]}: {found}")
            continue
        hint = "images are, by eval.text --no-generate and eval.nli --mode choice without --check-generate"
        if images and kind == "images":
            hint = "the registry's entry does not name the column, so that training leaves them out: name it"
        raise ContentError(f"{place}: {named[kind]}: rows with {kind} are not scored here ({hint})")


def saved_chat_template(folder: Path) -> str | None:
    """Return the chat template saved in a model or adapter folder, None where there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = read_object(config).get("chat_template") if config.is_file() else None
    return template if isinstance(template, str) else None


def chat_renderer(
    tokenizer: "PreTrainedTokenizerBase | SimpleNamespace", template: str | None, think: bool = False
) -> Render:
    """Return messages → text by a Jinja chat template, up to where an answer begins if one is asked for.

    Without a template texts stand line by line, as LLaMA-Factory's `empty` has one turn. Models that can
    think get an empty thought unless `think`.
    """
    from jinja2 import TemplateError

    def render(messages: list[Message], ask: bool) -> str:
        if template is None:
            contents = [m["content"] for m in messages]
            return "\n".join(contents) if ask else "\n".join(contents[:-1]) + contents[-1]
        try:
            with bounded("the chat template"):
                plain, tools = openai_messages(messages)
                asked: dict[str, Any] = {"add_generation_prompt": ask, "enable_thinking": think}
                asked |= {"tools": tools} if tools else {}
                text: str = tokenizer.apply_chat_template(
                    plain, chat_template=template, tokenize=False, **asked
                )
        except (TemplateError, TypeError, ArithmeticError, LookupError, ValueError) as error:  # of its code
            roles = ", ".join(m["role"] for m in messages)
            raise ContentError(f"the chat template refuses messages of {roles}: {error}") from error
        called = [call for message in plain for call in message.get("tool_calls", ())]
        named = [one["function"]["name"] for one in (*tools, *called)]
        if lost := next((name for name in named if name not in text), ""):
            mend = "it knows none; name LLaMA-Factory's template with --template NAME"
            raise ContentError(f"the chat template leaves out the tool {lost!r}: {mend}")
        if ask and not think and text.rstrip().endswith("<think>"):  # it begins the thought by itself
            text = f"{text.rstrip()}\n\n</think>\n\n"
        return text

    return render


def openai_messages(messages: list[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return messages and tools as chat templates take them; `ContentError` where calls are broken."""
    plain: list[dict[str, Any]] = []
    try:
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "function":
                calls = [{"type": "function", "function": call._asdict()} for call in calls_of(content)]
                plain.append({"role": "assistant", "content": before_calls(content), "tool_calls": calls})
            elif role == "observation":
                plain += [{"role": "tool", "content": result} for result in content.split(RESULTS)]
            else:
                plain.append({"role": role, "content": content})
        return plain, wrapped_tools(messages[0].get("tools", "") if messages else "")
    except WrongValueError as error:
        raise ContentError(f"a call or the tools of a conversation: {error}") from error


def chat_encoder(tokenizer: "PreTrainedTokenizerBase", template: str | None, think: bool = False) -> Encode:
    """Return messages → prompt ids by a Jinja chat template, generation prompt included."""
    render = chat_renderer(tokenizer, template, think)

    def encode(messages: list[Message]) -> list[int]:
        return list(tokenizer(render(messages, True), add_special_tokens=False)["input_ids"])

    return encode


def llamafactory_encoder(tokenizer: "PreTrainedTokenizerBase", name: str, think: bool = False) -> Encode:
    """Return messages → prompt ids as `llamafactory_template` has them (imported in about 10 s)."""
    template, own = llamafactory_template(tokenizer, name, think)

    def encode(messages: list[Message]) -> list[int]:
        turns, system, tools = llamafactory_messages(messages)
        answer = {"role": "assistant", "content": ""}
        return list(template.encode_oneturn(own, [*turns, answer], system, tools)[0])

    return encode


def llamafactory_messages(messages: list[Message]) -> tuple[list[Message], str | None, str | None]:
    """Return the turns, the system text and the tools, as LLaMA-Factory's templates take them."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = [{"role": m["role"], "content": m["content"]} for m in messages if m["role"] != "system"]
    return turns, system, messages[0].get("tools")


def llamafactory_template(
    tokenizer: "PreTrainedTokenizerBase", name: str, think: bool
) -> "tuple[Template, PreTrainedTokenizerBase]":
    """Return LLaMA-Factory's template `name` and a copy of the tokenizer with the tokens that it sets.

    Of no name (""), as a recipe without one: that of the tokenizer's chat template, or `empty`.
    """
    from llamafactory.data.template import ReasoningTemplate, parse_template

    own = copy.deepcopy(tokenizer)
    if name or not isinstance(own.chat_template, str):
        template = template_named(name or "empty", think)
    else:
        template = parse_template(own)
        if isinstance(template, ReasoningTemplate):
            template.enable_thinking = think
    template.fix_special_tokens(own)
    return template, own


def template_named(name: str, think: bool) -> "Template":
    """Return a copy of LLaMA-Factory's template `name`, which thinks or not whatever others were asked.

    LLaMA-Factory writes `enable_thinking` of each training into the one template that all share.
    """
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate

    if name not in TEMPLATES:
        hint = nearest(name, TEMPLATES)
        message = f"LLaMA-Factory has no template {name!r} (it has {len(TEMPLATES)}) {hint}"
        raise RequestError(message.rstrip())
    template = copy.copy(TEMPLATES[name])
    if isinstance(template, ReasoningTemplate):
        template.enable_thinking = think
    return template


def _found_columns(record: Mapping[str, object]) -> Mapping[str, str]:
    answers = {pair["response"] for pair in (ALPACA, *PAIRS)} & record.keys()
    found = (pair for pair in PAIRS if pair["prompt"] in record and answers <= {pair["response"]})
    return ALPACA if ALPACA["prompt"] in record else next(found, ALPACA)


def _from_alpaca(record: Mapping[str, object], columns: Mapping[str, str], place: str) -> Conversation:
    if columns.get("prompt") not in record:
        found = ", ".join(record) or "none"
        raise ContentError(f"{place}: no column {columns.get('prompt')!r} (found: {found})")
    system = _text(record, columns.get("system"), place)
    messages = [{"role": "system", "content": system}] if system else []
    history = record.get(columns["history"]) if "history" in columns else None
    for pair in history if isinstance(history, list) else []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            column = columns["history"]
            raise ContentError(f"{place}: {column}: found {show_value(pair)}, expected [question, answer]")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    asked = [_text(record, columns.get(part), place) for part in ("prompt", "query")]
    messages.append({"role": "user", "content": "\n".join(text for text in asked if text)})
    answer = _text(record, columns.get("response"), place)
    return Conversation(_with_tools(messages, record, columns, place), answer)


def _from_sharegpt(record: Mapping[str, object], entry: Mapping[str, object], place: str) -> Conversation:
    columns = strings(entry.get("columns"))
    tags = {**SHAREGPT_TAGS, **strings(entry.get("tags"))}
    column = columns.get("messages", "conversations")
    turns = record.get(column)
    if not isinstance(turns, list):
        raise ContentError(f"{place}: {column}: found {show_value(turns)}, expected a list of messages")
    names = ("user", "assistant", "system", "function", "observation")
    roles = {tags[f"{name}_tag"]: name for name in names}
    messages = [_message(turn, tags, roles, f"{place}: {column}") for turn in turns]
    late = [number for number, m in enumerate(messages[1:], 2) if m["role"] == "system"]
    if late:  # LLaMA-Factory drops such a record
        raise ContentError(f"{place}: {column}: message {late[0]} is a system's, expected it first")
    system = _text(record, columns.get("system"), place)
    if system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    answers = messages and messages[-1]["role"] in ANSWERS
    answer = messages.pop() if answers else {"role": "assistant", "content": ""}
    if not messages or messages[-1]["role"] not in ("user", "observation"):
        found = f"found {len(turns)} messages"
        raise ContentError(f"{place}: {column}: {found}, expected a user's as the last before the answer")
    return Conversation(_with_tools(messages, record, columns, place), answer["content"], answer["role"])


def _with_tools(
    messages: list[Message], record: Mapping[str, object], columns: Mapping[str, str], place: str
) -> list[Message]:
    try:
        tools = tools_text(record.get(columns.get("tools", "")))
    except WrongValueError as error:
        raise ContentError(f"{place}: {columns['tools']}: {error}") from error
    return [{**messages[0], "tools": tools}, *messages[1:]] if tools else messages


def _message(turn: object, tags: Mapping[str, str], roles: Mapping[str, str], place: str) -> Message:
    fields = turn if isinstance(turn, dict) else {}
    role = fields.get(tags["role_tag"])
    if not isinstance(role, str) or role not in roles:
        known = ", ".join(roles)
        raise ContentError(f"{place}: {tags['role_tag']} {show_value(role)}, expected one of {known}")
    return {"role": roles[role], "content": _text(fields, tags["content_tag"], place)}


def _images(record: Mapping[str, object], entry: Mapping[str, object]) -> list[object]:
    """Return what a record has in the column of images that its entry ({}: its keys) names."""
    column = strings(entry.get("columns")).get("images") if entry else "images"
    value = record.get(column) if column else None
    return value if isinstance(value, list) else [value] if value else []


def _text(record: Mapping[str, object], column: str | None, place: str) -> str:
    value = record.get(column) if column else None
    if value is not None and not isinstance(value, str):
        raise ContentError(f"{place}: {column}: found {show_value(value)}, expected text")
    return value or ""


def strings(value: object) -> dict[str, str]:
    """Return the texts of an object by key, {} of anything else."""
    items = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in items if isinstance(text, str)}
