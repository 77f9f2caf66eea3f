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
"""Placeholder in a text for each file of these columns, as in LLaMA-Factory."""
ANSWERS = ("assistant", "function")  # the roles of what a model writes
MESSAGES = ("messages", "text")  # where records keep messages as OpenAI has them


@dataclass(frozen=True, slots=True)
class Conversation:
    """Prompt (`messages`, the user's turn last), expected answer ("" without one) and its role.

    Tool calls are messages of role `function`, their results of role `observation`, as in LLaMA-Factory. The
    first message has the `tools` (a JSON list as text) if there are any.
    `images` are paths as the record has them, one for each `<image>` in the messages.
    """

    messages: list[Message]
    answer: str
    role: str = "assistant"
    images: tuple[str, ...] = ()


def conversation(record: Mapping[str, object], entry: Mapping[str, object], place: str) -> Conversation:
    """Convert a record to messages and answer by its registry entry, or by its own keys if that is {}.

    `ContentError` begins with `place`.
    """
    images = tuple(path for path in _images(record, entry) if isinstance(path, str))
    field = next((name for name in MESSAGES if isinstance(record.get(name), list)), None)
    if not entry and field:
        entry = {**OPENAI, "columns": {"messages": field, **BARE}}
    elif not entry and isinstance(record.get("conversations"), list):
        entry = {"formatting": "sharegpt", "columns": BARE}
    elif not entry and isinstance(record.get("text"), str):
        entry = {"columns": {"prompt": "text"}}
    if entry.get("formatting", "alpaca") == "alpaca":
        default = ALPACA if entry else {**_found_columns(record), **BARE}
        result = _from_alpaca(record, strings(entry.get("columns")) or default, place)
    else:
        result = _from_sharegpt(record, entry, place)
    if images:
        return replace(result, images=images)
    return result


def refuse_media(
    record: Mapping[str, object], entry: Mapping[str, object], place: str, images: bool = False
) -> None:
    """Refuse a record with images, videos or audios, since its text is not the whole prompt.

    With `images`, images pass if the entry names their column. Otherwise training leaves them out.
    """
    columns = strings(entry.get("columns"))
    media_columns = columns or {kind: kind for kind in PLACEHOLDERS}
    for kind in PLACEHOLDERS:
        if kind not in media_columns or not record.get(media_columns[kind]):
            continue
        if kind == "images" and images and (columns or not entry):
            for path in _images(record, entry):
                if not (isinstance(path, str) and path):
                    message = f"found {show_value(path)}, expected the path of an image"
                    raise ContentError(f"{place}: {media_columns[kind]}: {message}")
            continue
        hint = "images are, by eval.text --no-generate and eval.nli --mode choice without --check-generate"
        if images and kind == "images":
            hint = "the registry's entry does not name the column, so that training leaves them out: name it"
        raise ContentError(f"{place}: {media_columns[kind]}: rows with {kind} are not scored here ({hint})")


def saved_chat_template(folder: Path) -> str | None:
    """Read the chat template saved in a model or adapter folder, None without one."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    template = read_object(config).get("chat_template")
    if not isinstance(template, str):
        return None
    return template


def chat_renderer(
    tokenizer: "PreTrainedTokenizerBase | SimpleNamespace", template: str | None, think: bool = False
) -> Render:
    """Renderer by a Jinja chat template: messages → text, up to the begin of an answer if `ask`.

    Without a template the texts are joined by line breaks, as LLaMA-Factory's `empty` does for one turn.
    Models that can think get an empty thought unless `think`.
    """
    from jinja2 import TemplateError

    def render(messages: list[Message], ask: bool) -> str:
        if template is None:
            contents = [message["content"] for message in messages]
            if ask:
                return "\n".join(contents)
            return "\n".join(contents[:-1]) + contents[-1]
        try:
            with bounded("the chat template"):
                plain, tools = openai_messages(messages)
                options: dict[str, Any] = {"add_generation_prompt": ask, "enable_thinking": think}
                if tools:
                    options["tools"] = tools
                text: str = tokenizer.apply_chat_template(
                    plain, chat_template=template, tokenize=False, **options
                )
        except (TemplateError, TypeError, ArithmeticError, LookupError, ValueError) as error:  # of its code
            roles = ", ".join(message["role"] for message in messages)
            raise ContentError(f"the chat template refuses messages of {roles}: {error}") from error
        functions = list(tools)
        for message in plain:
            functions += message.get("tool_calls", ())
        for function in functions:
            name = function["function"]["name"]
            if name not in text:
                fix = "it knows none; name LLaMA-Factory's template with --template NAME"
                raise ContentError(f"the chat template leaves out the tool {name!r}: {fix}")
        if ask and not think and text.rstrip().endswith("<think>"):  # the template itself begins a thought
            text = f"{text.rstrip()}\n\n</think>\n\n"
        return text

    return render


def openai_messages(messages: list[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Convert messages and tools to the form of chat templates. `ContentError` for broken calls."""
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
    """Encoder by a Jinja chat template: messages → prompt ids, with the generation prompt."""
    render = chat_renderer(tokenizer, template, think)

    def encode(messages: list[Message]) -> list[int]:
        return list(tokenizer(render(messages, True), add_special_tokens=False)["input_ids"])

    return encode


def llamafactory_encoder(tokenizer: "PreTrainedTokenizerBase", name: str, think: bool = False) -> Encode:
    """Encoder by `llamafactory_template`: messages → prompt ids. The import takes about 10 s."""
    template, adapted_tokenizer = llamafactory_template(tokenizer, name, think)

    def encode(messages: list[Message]) -> list[int]:
        turns, system, tools = llamafactory_messages(messages)
        answer = {"role": "assistant", "content": ""}
        return list(template.encode_oneturn(adapted_tokenizer, [*turns, answer], system, tools)[0])

    return encode


def llamafactory_messages(messages: list[Message]) -> tuple[list[Message], str | None, str | None]:
    """Split messages into turns, system text and tools, the arguments of LLaMA-Factory's templates."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = [message for message in messages if message["role"] != "system"]
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return turns, system, messages[0].get("tools")


def llamafactory_template(
    tokenizer: "PreTrainedTokenizerBase", name: str, think: bool
) -> "tuple[Template, PreTrainedTokenizerBase]":
    """LLaMA-Factory's template `name`, and a copy of the tokenizer with the special tokens that it sets.

    Without a name ("") it is parsed from the tokenizer's chat template, or `empty`, as for a recipe.
    """
    from llamafactory.data.template import ReasoningTemplate, parse_template

    adapted_tokenizer = copy.deepcopy(tokenizer)
    if name or not isinstance(adapted_tokenizer.chat_template, str):
        template = template_named(name or "empty", think)
    else:
        template = parse_template(adapted_tokenizer)
        if isinstance(template, ReasoningTemplate):
            template.enable_thinking = think
    template.fix_special_tokens(adapted_tokenizer)
    return template, adapted_tokenizer


def template_named(name: str, think: bool) -> "Template":
    """Copy LLaMA-Factory's template `name` and set whether it thinks.

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
    if ALPACA["prompt"] in record:
        return ALPACA
    for pair in PAIRS:
        if pair["prompt"] in record and answers <= {pair["response"]}:
            return pair
    return ALPACA


def _from_alpaca(record: Mapping[str, object], columns: Mapping[str, str], place: str) -> Conversation:
    if columns.get("prompt") not in record:
        names = ", ".join(record) or "none"
        raise ContentError(f"{place}: no column {columns.get('prompt')!r} (found: {names})")
    system = _text(record, columns.get("system"), place)
    messages = [{"role": "system", "content": system}] if system else []
    history = record.get(columns["history"]) if "history" in columns else None
    for pair in history if isinstance(history, list) else []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            column = columns["history"]
            raise ContentError(f"{place}: {column}: found {show_value(pair)}, expected [question, answer]")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    prompt = _text(record, columns.get("prompt"), place)
    query = _text(record, columns.get("query"), place)
    messages.append({"role": "user", "content": "\n".join(filter(None, [prompt, query]))})
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
    for number, message in enumerate(messages[1:], 2):
        if message["role"] == "system":  # LLaMA-Factory drops such a record
            raise ContentError(f"{place}: {column}: message {number} is a system's, expected it first")
    system = _text(record, columns.get("system"), place)
    if system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    answer = {"role": "assistant", "content": ""}
    if messages and messages[-1]["role"] in ANSWERS:
        answer = messages.pop()
    if not messages or messages[-1]["role"] not in ("user", "observation"):
        raise ContentError(
            f"{place}: {column}: found {len(turns)} messages, expected a user's as the last before the answer"
        )
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
        expected = ", ".join(roles)
        raise ContentError(f"{place}: {tags['role_tag']} {show_value(role)}, expected one of {expected}")
    return {"role": roles[role], "content": _text(fields, tags["content_tag"], place)}


def _images(record: Mapping[str, object], entry: Mapping[str, object]) -> list[object]:
    """Values in a record's column of images, which the entry names (without an entry: `images`)."""
    column: str | None = "images"
    if entry:
        column = strings(entry.get("columns")).get("images")
    value = record.get(column) if column else None
    if isinstance(value, list):
        return value
    if value:
        return [value]
    return []


def _text(record: Mapping[str, object], column: str | None, place: str) -> str:
    value = record.get(column) if column else None
    if value is not None and not isinstance(value, str):
        raise ContentError(f"{place}: {column}: found {show_value(value)}, expected text")
    return value or ""


def strings(value: object) -> dict[str, str]:
    """Keep the text values of an object; {} for any other value."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
