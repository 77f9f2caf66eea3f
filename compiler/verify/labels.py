"""Ids and labels of one row, looked at: which tokens are learned, and does the turn end?"""

from collections.abc import Sequence
from typing import Any

IGNORED = -100  # IGNORE_INDEX of LLaMA-Factory and torch
Marked = list[tuple[str, bool]]


def probe(template: Any, tokenizer: Any) -> tuple[list[int], bool]:
    """Return the ids that end a turn, from the first stop token on, and whether a token is unknown."""
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
    asked, told = template.encode_multiturn(tokenizer, talk)[0]
    stops = set(template.get_stop_token_ids(tokenizer))
    ending: list[int] = next((told[place:] for place, token in enumerate(told) if token in stops), [])
    if template.efficient_eos:
        ending = [tokenizer.eos_token_id]
    return ending, None in [*asked, *told, *stops]


def marked(tokenizer: Any, ids: Sequence[int | None], labels: Sequence[int]) -> Marked:
    """Return a row as pieces of text, each with whether it is learned."""
    pieces: list[tuple[list[int], bool]] = []
    for token, label in zip(ids, labels, strict=True):
        if not pieces or pieces[-1][1] != (label != IGNORED):
            pieces.append(([], label != IGNORED))
        if token is not None:  # of another model's template
            pieces[-1][0].append(token)
    return [(tokenizer.decode(tokens), learned) for tokens, learned in pieces]
