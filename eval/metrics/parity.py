"""Whether prompts and answers are the same: where they first differ, and by how much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

Ids = Sequence[int]
Decode = Callable[[Ids], str]
SHOWN = 8  # tokens of which the text is given


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first token in which two sequences of a row differ: its place, both ids (None past the end), and
    the texts of this token and the seven after it."""

    row: int
    place: int
    expected: int | None
    found: int | None
    expected_text: str
    found_text: str


@dataclass(frozen=True, slots=True)
class PromptProof:
    """One way to make prompts against the reference's, on the rows of a set."""

    way: str
    dataset: str
    n: int
    differing: int
    first: FirstDifference | None

    @property
    def equal(self) -> bool:
        """Whether every row has the same token ids."""
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answers to each row: the tokens that it generates and, of a set of labels, their
    log-probabilities."""

    tokens: Mapping[int, Ids]
    labels: Mapping[int, Mapping[str, float]] | None


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """One model's answers against the unmerged adapter's, on the rows of a set.

    `flips` are the rows whose likeliest label, or without labels generated text, is another. `largest` is the
    largest difference of a label's log-probability in nats, in `largest_row`; None without labels.
    `differing` counts the rows whose generated tokens differ, `first` is the first of them.
    """

    model: str
    dataset: str
    n: int
    flips: Sequence[int]
    largest: float | None
    largest_row: int | None
    differing: int
    first: FirstDifference | None


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared with the way `reference` and the unmerged adapter, what was not, and made of what."""

    reference: str
    prompts: Sequence[PromptProof]
    answers: Sequence[AnswerProof]
    unchecked: Sequence[str]
    facts: Mapping[str, object]


def prove_prompts(
    way: str, dataset: str, expected: Mapping[int, Ids], found: Mapping[int, Ids], decode: Decode
) -> PromptProof:
    """Compare two ways' token ids row by row."""
    return PromptProof(way, dataset, len(expected), *_compare(expected, found, decode))


def prove_answers(model: str, dataset: str, expected: Answers, found: Answers, decode: Decode) -> AnswerProof:
    """Compare a model's answers with the reference's."""
    tokens, ours, theirs = expected.tokens, expected.labels, found.labels
    flips = [row for row in tokens if tokens[row] != found.tokens[row]]
    largest, largest_row = None, None
    if ours is not None and theirs is not None:
        flips = [row for row in ours if _likeliest(ours[row]) != _likeliest(theirs[row])]
        largest, largest_row = max(
            (max(abs(ours[row][label] - theirs[row][label]) for label in ours[row]), row) for row in ours
        )
    differing = _compare(tokens, found.tokens, decode)
    return AnswerProof(model, dataset, len(tokens), flips, largest, largest_row, *differing)


def first_difference(row: int, expected: Ids, found: Ids, decode: Decode) -> FirstDifference | None:
    """Return the first token in which two sequences differ, None if they are equal."""
    for place, (one, other) in enumerate(zip_longest(expected, found)):
        if one != other:
            texts = (decode(ids[place : place + SHOWN]) for ids in (expected, found))
            return FirstDifference(row, place, one, other, *texts)
    return None


def _compare(
    expected: Mapping[int, Ids], found: Mapping[int, Ids], decode: Decode
) -> tuple[int, FirstDifference | None]:
    """How many rows differ, and where the first of them does."""
    rows = (first_difference(row, ids, found[row], decode) for row, ids in expected.items())
    differing = [one for one in rows if one]
    return len(differing), next(iter(differing), None)


def _likeliest(labels: Mapping[str, float]) -> str:
    return max(labels, key=labels.__getitem__)
