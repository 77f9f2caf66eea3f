"""Two heuristics of how well answers of one conversation hang together. They read words, not sense.

Carry-over: how much of an answer's content was spoken of before. Repetition: how much of it was
answered before, word for word. docs/eval-dialogue.md says what they can show and what they cannot.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.han import HAN
from eval.metrics.text import ngrams, words

SHORTEST = 4  # letters of a word that carries content: no list of stop words is needed
PHRASE = 4  # words in a row that are said again
ROW = re.compile(f"[{HAN}]+")


@dataclass(frozen=True, slots=True)
class Talk:
    """What was asked, turn by turn (at least two), and what was answered to it."""

    asked: Sequence[str]
    answers: Sequence[str]


def content(text: str) -> set[str]:
    """Return the words of four letters or more, and the pairs of neighbouring Chinese characters.

    >>> sorted(content("The LoRA 适配器"))
    ['lora', '适配', '配器']
    """
    long = {word for word in words(text) if len(word) >= SHORTEST}
    return long | {a + b for row in ROW.findall(text) for a, b in pairwise(row)}


def carry_over(talk: Talk, earlier: Talk | None = None) -> float | None:
    """Return the mean share of an answer's content that the turns before its question have, of both sides.

    From the second answer on, each against the turns of `earlier` (the talk itself by default): with
    another talk there it is the share to be expected by chance. None if no answer has content.
    """
    past = earlier or talk
    shares = []
    for turn in range(1, len(talk.answers)):
        said = content(talk.answers[turn])
        known = content("\n".join([*past.asked[:turn], *past.answers[:turn]]))
        if said:
            shares.append(len(said & known) / len(said))
    return sum(shares) / len(shares) if shares else None


def repetition(talk: Talk) -> float | None:
    """Return the mean share of an answer's phrases of four words that an earlier answer has too.

    From the second answer on; characters count as words in Chinese. None if no answer is that long.
    """
    shares = []
    known: set[tuple[str, ...]] = set()
    for turn, answer in enumerate(talk.answers):
        phrases = ngrams(words(answer), PHRASE)
        if turn and phrases:
            shares.append(sum(phrase in known for phrase in phrases) / len(phrases))
        known.update(phrases)
    return sum(shares) / len(shares) if shares else None
