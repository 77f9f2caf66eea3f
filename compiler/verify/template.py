"""One record as the text that a model sees: LLaMA-Factory's own template, without a tokenizer.

A template asks its tokenizer for ids and joins them. A tokenizer that answers every text with a number of
its own turns them back into what was asked for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from compiler.verify.entry import meaning_of
from compiler.verify.expect import ExpectedRow, expected_row
from compiler.verify.load import REFUSALS, imported
from core.errors import ContentError, RequestError, nearest

BOS, EOS = "<bos>", "<eos>"


class Writing:
    """A tokenizer of which each text is one token; the model's own first and last are <bos> and <eos>."""

    bos_token, eos_token = BOS, EOS

    def __init__(self) -> None:
        self._texts: list[str] = [BOS, EOS]
        self.bos_token_id, self.eos_token_id = 0, 1

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return one number for a text."""
        del add_special_tokens
        self._texts.append(text)
        return [len(self._texts) - 1]

    def convert_tokens_to_ids(self, token: str) -> int:
        """Return one number for a token."""
        return self.encode(token)[0]

    def text(self, ids: Iterable[int]) -> str:
        """Return what was asked for under these numbers."""
        return "".join(map(self._texts.__getitem__, ids))


def seen_by_model(record: Mapping[str, object], entry: Mapping[str, object], name: str) -> str:
    """Return a record of a dataset as text, loss tokens between ⟦ and ⟧; of a pair both sides.

    `name` is one of LLaMA-Factory's templates (`RequestError` where it knows none of that name).
    """
    template, writing = _template(name), Writing()
    meaning = meaning_of(entry)
    talk = expected_row(record, meaning)
    if isinstance(talk, str):
        raise ContentError(talk)
    if meaning.text_only:
        return f"⟦{talk.turns[0][1]}{EOS}⟧"
    messages = [{"role": role, "content": text} for role, text in talk.turns]
    try:
        if meaning.stage != "sft":
            return _answers(template, messages, talk, meaning.ranking)
        pairs = template.encode_multiturn(writing, messages, talk.system, talk.tools)
    except REFUSALS as error:
        what = f"the template {name!r} cannot write the row's tools or calls: {error!r}"
        raise ContentError(f"{what}; training would stop at it") from error
    end = EOS if template.efficient_eos else ""
    return "".join(f"{writing.text(asked)}⟦{writing.text(told)}{end}⟧" for asked, told in pairs)


def _answers(template: Any, messages: list[dict[str, str]], talk: ExpectedRow, ranking: bool) -> str:
    """Return the prompt once, and what is learned of each answer after it."""
    *prompt, chosen, rejected = messages
    sides = [("chosen", chosen), ("rejected", rejected)]
    if not ranking:  # KTO: one of the two answers is empty and is not trained on
        sides = [("desirable", chosen) if chosen["content"] else ("undesirable", rejected)]
    end, written, asked = EOS if template.efficient_eos else "", [], ""
    for side, answer in sides:
        writing = Writing()
        ids, told = template.encode_oneturn(writing, [*prompt, answer], talk.system, talk.tools)
        asked = writing.text(ids)
        written.append(f"{side}: ⟦{writing.text(told)}{end}⟧")
    return "\n".join([asked, *written])


def _template(name: str) -> Any:
    imported()
    from llamafactory.data.template import TEMPLATES

    if name not in TEMPLATES:
        hint = nearest(name, TEMPLATES)
        message = f"LLaMA-Factory has no template {name!r} (it has {len(TEMPLATES)}) {hint}"
        raise RequestError(message.rstrip())
    return TEMPLATES[name]
