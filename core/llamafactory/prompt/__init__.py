"""From a record to the prompt of a model: messages, then text, then token ids, the same as in training.

tests/integration/test_prompt.py compares the ids with those of LLaMA-Factory 0.9.5.
"""

import copy
import datetime
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tuneyard.core.errors import ContentError, LimitError, RequestError, nearest, unexpected
from tuneyard.core.files import JsonObject, read_object, strings
from tuneyard.core.files.bounded_reading import read_text
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.llamafactory.prompt.templates import TODAY as TODAY
from tuneyard.core.llamafactory.prompt.templates import limit_transformers
from tuneyard.core.llamafactory.prompt.tokenizer_files import CHAT_TEMPLATE
from tuneyard.core.records import (
    PLACEHOLDERS,
    QUESTIONS,
    Entry,
    Record,
    format_of,
    read_example,
)
from tuneyard.core.records.calls import (
    RESULTS,
    WrongValueError,
    before_calls,
    calls_of,
    tools_text,
    wrapped_tools,
)

if TYPE_CHECKING:
    from llamafactory.data.template import Template
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
Messages = list[Message]
Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
Ids = list[int]
"""The tokens of a text by their numbers."""
Encode = Callable[[Messages], Ids]
Render = Callable[[Messages, bool], str]  # of messages, whether an answer is asked for
DEFAULT_TEMPLATE = "default"
_QUESTION = {"role": "user", "content": "Is it?"}
PROBES: tuple[Messages, ...] = (
    [_QUESTION],
    [{"role": "system", "content": "Be brief."}, _QUESTION],
    [_QUESTION, {"role": "assistant", "content": "Yes."}, _QUESTION],
)
"""Conversations by whose prompts two chat templates are compared."""


class PromptAndAnswer(NamedTuple):
    """Prompt (`messages`, the user's message last), expected answer ("" without one) and its role.

    Tool calls are messages of role `function`, their results of role `observation`, as in LLaMA-Factory. The
    first message has the `tools` (a JSON list as text) if there are any.
    `images` are paths as the record has them, one for each `<image>` in the messages.
    """

    messages: Messages
    answer: str
    role: str = "assistant"
    images: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """The text of the user's last message."""
        return self.messages[-1]["content"]


class SavedTemplate(NamedTuple):
    """The text of a chat template in Jinja, and the file that has it."""

    file: Path
    text: str


def prompt_and_answer(record: Record, entry: Entry, place: str, answer: int = 0) -> PromptAndAnswer:
    """Convert a record to messages and answer by its registry entry, or by its own keys if that is {}.

    `answer` is the number of the answer: of a pair 0 is the chosen and 1 the rejected one. A record without
    an answer is a prompt. `ContentError` begins with `place`.
    """
    example = read_example(record, entry, place)
    if not example.messages or example.messages[-1].role not in QUESTIONS:
        raise ContentError(
            _(
                "{place}: expected a turn of the user before the answer: {reason}",
                place=relative(place),
                reason=example.fault,
            )
        )
    messages = [{"role": message.role, "content": message.text} for message in example.messages]
    if any(message["role"] == "system" for message in messages):  # LLaMA-Factory drops such a record
        raise ContentError(_("{place}: {reason}", place=relative(place), reason=example.fault))
    if example.system:
        messages.insert(0, {"role": "system", "content": example.system})
    if example.tools:
        try:
            tools = tools_text(example.tools)
        except WrongValueError as error:
            column = format_of(record, entry).columns["tools"]
            raise ContentError(
                _("{place}: {column}: {error}", place=relative(place), column=column, error=error)
            ) from error
        if tools:
            messages[0]["tools"] = tools
    role, text = "assistant", ""
    if answer < len(example.answers):
        role, text = example.answers[answer].role, example.answers[answer].text
    images = tuple(path for path in example.media.get("images", ()) if isinstance(path, str))
    return PromptAndAnswer(messages, text, role, images)


def refuse_media(record: Record, entry: Entry, place: str, images: bool = False) -> None:
    """Refuse a record with images, videos or audios, since its text is not the whole prompt.

    With `images`, images pass if the entry names their column. Otherwise training leaves them out.
    """
    columns = strings(entry.get("columns"))
    media_columns = columns or {kind: kind for kind in PLACEHOLDERS}
    for kind in PLACEHOLDERS:
        column = media_columns.get(kind)
        if column is None or not record.get(column):
            continue
        if kind == "images" and images and (columns or not entry):
            paths = record[column]
            if not isinstance(paths, list):
                paths = [paths]
            for path in paths:
                if not (isinstance(path, str) and path):
                    raise unexpected(place, column, path, _("the path of an image"))
            continue
        hint = _(
            "images are, by eval.text --no-generate, eval.preference, and eval.nli "
            "--mode choice without --check-generate"
        )
        if images and kind == "images":
            hint = _(
                "the registry's entry does not name the column, so that training leaves them out: name it"
            )
        raise ContentError(
            _(
                "{place}: {column}: rows with {kind} are not scored here ({hint})",
                place=relative(place),
                column=column,
                kind=kind,
                hint=hint,
            )
        )


def find_chat_template(folder: Path) -> SavedTemplate | None:
    """Read the chat template saved in a model or adapter folder, None without one or with an empty one.

    Of several templates it is `default`; `ContentError` without one.
    """
    file = folder / CHAT_TEMPLATE
    if file.is_file():
        return _read_template(file)
    more = folder / "additional_chat_templates"
    files = {path.stem: path for path in sorted(more.glob("*.jinja"))}
    if files:
        return _read_template(files[default_name(files, more)])
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    template = read_object(config).get("chat_template")
    if isinstance(template, list):
        texts = {}
        for item in template:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                texts[str(item.get("name"))] = item["template"]
        if template:
            template = texts[default_name(texts, config)]
    return SavedTemplate(config, template) if template and isinstance(template, str) else None


def default_name(names: Collection[str], place: object) -> str:
    """The name of the chat template of a conversation among several; `ContentError` if it is missing."""
    if DEFAULT_TEMPLATE not in names:
        raise ContentError(
            _(
                "{place}: several chat templates ({names}), expected one with the name "
                "{default}; write the template of the training into chat_template.jinja, or name "
                "LLaMA-Factory's with --template NAME",
                place=relative(place),
                names=joined(names),
                default=DEFAULT_TEMPLATE,
            )
        )
    return DEFAULT_TEMPLATE


def _read_template(file: Path) -> SavedTemplate | None:
    text = read_text(file)
    return SavedTemplate(file, text) if text else None


def chat_renderer(
    tokenizer: "PreTrainedTokenizerBase | SimpleNamespace",
    template: str | None,
    think: bool = False,
    day: datetime.date | None = None,
    place: str = "",
) -> Render:
    """Renderer by a Jinja chat template: messages → text, up to the begin of an answer if `ask`.

    Without a template the texts are joined by line breaks, as LLaMA-Factory's `empty` does for one turn.
    Models that can think get an empty thought unless `think`. A template that writes the date writes `day`,
    by default the day on which the renderer is made. `place` is the file or the model of the template, for
    the error of one that meets a limit.
    """
    from jinja2 import TemplateError

    midnight = datetime.datetime.combine(day or datetime.date.today(), datetime.time.min)

    def render(messages: Messages, ask: bool) -> str:
        if template is None:
            contents = [message["content"] for message in messages]
            if ask:
                return "\n".join(contents)
            return "\n".join(contents[:-1]) + contents[-1]
        plain, tools = openai_messages(messages)
        options: JsonObject = {"add_generation_prompt": ask, "enable_thinking": think}
        if tools:
            options["tools"] = tools
        if TODAY in template:
            options[TODAY] = midnight.isoformat()
        try:
            limit_transformers()
            text: str = tokenizer.apply_chat_template(
                plain, chat_template=template, tokenize=False, **options
            )
        except LimitError as error:
            if not place:
                raise
            raise LimitError(_("{place}: {error}", place=place, error=error)) from error
        except (TemplateError, TypeError, ArithmeticError, LookupError, ValueError) as error:  # of its code
            roles = joined(message["role"] for message in messages)
            raise ContentError(
                _("the chat template refuses messages of {roles}: {reason}", roles=roles, reason=error)
            ) from error
        functions = list(tools)
        for message in plain:
            functions += message.get("tool_calls", ())
        for function in functions:
            name = function["function"]["name"]
            if name not in text:
                raise ContentError(
                    _(
                        "the chat template leaves out the tool {name!r}: it knows none; name "
                        "LLaMA-Factory's template with --template NAME",
                        name=name,
                    )
                )
        if ask and not think and text.rstrip().endswith("<think>"):  # the template itself begins a thought
            text = f"{text.rstrip()}\n\n</think>\n\n"
        return text

    return render


def openai_messages(messages: Messages) -> tuple[list[JsonObject], list[JsonObject]]:
    """Convert messages and tools to the form of chat templates. `ContentError` for broken calls."""
    plain: list[JsonObject] = []
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
        tools = messages[0].get("tools") if messages else None
        return plain, wrapped_tools(tools) if tools else []
    except WrongValueError as error:
        raise ContentError(_("a call or the tools of a conversation: {error}", error=error)) from error


def prompt_ids(tokenizer: Tokenizer, render: Render, messages: Messages) -> Ids:
    """Ids of a prompt as a `chat_renderer` writes it, up to where the answer begins."""
    return list(tokenizer(render(messages, True), add_special_tokens=False)["input_ids"])


class TrainedHistory(NamedTuple):
    """How a training writes the turns before the last one, by the settings of its recipe.

    LLaMA-Factory keeps the thoughts of earlier answers in stage sft, and puts empty ones before answers
    without. With `mask_history`, and in stages of preferences, it takes them away.
    """

    enable_thinking: bool | None = True
    preserve_thinking: bool = False
    mask_history: bool = False
    stage: str = "sft"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "TrainedHistory | None":
        """Read the settings of a recipe. None if they are not known: {}."""
        if not settings:
            return None
        enables = settings.get("enable_thinking", True)
        return cls(
            enable_thinking=None if enables is None else bool(enables),
            preserve_thinking=bool(settings.get("preserve_thinking")),
            mask_history=bool(settings.get("mask_history")),
            stage=str(settings.get("stage") or "sft"),
        )

    @property
    def keeps_thoughts(self) -> bool:
        """True if the thoughts of earlier answers are trained before the last one."""
        if self.stage == "sft" and not self.mask_history:
            return self.enable_thinking is not False
        return self.preserve_thinking

    def pairs(self, template: "Template", tokenizer: Tokenizer, messages: Messages) -> list[tuple[Ids, Ids]]:
        """Prompt and answer of each turn, the last one as the `template` writes it, those before as trained.

        `messages` end with an answer.
        """
        turns, system, tools = llamafactory_messages(messages)
        if self.stage != "sft":
            written = copy.copy(template)
            written.preserve_thinking = self.preserve_thinking
            return [written.encode_oneturn(tokenizer, turns, system, tools)]
        trained = copy.copy(template)
        trained.enable_thinking = self.enable_thinking
        discards = self.mask_history and not self.preserve_thinking
        history = trained.encode_multiturn(tokenizer, turns, system, tools, discards)
        last = template.encode_multiturn(tokenizer, turns, system, tools, discards)[-1]
        return [*history[:-1], last]


def llamafactory_encoder(
    tokenizer: Tokenizer, name: str, think: bool = False, history: TrainedHistory | None = None
) -> Encode:
    """Encoder by `llamafactory_template`: messages → prompt ids. The import takes about 10 s.

    Earlier turns are written as in the training with this `history`, otherwise as LLaMA-Factory chats.
    """
    template, adapted_tokenizer = llamafactory_template(tokenizer, name, think)

    def encode(messages: Messages) -> Ids:
        with_answer = [*messages, {"role": "assistant", "content": ""}]
        if history is None:
            turns, system, tools = llamafactory_messages(with_answer)
            return list(template.encode_oneturn(adapted_tokenizer, turns, system, tools)[0])
        *earlier, (prompt, _unused) = history.pairs(template, adapted_tokenizer, with_answer)
        ids = [token for question, answer in earlier for token in (*question, *answer)]
        return [*ids, *prompt]

    return encode


def llamafactory_messages(messages: Messages) -> tuple[Messages, str | None, str | None]:
    """Split messages into turns, system text and tools, the arguments of LLaMA-Factory's templates."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = [{key: turn[key] for key in ("role", "content")} for turn in messages if turn["role"] != "system"]
    return turns, system, messages[0].get("tools")


def llamafactory_template(
    tokenizer: Tokenizer, name: str, think: bool
) -> "tuple[Template, PreTrainedTokenizerBase]":
    """A copy of LLaMA-Factory's template `name`, and of the tokenizer with the special tokens that it sets.

    Without a name ("") it is parsed from the tokenizer's chat template, or `empty`, as for a recipe.
    """
    from llamafactory.data.template import ReasoningTemplate, parse_template

    adapted_tokenizer = copy.deepcopy(tokenizer)
    if name or not isinstance(adapted_tokenizer.chat_template, str):
        template = template_named(name or "empty", think)
    else:
        limit_transformers()
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
        hint = nearest(name, TEMPLATES, _("without a template, the model's own chat template is used"))
        raise RequestError(
            _(
                "LLaMA-Factory has no template {name!r} (it has {number}); {hint}",
                name=name,
                number=len(TEMPLATES),
                hint=hint,
            )
        )
    template = copy.copy(TEMPLATES[name])
    if isinstance(template, ReasoningTemplate):
        template.enable_thinking = think
    return template


def tool_format(template: str) -> str:
    """The form in which LLaMA-Factory's template writes tool calls, a key of its `TOOLS`."""
    form: str = template_named(template, think=False).format_function.tool_format
    return form
