"""One record as the text that a model sees: LLaMA-Factory's own template, without a tokenizer."""

from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.loader import expected_errors, import_offline
from tuneyard.core.llamafactory.prompt import Messages, template_named
from tuneyard.core.llamafactory.prompt.template_match import EOS, Writing
from tuneyard.core.llamafactory.stages import rows_of
from tuneyard.core.records import ChatMessage, Entry, Example, Record, RecordReader, format_of_entry


def seen_by_model(record: Record, entry: Entry, name: str) -> str:
    """A record of a dataset as text, with loss tokens between ⟦ and ⟧; of a pair both sides.

    `name` is one of LLaMA-Factory's templates; `RequestError` if it does not exist. `ContentError` for a
    record on which training stops, or which LLaMA-Factory drops.
    """
    import_offline()
    template = template_named(name, think=True)
    record_format = format_of_entry(entry)
    example = RecordReader(record_format).read(record)
    if example.fault:
        raise ContentError(example.fault)
    if record_format.text_only:
        return f"⟦{example.messages[0].text}{EOS}⟧"
    try:
        if rows_of(entry).stage != "sft":
            return _text_with_answers(template, example)
        pairs = template.encode_multiturn(
            Writing(), _messages(example.trained_messages), example.system, example.tools
        )
    except expected_errors() as error:
        message = _(
            "the template {name!r} cannot write the row's tools or calls: {error!r}", name=name, error=error
        )
        raise ContentError(_("{reason}; training would stop at it", reason=message)) from error
    end = _end(template)
    return "".join(f"{''.join(prompt)}⟦{''.join(answer)}{end}⟧" for prompt, answer in pairs)


def _text_with_answers(template: Any, example: Example) -> str:
    """The prompt, then the learned text of each answer."""
    if example.desirable is None:
        sides = list(zip(("chosen", "rejected"), example.answers, strict=True))
    else:  # the empty answer next to a marked one is not trained on
        sides = [("desirable" if example.desirable else "undesirable", example.answers[0])]
    prompt_texts: list[str] = []
    lines = []
    for side, answer in sides:
        messages = _messages([*example.messages, answer])
        prompt_texts, answer_texts = template.encode_oneturn(
            Writing(), messages, example.system, example.tools
        )
        lines.append(f"{side}: ⟦{''.join(answer_texts)}{_end(template)}⟧")
    return "\n".join(["".join(prompt_texts), *lines])


def _messages(messages: list[ChatMessage]) -> Messages:
    return [{"role": message.role, "content": message.text} for message in messages]


def _end(template: Any) -> str:
    return EOS if template.efficient_eos else ""
