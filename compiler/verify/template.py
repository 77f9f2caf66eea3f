"""One record as the text that a model sees: LLaMA-Factory's own template, without a tokenizer."""

from collections.abc import Mapping
from typing import Any

from tuneyard.compiler.verify.expect import ExpectedRow, expected_row, meaning_of
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory import expected_errors, import_offline
from tuneyard.core.prompt import template_named
from tuneyard.core.template_fit import EOS, Writing
from tuneyard.core.training_stage import stage_of_rows


def seen_by_model(record: Mapping[str, object], entry: Mapping[str, object], name: str) -> str:
    """Return a record of a dataset as text, loss tokens between ⟦ and ⟧; of a pair both sides.

    `name` is one of LLaMA-Factory's templates (`RequestError` where it knows none of that name).
    """
    import_offline()
    template = template_named(name, think=True)
    meaning = meaning_of(entry)
    talk = expected_row(record, meaning)
    if isinstance(talk, str):
        raise ContentError(talk)
    if meaning.text_only:
        return f"⟦{talk.turns[0][1]}{EOS}⟧"
    messages = [{"role": role, "content": text} for role, text in talk.turns]
    try:
        if stage_of_rows(entry) != "sft":
            return _answers(template, messages, talk, meaning.ranking)
        pairs = template.encode_multiturn(Writing(), messages, talk.system, talk.tools)
    except expected_errors() as error:
        what = f"the template {name!r} cannot write the row's tools or calls: {error!r}"
        raise ContentError(f"{what}; training would stop at it") from error
    end = EOS if template.efficient_eos else ""
    return "".join(f"{''.join(asked)}⟦{''.join(told)}{end}⟧" for asked, told in pairs)


def _answers(template: Any, messages: list[dict[str, str]], talk: ExpectedRow, ranking: bool) -> str:
    """Return the prompt once, and what is learned of each answer after it."""
    *prompt, chosen, rejected = messages
    sides = [("chosen", chosen), ("rejected", rejected)]
    if not ranking:  # KTO: one of the two answers is empty and is not trained on
        sides = [("desirable", chosen) if chosen["content"] else ("undesirable", rejected)]
    end, written, asked = EOS if template.efficient_eos else "", [], list[str]()
    for side, answer in sides:
        asked, told = template.encode_oneturn(Writing(), [*prompt, answer], talk.system, talk.tools)
        written.append(f"{side}: ⟦{''.join(told)}{end}⟧")
    return "\n".join(["".join(asked), *written])
