"""Does LLaMA-Factory's template fit the model? One rule for `recipe check` and `data verify`.

`ChatFormat.of` reads the tokenizer before the template changes it: LLaMA-Factory adds the template's stop
words as new tokens and replaces the end token. `template_findings` then compares the template with it.
`with_matching_template` does both for a recipe.

A model with a chat template counts as an instruct model, one without as a base model.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.loader import RecipeData, expected_errors
from tuneyard.core.llamafactory.prompt import Ids, Message, Messages
from tuneyard.core.llamafactory.prompt.history_match import decoded, equal_length, is_continued
from tuneyard.core.llamafactory.prompt.templates import limit_transformers

MISSING_SPECIAL_TOKEN = ProblemCode(
    "E325",
    _("a special token of the template that the tokenizer lacks"),
    _("Take the template in the message, or a model that it fits; `resize_vocab: true` adds the token."),
)
OTHER_END_TOKEN = ProblemCode(
    "E326",
    _("a template that ends answers with another token than the model"),
    _("Take the template in the message."),
    _("The trained model would not stop."),
)
OTHER_PROMPT = ProblemCode(
    "W352",
    _("another prompt than the model's own chat template writes"),
    _("Take the template in the message."),
)
OTHER_SYSTEM_TEXT = ProblemCode(
    "N352",
    _("another default system text than the model's"),
    _("Leave `template` out, or set `default_system`."),
)


USER = {"role": "user", "content": "Is 12 even?"}
ANSWER = {"role": "assistant", "content": "yes"}
SYSTEM_TEXT = "You are terse."
SYSTEM = {"role": "system", "content": SYSTEM_TEXT}
TOOL = {"type": "function", "function": {"name": "even", "parameters": {"type": "object", "properties": {}}}}
BOS, EOS = "<bos>", "<eos>"
# Texts that only ever are control tokens. [INST], <<SYS>> and <role> are plain text in some models.
MARK = re.compile(r"<[|｜][^<>\s]*>|<[^<>\s]*[|｜]>|<(?=\w+_of_\w)\w++>|<sop>|<eod>|\[gMASK\]")
NAMES = 3
"""So many fitting templates are named in a hint."""


class Writing:
    """Stand-in for a tokenizer: each text is its own id, begin and end of text are <bos> and <eos>.

    A template joins the ids of its tokenizer, so that this one yields the list of texts that it writes.
    """

    bos_token = bos_token_id = BOS
    eos_token = eos_token_id = EOS

    def encode(self, text: str, **_unused: bool) -> list[str]:
        """The text itself as its only id."""
        return [text]

    def convert_tokens_to_ids(self, token: str) -> str:
        """The token itself as its id."""
        return token


@dataclass(frozen=True)
class TemplateFinding:
    """Mismatch of template and model: E325, E326, W352, N352, W354 or N354 (docs/recipes.md)."""

    code: str
    message: str
    hint: str = ""


class ChatFormat(NamedTuple):
    """The tokens of a tokenizer, and one exchange as its own chat template writes it.

    Prompts are token ids, one list for each mode of the chat template (thinking on or off). They are empty
    for a base model, or if the chat template refuses a system text or tools.
    """

    vocabulary: frozenset[str]
    end_tokens: frozenset[str] = frozenset()
    written: str = ""
    prompts: Sequence[Ids] = ()
    system_prompts: Sequence[Ids] = ()
    tool_prompts: Sequence[Ids] = ()
    system_tool_prompts: Sequence[Ids] = ()

    @classmethod
    def of(cls, tokenizer: Any, has_tools: bool = False) -> "ChatFormat":
        """Read a tokenizer that no template has mended yet; `has_tools` adds a prompt with a tool."""
        vocabulary = frozenset(tokenizer.get_vocab())
        if not isinstance(tokenizer.chat_template, str):
            return cls(vocabulary)
        prompts = _prompts(tokenizer, [USER])
        text = _render(tokenizer, [USER, ANSWER])
        end_tokens = {tokenizer.eos_token, _token_after_answer(tokenizer, text)} - {None}
        system_prompts = _optional_prompts(tokenizer, [SYSTEM, USER])
        return cls(
            vocabulary,
            frozenset(end_tokens),
            "".join([text, *map(tokenizer.decode, [*prompts, *system_prompts])]),
            prompts,
            system_prompts,
            _optional_prompts(tokenizer, [USER], tools=[TOOL]) if has_tools else [],
            _optional_prompts(tokenizer, [SYSTEM, USER], tools=[TOOL]) if has_tools else [],
        )

    @property
    def is_instruct(self) -> bool:
        """True if the model has a chat template."""
        return bool(self.prompts)


def with_matching_template(data: RecipeData, has_tools: bool) -> tuple[RecipeData, list[TemplateFinding]]:
    """Load tokenizer and template, and report why the template does not fit the model.

    `has_tools`: whether rows of the data have tools. Stage pt writes no template, so it has no findings.
    """
    data = data.with_tokenizer()
    tokenizer = data.module["tokenizer"]
    if data.stage == "pt":
        return data.with_template(), []
    chat = ChatFormat.of(tokenizer, has_tools)
    data = data.with_template()
    name, resizes = data.data_args.template, bool(data.model_args.resize_vocab)
    return data, template_findings(data.template, name, tokenizer, chat, resizes)


def template_findings(
    template: Any, name: str | None, tokenizer: Any, chat: ChatFormat, resizes: bool = False
) -> list[TemplateFinding]:
    """Report why a template does not fit a model: errors, otherwise at most one warning or note.

    `tokenizer` is the mended one, `chat` the format before that, `resizes` the recipe's `resize_vocab`.
    """
    called = _("the template read from the tokenizer")
    if name:
        called = _("template {name}", name=name)
    errors = list(_missing_tokens(template, called, tokenizer, chat, resizes))
    if not chat.is_instruct:
        return errors
    ending = ending_of(template, tokenizer)
    end = tokenizer.convert_ids_to_tokens(ending[0]) if ending else ""
    if end and end in chat.vocabulary and end not in chat.end_tokens:
        expected = joined(sorted(chat.end_tokens), _(" or "))
        message = _(
            "{called} ends answers with {end}, the model ends them with {expected}",
            called=called,
            end=end,
            expected=expected,
        )
        errors.append(TemplateFinding(OTHER_END_TOKEN, message, _matching_hint(tokenizer, chat)))
    if errors:
        return errors
    return list(_layout(template, called, tokenizer, chat))


def _missing_tokens(
    template: Any, called: str, tokenizer: Any, chat: ChatFormat, resizes: bool
) -> Iterator[TemplateFinding]:
    """Find special tokens that the template writes and the tokenizer lacks."""
    missing = []
    mended = tokenizer.get_vocab()
    for token in _written_tokens(template, tokenizer):
        was_added = token in mended  # by the template, as one of its stop words
        if token in chat.vocabulary or token in chat.written or (was_added and resizes):
            continue
        is_plain_text = not was_added and token not in _token_slots(template)
        if is_plain_text and not chat.is_instruct:
            continue  # a base model learns it as it learns any text
        missing.append(token)
    if missing:
        message = _(
            "{called} writes {tokens}, which this tokenizer does not have as one token",
            called=called,
            tokens=joined(missing),
        )
        yield TemplateFinding(MISSING_SPECIAL_TOKEN, message, _matching_hint(tokenizer, chat))


def ending_of(template: Any, tokenizer: Any) -> Ids:
    """The ids that end an answer in training, from the first stop token on; [] if the template ends none."""
    if template.efficient_eos:
        return [tokenizer.eos_token_id]
    _unused, answer_ids = template.encode_oneturn(tokenizer, [USER, ANSWER])
    stop_ids = set(template.get_stop_token_ids(tokenizer))
    for position, token_id in enumerate(answer_ids):
        if token_id in stop_ids and token_id is not None:
            return list(answer_ids[position:])
    return []


def _layout(template: Any, called: str, tokenizer: Any, chat: ChatFormat) -> Iterator[TemplateFinding]:
    """Compare the prompt that the template writes with that of an instruct model's chat template."""
    prompt = _template_prompt(template, tokenizer)
    if is_served(template, tokenizer, chat.prompts):
        tools = json.dumps([TOOL])
        if chat.tool_prompts and not is_served(template, tokenizer, chat.tool_prompts, tools=tools):
            prompt = _template_prompt(template, tokenizer, tools=tools)
            difference = _difference(prompt, chat.tool_prompts[0], tokenizer)
            message = _(
                "with tools and no system text {called} writes another prompt: {difference}",
                called=called,
                difference=difference,
            )
            hint = _("score with --template, too")
            if is_served(template, tokenizer, chat.system_tool_prompts, SYSTEM_TEXT, tools):
                hint = _("give every row a system text, or score with --template, too")
            yield TemplateFinding(OTHER_PROMPT, message, hint)
        return
    difference = _difference(prompt, chat.prompts[0], tokenizer)
    if is_served(template, tokenizer, chat.system_prompts, SYSTEM_TEXT):
        message = _(
            "the default system text is not the model's: in a probe without one, {difference}",
            difference=difference,
        )
        fix = _("leave `template` out, or set default_system")
        yield TemplateFinding(OTHER_SYSTEM_TEXT, message, fix)
        return
    message = _(
        "{called} writes another prompt than the model's chat template: {difference}",
        called=called,
        difference=difference,
    )
    yield TemplateFinding(OTHER_PROMPT, message, _matching_hint(tokenizer, chat))


def _matching_hint(tokenizer: Any, chat: ChatFormat) -> str:
    """Name templates that write the model's own prompt, or at least with a system text given."""
    if not chat.is_instruct:
        return _(
            "take the template of this model, or add the tokens (add_special_tokens, resize_vocab: true)"
        )
    same_prompt, same_with_system, _unused = templates_like(tokenizer, chat)
    names = (same_prompt or same_with_system)[:NAMES]
    hint = _("leave `template` out to train the model's own chat template")
    if names:
        return _("take the template {names}, or {hint}", names=joined(names, _(" or ")), hint=hint)
    return hint


def templates_like(tokenizer: Any, chat: ChatFormat) -> tuple[list[str], list[str], str]:
    """Templates that write the model's own prompt, those that do so once a system text is given, the nearest.

    The prompt of the nearest begins with most of the tokens of the model's own. Templates for models that
    read media come last.
    """
    from llamafactory.data.template import TEMPLATES

    same_prompt = []
    same_with_system = []
    common_tokens: dict[str, int] = {}
    for name, template in sorted(TEMPLATES.items(), key=lambda item: reads_media(item[1])):
        try:
            prompt = _template_prompt(template, tokenizer)
            is_same = is_served(template, tokenizer, chat.prompts)
            is_same_with_system = is_served(template, tokenizer, chat.system_prompts, SYSTEM_TEXT)
        except expected_errors():  # a template that writes tokens which this tokenizer has no ids for
            continue
        common_tokens[name] = equal_length(prompt, chat.prompts[0])
        if is_same:
            same_prompt.append(name)
        elif is_same_with_system:
            same_with_system.append(name)
    return same_prompt, same_with_system, max(common_tokens, key=lambda name: common_tokens[name])


def has_own_thoughts(template: Any) -> bool:
    """True if a template adds thoughts to answers, or takes them away, as the settings of a recipe say."""
    from llamafactory.data.template import ReasoningTemplate

    return isinstance(template, ReasoningTemplate)


def reads_media(template: Any) -> bool:
    """True if a template is for models that read images, videos or audios."""
    return type(template.mm_plugin).__name__ != "BasePlugin"


def _written_tokens(template: Any, tokenizer: Any) -> list[str]:
    """Special tokens that a template writes in an exchange with a system text, in their order."""
    prompt, answer = template.encode_oneturn(Writing(), [USER, ANSWER], SYSTEM_TEXT)
    texts = [*prompt, *answer]
    if template.efficient_eos:
        texts.append(EOS)
    tokens = []
    for text in texts:
        if text == EOS:
            tokens.append(tokenizer.eos_token)
        elif text in _token_slots(template):
            tokens.append(text)
        elif text != BOS:
            tokens += MARK.findall(text)
    return list(dict.fromkeys(tokens))


def _token_slots(template: Any) -> set[str]:
    """Tokens that a template looks up in the tokenizer by name."""
    formatters = (
        template.format_prefix,
        template.format_system,
        template.format_user,
        template.format_assistant,
    )
    slots = chain.from_iterable(formatter.slots for formatter in formatters)
    return {slot["token"] for slot in slots if isinstance(slot, dict)}


def probe_answers(template: Any) -> list[Message]:
    """An answer without a thought, and one with a thought in the words of the template."""
    return [ANSWER, {**ANSWER, "content": template.add_thought("so") + ANSWER["content"]}]


def is_served(
    template: Any,
    tokenizer: Any,
    served_prompts: Sequence[Ids],
    system: str | None = None,
    tools: str | None = None,
) -> bool:
    """True if a chat template writes the prompt of a template, and perhaps the beginning of its answer."""
    served_texts = [decoded(tokenizer, ids) for ids in served_prompts]
    for message in probe_answers(template):
        prompt, answer = template.encode_oneturn(tokenizer, [USER, message], system, tools)
        prompt_text, answer_text = decoded(tokenizer, prompt), decoded(tokenizer, answer)
        if any(is_continued(prompt_text, answer_text, text) for text in served_texts):
            return True
    return False


def _template_prompt(
    template: Any, tokenizer: Any, system: str | None = None, tools: str | None = None
) -> Ids:
    return list(template.encode_oneturn(tokenizer, [USER, ANSWER], system, tools)[0])


def _render(tokenizer: Any, messages: Messages, **options: Any) -> str:
    limit_transformers()
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def _prompts(tokenizer: Any, messages: Messages, **options: Any) -> list[Ids]:
    """Ids of a prompt as the chat template writes it, with thinking off and on."""
    options["add_generation_prompt"] = True
    texts = [_render(tokenizer, messages, enable_thinking=thinks, **options) for thinks in (False, True)]
    return [_encode(tokenizer, text) for text in texts]


def _optional_prompts(tokenizer: Any, messages: Messages, **options: Any) -> list[Ids]:
    """`_prompts`, [] if the chat template refuses these messages."""
    try:
        return _prompts(tokenizer, messages, **options)
    except expected_errors():
        return []


def _token_after_answer(tokenizer: Any, text: str) -> str | None:
    """Token with which the chat template ends an answer. None if it writes none."""
    _unused, _unused, rest = text.rpartition(ANSWER["content"])
    special_ids = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
    for token_id in _encode(tokenizer, rest):
        if token_id in special_ids:
            return str(tokenizer.convert_ids_to_tokens(token_id))
    return None


def _encode(tokenizer: Any, text: str) -> Ids:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _difference(prompt: Sequence[int], expected: Sequence[int], tokenizer: Any) -> str:
    """Describe the first difference of two prompts with the text around it."""
    position = equal_length(prompt, expected)
    around = slice(max(0, position - 3), position + 8)
    trained_text = tokenizer.decode(prompt[around], clean_up_tokenization_spaces=False)
    model_text = tokenizer.decode(expected[around], clean_up_tokenization_spaces=False)
    return _(
        "at token {number} it trains {trained!r}, the model's own has {expected!r}",
        number=position + 1,
        trained=trained_text,
        expected=model_text,
    )
