"""The parts that a parity check compares, their differences, and those that a tolerance allows."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from tuneyard.core.language.message import _, counted, joined, ngettext
from tuneyard.eval.models.batch_plan import Ids, Prompts
from tuneyard.eval.models.connection import TIMEOUT
from tuneyard.eval.models.generate import LENGTH, STOP, Generated
from tuneyard.eval.models.served import ServedModel

FILES = ("fused", "gguf", "modelfile")
PROMPTS, ANSWERS, CHATS = "prompt", "answer", "chat answer"
SHOWN = 8  # tokens of which the text is given
NOTICEABLE = 1e-3  # nats, above the rounding of f16
Texts = Mapping[int, Generated]
"""Generated answers by row."""
Decode = Callable[[Ids], str]
Labels = Mapping[int, Mapping[str, float]]
"""Log-probabilities of labels in nats, by row."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed differences: flipped answers, and nats of a label's log-probability. Prompts may not differ."""

    flips: int
    nats: float


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first token in which two sequences of a row differ: its place, both ids (None past the end), and
    the texts of this token and the seven after it."""

    row: int
    place: int
    expected: int | None
    actual: int | None
    expected_text: str
    actual_text: str


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to the same ids: the greedy texts, and each label's log-probability in nats.

    `tokens` are the ids of the `texts` by the base's tokenizer, None if it gives none. `labels` is None
    if the dataset has no set of labels, or if a server gives no log-probabilities.
    """

    tokens: Prompts | None
    labels: Labels | None
    texts: Texts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Distance:
    """Differences between two sets of labels' log-probabilities, in nats.

    `largest` is in the row `largest_row`. `spread` is the share of rows with any noticeable difference.
    `flips` are the rows whose likeliest label differs.
    """

    mean: float
    largest: float
    largest_row: int
    spread: float
    flips: Sequence[int]


@dataclass(frozen=True, slots=True)
class ProofPart:
    """One way of making prompts, or one model's answers, compared with the reference on a dataset's rows.

    `part` is `PROMPTS`, `ANSWERS` (to our ids) or `CHATS` (a server's answers to the messages alone). Chats
    are compared with the server's greedy texts after our ids, whose weights are the same; if it gives none,
    with the unmerged adapter's.

    `flips` lists the rows that differ: in their token ids, in their likeliest label (without labels in their
    generated tokens), or in their chat answer. It includes the `refused` rows, which the server refuses, e.g.
    beyond its context. `differing` counts the rows with other ids or texts, None if the server generates none
    after our ids. `first` describes the first of them.

    `largest` is the largest difference of a label's log-probability in nats, in the row `largest_row`; None
    without labels. `runs_on` lists the rows in which training's end token ends the expected answer, but not
    the server's, None if no expected answer ended. `finishes` counts the server's reasons for the end.
    """

    part: str
    model: str
    dataset: str
    n: int
    flips: Sequence[int]
    differing: int | None
    first: FirstDifference | None
    refused: Sequence[int] = ()
    largest: float | None = None
    largest_row: int | None = None
    runs_on: Sequence[int] | None = None
    finishes: Mapping[str, int] = field(default_factory=dict)

    def failure(self, tolerance: Tolerance) -> str:
        """Describe a difference that the tolerance does not allow, "" without any. Prompts may not differ."""
        runs_on = len(self.runs_on or ())
        allowed = tolerance.flips
        if self.part == PROMPTS:
            allowed = 0
        if max(len(self.flips), runs_on) <= allowed and (self.largest or 0.0) <= tolerance.nats:
            return ""
        difference = _(
            "{model} differs in {flips} of {parts} of {dataset}",
            model=self.model,
            flips=len(self.flips),
            parts=self._size(),
            dataset=self.dataset,
        )
        if self.refused:
            difference = _("{difference} ({number} refused)", difference=difference, number=len(self.refused))
        if self.largest is not None:
            difference = _(
                "{difference}, a label's log-probability by {nats:.2g} nats",
                difference=difference,
                nats=self.largest,
            )
        if runs_on:
            difference = _("{difference}, and {number} run on", difference=difference, number=runs_on)
        return difference

    def _size(self) -> str:
        """The number of compared prompts, answers or chat answers."""
        if self.part == PROMPTS:
            return counted(self.n, "prompt", "prompts")
        if self.part == CHATS:
            return counted(self.n, "chat answer", "chat answers")
        return counted(self.n, "answer", "answers")


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of a parity check, to which each comparison is added.

    Prompts are compared with those of the way `reference`. Differences within `tolerance` are none. `causes`
    and `servers` belong to servers; a cause is named with its model, dataset and sentence. `unchecked` lists
    the comparisons that were not made, with the reason. `facts` are the settings, hashes and versions.
    """

    reference: str
    facts: Mapping[str, object]
    tolerance: Tolerance
    servers: Sequence[Sequence[ServedModel]] = ()
    comparisons: list[ProofPart] = field(default_factory=list)
    causes: list[Mapping[str, str]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """Describe every difference that the tolerance does not allow."""
        every = [one for part in (PROMPTS, ANSWERS, CHATS) for one in self.of(part)]
        return list(filter(None, [one.failure(self.tolerance) for one in every]))

    def of(self, part: str) -> list[ProofPart]:
        """The comparisons of prompts, answers or chat answers."""
        return [one for one in self.comparisons if one.part == part]

    @property
    def answering(self) -> str:
        """What gives the answers that others are compared with."""
        return _("the unmerged adapter") if self.facts["adapters"] else _("the model in this process")

    def verdict(self) -> str:
        """Summarise the check in one sentence: the extent of the parity, or every failure."""
        failures = self.failures()
        if failures:
            return _("Not equal: {differences}.", differences=joined(failures, _("; ")))
        rows: dict[str, int] = {}
        for one in self.comparisons:
            rows[one.dataset] = max(one.n, rows.get(one.dataset, 0))
        parts: list[str] = []
        ways = {one.model for one in self.of(PROMPTS)}
        if ways:
            parts.append(
                ngettext(
                    "{ways} of making prompts gives the reference's token ids",
                    "{ways} of making prompts give the reference's token ids",
                    len(ways),
                    ways=counted(len(ways), "other way", "other ways"),
                )
            )
        answers = self.of(ANSWERS)
        models = {one.model for one in (*answers, *self.of(CHATS))}
        if models:
            figures: list[str] = [counted(sum(len(one.flips) for one in answers), "flip", "flips")]
            nats = [one.largest for one in answers if one.largest is not None]
            if nats:
                figures.append(_("labels' log-probabilities within {nats:.2g} nats", nats=max(nats)))
            parts.append(
                _(
                    "the answers of {models} are those of {answering} ({figures})",
                    models=counted(len(models), "served model", "served models"),
                    answering=self.answering,
                    figures=joined(figures),
                )
            )
        return _(
            "Equal on {examples}: {parts}.",
            examples=counted(sum(rows.values()), "example", "examples"),
            parts=joined(parts, _(", and ")),
        )


@dataclass(frozen=True, slots=True)
class ParityInputs:
    """Inputs to compare the adapters with: the training template, served files, and servers.

    `served_model` is the model's name on the servers `urls`. `timeout` is in seconds.
    """

    template: str | None
    fused: Path | None = None
    gguf: Path | None = None
    modelfile: Path | None = None
    urls: Sequence[str] = ()
    served_model: str | None = None
    timeout: float = TIMEOUT


def prove_prompts(way: str, dataset: str, expected: Prompts, actual: Prompts, decode: Decode) -> ProofPart:
    """Compare the token ids of two ways of making prompts, row by row."""
    rows, first = compare_ids(expected, actual, decode)
    refused = [row for row in expected if row not in actual]
    flips = sorted([*rows, *refused])
    return ProofPart(PROMPTS, way, dataset, len(expected), flips, len(flips), first, refused)


def prove_answers(model: str, dataset: str, expected: Answers, actual: Answers, decode: Decode) -> ProofPart:
    """Compare a model's answers with the reference's: labels, texts, or both."""
    flips: list[int] = []
    differing, first = None, None
    if expected.tokens is not None and actual.tokens is not None:
        flips, first = compare_ids(expected.tokens, actual.tokens, decode)
        differing = len(flips)
    largest, largest_row = None, None
    labels = distance(expected, actual)
    if labels is not None:
        flips = [row for row in flips if row not in (actual.labels or ())] + list(labels.flips)
        largest, largest_row = labels.largest, labels.largest_row
    rows = list(expected.tokens or expected.labels or ())
    answered = {*(actual.tokens or ()), *(actual.labels or ())}
    refused = [row for row in rows if row not in answered]
    flips = sorted({*flips, *refused})
    return ProofPart(
        ANSWERS, model, dataset, len(rows), flips, differing, first, refused, largest, largest_row
    )


def distance(expected: Answers, actual: Answers) -> Distance | None:
    """Compare log-probabilities of the same labels on the rows that both have. None if either has none."""
    if expected.labels is None or not actual.labels:
        return None
    differences: list[float] = []
    largest: list[tuple[float, int]] = []
    flips = []
    for row, others in actual.labels.items():
        labels = expected.labels[row]
        nats = [abs(value - others[label]) for label, value in labels.items()]
        differences += nats
        largest.append((max(nats), row))
        if likeliest(labels) != likeliest(others):
            flips.append(row)
    share = sum(nats > NOTICEABLE for nats, _row in largest) / len(largest)
    return Distance(statistics.fmean(differences), *max(largest), share, flips)


def prove_chat(
    model: str,
    dataset: str,
    trained: Texts,
    greedy: Texts,
    chat: Texts,
    encode: Callable[[str], Ids],
    decode: Decode,
) -> ProofPart:
    """Compare chat answers, without white space around them.

    Their texts are compared with those of `greedy`, their ends with those of `trained`.
    """
    has_ends = any(trained[row].finish == STOP for row in chat)
    reference_ids = {row: encode(_bare(greedy[row].text)) for row in chat}
    chat_ids = {row: encode(_bare(answer.text)) for row, answer in chat.items()}
    rows, first = compare_ids(reference_ids, chat_ids, decode)
    refused = [row for row in trained if row not in chat]
    flips = sorted([*rows, *refused])
    return ProofPart(
        CHATS, model, dataset, len(trained), flips, len(flips), first, refused,
        runs_on=rows_that_run_on(trained, chat) if has_ends else None,
        finishes=dict(Counter(str(answer.finish) for answer in chat.values())),
    )  # fmt: skip


def rows_that_run_on(trained: Texts, answers: Texts) -> list[int]:
    """The rows of both whose trained answer ends, where the other one begins alike and goes on."""
    rows = []
    for row, answer in answers.items():
        if row not in trained or trained[row].finish != STOP:
            continue
        trained_text, text = _bare(trained[row].text), _bare(answer.text)
        if text.startswith(trained_text) and (text != trained_text or answer.finish == LENGTH):
            rows.append(row)
    return rows


def first_difference(row: int, expected: Ids, actual: Ids, decode: Decode) -> FirstDifference | None:
    """Find the first token in which two sequences differ. None if they are equal."""
    for place, (expected_id, actual_id) in enumerate(zip_longest(expected, actual)):
        if expected_id != actual_id:
            expected_text = decode(expected[place : place + SHOWN])
            actual_text = decode(actual[place : place + SHOWN])
            return FirstDifference(row, place, expected_id, actual_id, expected_text, actual_text)
    return None


def _bare(text: str) -> str:
    """A text without white space around it, and without a character that the longest length cut."""
    return text.strip().rstrip("\ufffd").rstrip()


def compare_ids(
    expected: Prompts, actual: Prompts, decode: Decode
) -> tuple[list[int], FirstDifference | None]:
    """The rows of both that differ, and the first difference."""
    rows = [row for row, ids in expected.items() if list(actual.get(row, ids)) != list(ids)]
    if not rows:
        return [], None
    return rows, first_difference(rows[0], expected[rows[0]], actual[rows[0]], decode)


def likeliest(labels: Mapping[str, float]) -> str:
    """The label with the highest log-probability."""
    return max(labels, key=labels.__getitem__)
