"""Findings on conversations that are served after other texts than in training, with a fix that was tried.

`recipe check` and `data verify` compare the first row of each kind (W354). If no row has a second turn, they
compare a made-up conversation like the rows (N354). A fix is named only if all compared turns are equal with
it.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.loader import RecipeData, expected_errors
from tuneyard.core.llamafactory.prompt import Message
from tuneyard.core.llamafactory.prompt.history_match import (
    TrainedConversation,
    TurnDifference,
    conversations_of,
    first_difference,
)
from tuneyard.core.llamafactory.prompt.template_match import (
    ANSWER,
    SYSTEM_TEXT,
    USER,
    TemplateFinding,
    has_own_thoughts,
    probe_answers,
    reads_media,
)
from tuneyard.core.records.calls import call_text, parse_calls

OTHER_HISTORY = ProblemCode(
    "W354",
    _("a turn that is trained after another text than it is served after"),
    _("Take the template or setting in the message."),
    _("Earlier thoughts, tools or calls."),
)
OTHER_SECOND_TURN = ProblemCode(
    "N354",
    _("a second turn, which no row has, would differ"),
    _("Take the template or setting in the message."),
)


MOST_TEMPLATES = 12
"""Templates that are compared at most with all conversations. Others already differ in a plain prompt."""
MADE_UP = "a made-up conversation"
CALL = call_text(parse_calls({"name": "even", "arguments": {"number": 12}}))
MASKED: dict[str, object] = {"mask_history": True}
PRESERVED: dict[str, object] = {"preserve_thinking": True}
NOT_PRESERVED: dict[str, object] = {"preserve_thinking": False}
SETTINGS = (PRESERVED, NOT_PRESERVED, MASKED, MASKED | PRESERVED, MASKED | NOT_PRESERVED)
"""Settings that are tried, in this order: with the first ones all answers stay learned."""


def history_findings(data: RecipeData, rows: Any, dataset: str) -> list[TemplateFinding]:
    """Compare the turns of a dataset's rows, as LLaMA-Factory loaded them, with the model's chat template.

    `data` has the template. No findings for a model without a chat template, and if every prompt differs
    (W352).
    """
    if data.stage == "pt" or data.served is None:
        return []
    conversations = conversations_of(data, rows, dataset)
    if not conversations:
        return []
    is_made_up = all(conversation.turns == 1 for conversation in conversations)
    if is_made_up:
        conversations.append(made_up_like(data, conversations))
    compared = _with_matching_system(data, conversations)
    differences = _differences(data, compared)
    findings = []
    while differences:
        fix = _fix(data, compared, differences)
        if fix:
            findings.append(_finding(data, differences[0], fix))
            break
        first = differences[0]
        alike = [each for each in differences if _kind(each) == _kind(first)]
        fix = _fix(data, compared, alike) or _edit(data, alike) or _without_fix(data, first)
        findings.append(_finding(data, first, fix))
        differences = [each for each in differences if each not in alike]
    return findings


def made_up_like(data: RecipeData, conversations: Sequence[TrainedConversation]) -> TrainedConversation:
    """Two questions and answers like the rows, with thoughts, tools and a system text if rows have them.

    With tools the first question has a call and its result.
    """
    thought = ""
    if any(has_thought(data, each.messages[-1]) for each in conversations):
        thought = data.template.add_thought("Even numbers end with 0, 2, 4, 6 or 8.")
    answer: Message = {"role": "assistant", "content": f"{thought}{ANSWER['content']}"}
    messages: list[Message] = [USER, answer]
    tools = next((each.tools for each in conversations if each.tools), "")
    if tools:
        call: Message = {"role": "function", "content": f"{thought}{CALL}"}
        messages = [USER, call, {"role": "observation", "content": '{"even": true}'}, answer]
    system = next((each.system for each in conversations if each.system), "")
    return TrainedConversation(MADE_UP, [*messages, USER, answer], system, tools)


def has_thought(data: RecipeData, message: Message) -> bool:
    """True if a message has a thought in the words of the template."""
    return any(token.strip() in message["content"] for token in data.template.thought_words)


def _with_matching_system(
    data: RecipeData, conversations: Sequence[TrainedConversation]
) -> list[TrainedConversation]:
    """Add a system text where another finding already says that a prompt differs without one.

    No conversations if prompts differ with a system text as well. That tools are written otherwise (W352) is
    said once.
    """
    tools = next((each.tools for each in conversations if each.tools), "")
    fits_plain, fits_with_tools = _matches(data), not tools or _matches(data, tools=tools)
    if not fits_plain and not _matches(data, system=SYSTEM_TEXT):
        return []
    is_said = fits_plain and not fits_with_tools and not _matches(data, system=SYSTEM_TEXT, tools=tools)
    compared = []
    for conversation in conversations:
        fits = fits_with_tools if conversation.tools else fits_plain
        if conversation.system or fits:
            compared.append(conversation)
        elif not (conversation.tools and is_said):
            compared.append(conversation._replace(system=SYSTEM_TEXT))
    return compared


def _matches(data: RecipeData, system: str = "", tools: str = "") -> bool:
    """True if a plain question is served after the text after which it is trained."""
    for answer in probe_answers(data.template):
        conversation = TrainedConversation("", [USER, answer], system, tools)
        if not _differences(data, [conversation]):
            return True
    return False


def _differences(data: RecipeData, conversations: Sequence[TrainedConversation]) -> list[TurnDifference]:
    """The first difference of each conversation. It ends at one that the chat template refuses."""
    differences: list[TurnDifference] = []
    for conversation in conversations:
        try:
            difference = first_difference(data, conversation)
        except expected_errors():  # LLaMA-Factory stops at the row, which has a finding of its own
            continue
        if difference is not None:
            differences.append(difference)
            if difference.refusal:
                break
    return differences


def _kind(difference: TurnDifference) -> tuple[bool, bool]:
    """Differences of a kind have one finding: with or without tools, at the first turn or a later one."""
    return difference.conversation.has_tools, difference.turn > 1


def _fix(
    data: RecipeData, compared: Sequence[TrainedConversation], differences: Sequence[TurnDifference]
) -> str:
    """A template or a setting with which these turns, and those that are equal already, are equal; or ""."""
    if any(difference.refusal for difference in differences):
        return ""
    concerned = [difference.conversation for difference in differences]
    others = [conversation for conversation in compared if conversation not in concerned]
    equal = [conversation for conversation in others if not _differences(data, [conversation])]
    for name, changed in _alternatives(data, concerned):
        if not _differences(changed, concerned) and not _differences(changed, equal):
            return _("{name} makes every turn equal", name=name)
    return ""


def _alternatives(
    data: RecipeData, concerned: Sequence[TrainedConversation]
) -> Iterator[tuple[str, RecipeData]]:
    """Yield other templates and settings of a recipe, the nearest first, each with its name."""
    messages = [message for conversation in concerned for message in conversation.messages[1::2]]
    without_thoughts = not any(has_thought(data, message) for message in messages)
    yield from _templates(data, like=True)
    for settings in SETTINGS:
        if "mask_history" in settings and (data.stage != "sft" or data.data_args.train_on_prompt):
            continue
        if not has_own_thoughts(data.template) and not without_thoughts:
            continue
        yield from _changed(data, settings)
    if without_thoughts:
        yield from _changed(data, {"enable_thinking": False})
    yield from _templates(data, like=False)
    if data.stage == "sft" and not data.data_args.train_on_prompt:
        for name, changed in _templates(data, like=False):
            for other, with_mask in _changed(changed, MASKED):
                yield _("{name} with {other}", name=name, other=other), with_mask


def _changed(data: RecipeData, settings: dict[str, object]) -> Iterator[tuple[str, RecipeData]]:
    """A recipe with other settings. Nothing if it has them, or if LLaMA-Factory refuses them."""
    if all(vars(data.data_args)[key] == value for key, value in settings.items()):
        return
    arguments = copy.copy(data.data_args)
    vars(arguments).update(settings)
    try:
        changed = replace(data, data_args=arguments).with_template()
    except expected_errors():
        return
    words = {True: "true", False: "false"}
    yield ", ".join(f"{key}: {words[bool(value)]}" for key, value in settings.items()), changed


def _templates(data: RecipeData, *, like: bool) -> Iterator[tuple[str, RecipeData]]:
    """Yield recipes with other templates that write the model's own plain prompt.

    `like`: those whose name begins with the recipe's (`qwen3_nothink`), otherwise the others. They share a
    tokenizer, so that each is to be used before the next one.
    """
    from llamafactory.data.template import TEMPLATES

    used = data.data_args.template or ""
    names = [name for name in sorted(TEMPLATES) if name != used and is_like(name, used) == like]
    if not names:
        return
    tokenizer = copy.deepcopy(data.module["tokenizer"])
    count = 0
    for name in names:
        if reads_media(TEMPLATES[name]) != reads_media(data.template):
            continue
        if data.served is not None:  # whatever another template has put there
            tokenizer.chat_template = data.served.text
            for token, text in data.served.special_tokens.items():
                if isinstance(text, str):
                    setattr(tokenizer, token, text)
        arguments = copy.copy(data.data_args)
        arguments.template = name
        module = {**data.module, "tokenizer": tokenizer}
        try:
            changed = replace(data, data_args=arguments, module=module).with_template()
        except expected_errors():
            continue
        if not _matches(changed):
            continue
        count += 1
        if count > MOST_TEMPLATES:
            return
        yield f"template: {name}", changed


def is_like(name: str, used: str) -> bool:
    """True if a template is a kind of another one by its name."""
    return bool(used) and name.startswith(used)


def _edit(data: RecipeData, differences: Sequence[TurnDifference]) -> str:
    """A change of the rows with which these turns are equal, or ""."""
    if any(difference.refusal for difference in differences):
        return ""
    concerned = [difference.conversation for difference in differences]
    if not _differences(data, [_stripped(conversation) for conversation in concerned]):
        return _("take the white space around its texts away")
    if not _differences(data, [_without_earlier_thoughts(data, each) for each in concerned]):
        return _("take the thoughts out of the answers before the last one")
    return ""


def _stripped(conversation: TrainedConversation) -> TrainedConversation:
    messages = [{**message, "content": message["content"].strip()} for message in conversation.messages]
    return conversation._replace(messages=messages, system=conversation.system.strip())


def _without_earlier_thoughts(data: RecipeData, conversation: TrainedConversation) -> TrainedConversation:
    *earlier, last = conversation.messages
    remove = data.template.remove_thought
    messages = [{**message, "content": remove(message["content"])} for message in earlier]
    return conversation._replace(messages=[*messages, last])


def _without_fix(data: RecipeData, difference: TurnDifference) -> str:
    """What can be done about a turn that nothing makes equal."""
    if difference.refusal:
        return _("leave such rows out, or serve the model with another chat template")
    if difference.turn > 1:
        return _(
            "no template or setting of LLaMA-Factory makes it equal; rows of one turn are trained as they "
            "are served"
        )
    if data.data_args.template:
        return _(
            "no template or setting of LLaMA-Factory makes it equal; score with --template {name}",
            name=data.data_args.template,
        )
    return _(
        "no template or setting of LLaMA-Factory makes it equal; name LLaMA-Factory's template of this "
        "model, and score with --template"
    )


def _finding(data: RecipeData, difference: TurnDifference, hint: str) -> TemplateFinding:
    name = data.data_args.template
    called = _("template {name}", name=name) if name else _("the template read from the tokenizer")
    turn, place = difference.turn, difference.conversation.place
    code, beginning = OTHER_HISTORY, ""
    if place == MADE_UP:
        code, beginning = OTHER_SECOND_TURN, _("no row has a second turn; ")
    message = _(
        "turn {turn} of {place} is trained after {trained!r} ({called}), and served "
        "after {served!r} (the model's chat template)",
        turn=turn,
        place=place,
        trained=difference.trained,
        called=called,
        served=difference.served,
    )
    if difference.refusal:
        message = _(
            "the model's chat template refuses turn {turn} of {place}: {refusal}",
            turn=turn,
            place=place,
            refusal=difference.refusal,
        )
    return TemplateFinding(code, joined([beginning, message], ""), hint)
