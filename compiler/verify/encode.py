"""The texts of many rows tokenised together, for LLaMA-Factory's template, which asks for one at a time.

The template only joins ids. So it is given a tokenizer that answers each text with a mark; the texts
that it asked for are then tokenised together, and the marks filled in. LLaMA-Factory's processor gets
these ids from the same template where it asks for the same messages, and from the template itself where
it asks for others.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compiler.verify.load import REFUSALS

Pairs = list[tuple[list[int], list[int]]]
Question = tuple[list[dict[str, str]], str, str, bool]  # messages, system, tools, history without thoughts


class Marking:
    """A tokenizer that answers a text with a mark (-1, -2, …) and notes which texts were asked for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._marks: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the mark of a text."""
        del add_special_tokens  # LLaMA-Factory's templates never ask for them
        return [self._marks.setdefault(text, -1 - len(self._marks))]

    def tokenised(self) -> dict[int, list[int]]:
        """Return the ids of all texts noted, by mark, and forget them."""
        texts = list(self._marks)
        self._marks = {}
        if not texts:
            return {}
        found = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
        return {-1 - number: ids for number, ids in enumerate(found["input_ids"])}


class Prepared:
    """A template that answers from pairs of ids that were made before, in order."""

    def __init__(self, template: Any, tokenizer: Any) -> None:
        self.__dict__.update(vars(template))  # what the processor looks at for every row
        self._template = template
        self._marking = Marking(tokenizer)
        self._ready: deque[tuple[Question, Pairs]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template, name)

    def writes(self, question: Question) -> bool:
        """Whether the template can write a row: one lacks a tool's parameters, one takes one call alone."""
        try:
            self._template.encode_multiturn(self._marking, *question)
        except REFUSALS:
            return False
        return True

    def prepare(self, questions: Sequence[Question]) -> list[Pairs]:
        """Return the ids of every (prompt, answer) pair of these rows, and keep them for the processor."""
        marked = [self._template.encode_multiturn(self._marking, *question) for question in questions]
        ids = self._marking.tokenised()
        pairs = [[(_filled(asked, ids), _filled(told, ids)) for asked, told in row] for row in marked]
        self._ready = deque(zip(questions, pairs, strict=True))
        return pairs

    def encode_multiturn(self, tokenizer: Any, *question: Any) -> Pairs:
        """Return the pairs prepared for this question; another question goes to the template itself."""
        prepared, pairs = self._ready.popleft()
        if prepared == question:
            return pairs
        plain: Pairs = self._template.encode_multiturn(tokenizer, *question)
        return plain


def _filled(marked: Iterable[int], ids: Mapping[int, list[int]]) -> list[int]:
    """Return ids with every mark replaced by those of its text."""
    filled: list[int] = []
    for mark in marked:
        filled += ids.get(mark) or ([mark] if mark not in ids else [])
    return filled
