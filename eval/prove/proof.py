"""What a parity check compares, the differences it finds, and which of them a tolerance allows."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tuneyard.core.errors import counted
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.served import ServerFacts

SHOWN = 8  # tokens of which the text is given
Ids = Sequence[int]
Decode = Callable[[Ids], str]
Labels = Mapping[int, Mapping[str, float]]
"""Log-probabilities of labels in nats, by row."""


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
class PromptProof:
    """One way of making prompts, compared with the reference on the rows of a dataset.

    `refused` lists the rows whose messages a server refuses. They count as differing.
    """

    way: str
    dataset: str
    n: int
    differing: int
    first: FirstDifference | None
    refused: Sequence[int] = ()

    @property
    def equal(self) -> bool:
        """True if every row has the same token ids."""
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to the same ids: the greedy texts, and each label's log-probability in nats.

    `texts` is None if the model gives none. `tokens` are their ids by the base's tokenizer. `labels` is None
    if the dataset has no set of labels, or if a server gives no log-probabilities.
    """

    tokens: Mapping[int, Ids] | None
    labels: Labels | None
    texts: Mapping[int, Generated] | None = None


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """One model's answers, compared with the unmerged adapter's on the rows of a dataset.

    `flips` lists the rows whose likeliest label differs. Without labels it lists the rows whose generated
    tokens differ. `largest` is the largest difference of a label's log-probability in nats, and `largest_row`
    is its row. Both are None without labels. `differing` counts the rows whose generated tokens differ,
    None if the server generates none after our ids. `first` describes the first of them. `refused` lists the
    rows that the server refuses, e.g. beyond its context: they are flips, too.
    """

    model: str
    dataset: str
    n: int
    flips: Sequence[int]
    largest: float | None
    largest_row: int | None
    differing: int | None
    first: FirstDifference | None
    refused: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ChatProof:
    """A server's chat answers to the messages alone.

    They are compared with the server's greedy texts after our ids, whose weights are the same; if it gives
    none, with the unmerged adapter's. `differing` counts refused rows, too. `runs_on` lists the rows in which
    training's end token ends the expected answer, but not the server's. It is None if no expected answer
    ended. `finishes` counts the server's reasons for the end of an answer.
    """

    model: str
    dataset: str
    n: int
    differing: int
    first: FirstDifference | None
    runs_on: Sequence[int] | None
    finishes: Mapping[str, int]
    refused: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class FoundCause:
    """A cause of a served model's differences on a dataset, in a sentence with its fix."""

    model: str
    dataset: str
    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of a parity check.

    `prompts` are compared with those of the way `reference`, `answers` with the unmerged adapter's. `chats`,
    `causes` and `servers` belong to servers. `unchecked` lists the comparisons that were not made, with the
    reason. `facts` are the settings, hashes and versions.
    """

    reference: str
    prompts: Sequence[PromptProof]
    answers: Sequence[AnswerProof]
    unchecked: Sequence[str]
    facts: Mapping[str, object]
    chats: Sequence[ChatProof] = ()
    causes: Sequence[FoundCause] = ()
    servers: Sequence[ServerFacts] = ()


@dataclass(frozen=True, slots=True)
class ParityInputs:
    """Inputs to compare the adapters with: the training template, served files, and servers.

    A server is its address and the name of its model, None if no option names it.
    """

    template: str | None
    fused: Path | None = None
    gguf: Path | None = None
    modelfile: Path | None = None
    servers: Sequence[tuple[str, str | None]] = ()


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed differences: flipped answers, and nats of a label's log-probability. Prompts may not differ."""

    flips: int
    nats: float

    def allows(self, answer: AnswerProof) -> bool:
        """True if a model's answers are within the tolerance."""
        return len(answer.flips) <= self.flips and (answer.largest or 0.0) <= self.nats

    def allows_chat(self, chat: ChatProof) -> bool:
        """True if at most the allowed number of chat answers differ, or run on."""
        return max(chat.differing, len(chat.runs_on or ())) <= self.flips


def prove_prompts(
    way: str, dataset: str, expected: Mapping[int, Ids], actual: Mapping[int, Ids], decode: Decode
) -> PromptProof:
    """Compare the token ids of two ways of making prompts, row by row."""
    written = {row: ids for row, ids in expected.items() if row in actual}
    differing, first = _differing_rows(written, actual, decode)
    refused = [row for row in expected if row not in actual]
    return PromptProof(way, dataset, len(expected), differing + len(refused), first, refused)


def prove_answers(
    model: str, dataset: str, expected: Answers, actual: Answers, decode: Decode
) -> AnswerProof:
    """Compare a model's answers with the reference's: labels, texts, or both."""
    rows = list(expected.tokens or expected.labels or ())
    flips: list[int] = []
    answered: set[int] = set()
    differing, first = None, None
    if expected.tokens is not None and actual.tokens is not None:
        answered.update(actual.tokens)
        expected_tokens = {row: expected.tokens[row] for row in rows if row in actual.tokens}
        flips = [row for row, ids in expected_tokens.items() if ids != actual.tokens[row]]
        differing, first = _differing_rows(expected_tokens, actual.tokens, decode)
    largest, largest_row = None, None
    if expected.labels is not None and actual.labels:
        answered.update(actual.labels)
        flips = [row for row in flips if row not in actual.labels]
        differences = []
        for row, actual_labels in actual.labels.items():
            expected_labels = expected.labels[row]
            if likeliest(expected_labels) != likeliest(actual_labels):
                flips.append(row)
            nats = max(abs(logp - actual_labels[label]) for label, logp in expected_labels.items())
            differences.append((nats, row))
        largest, largest_row = max(differences)
    refused = [row for row in rows if row not in answered]
    flips = sorted({*flips, *refused})
    return AnswerProof(model, dataset, len(rows), flips, largest, largest_row, differing, first, refused)


def prove_chat(
    model: str,
    dataset: str,
    expected: Answers,
    served: Answers,
    chat: Mapping[int, Generated],
    encode: Callable[[str], Ids],
    decode: Decode,
) -> ChatProof:
    """Compare chat answers, without white space around them.

    Their texts are compared with those of `served`, their ends with those of `expected`.
    """
    trained = expected.texts or {}
    greedy = served.texts or {}
    reference_ids, chat_ids = {}, {}
    has_ends, runs_on = False, []
    for row, answer in chat.items():
        reference = greedy.get(row, trained[row])
        reference_ids[row], chat_ids[row] = encode(_bare(reference.text)), encode(_bare(answer.text))
        if trained[row].finish != STOP:
            continue
        has_ends = True
        trained_text, text = _bare(trained[row].text), _bare(answer.text)
        is_longer = text.startswith(trained_text) and text != trained_text
        if is_longer or answer.finish == LENGTH:
            runs_on.append(row)
    differing, first = _differing_rows(reference_ids, chat_ids, decode)
    refused = [row for row in trained if row not in chat]
    finishes = Counter(str(answer.finish) for answer in chat.values())
    return ChatProof(
        model,
        dataset,
        len(trained),
        differing + len(refused),
        first,
        runs_on if has_ends else None,
        dict(finishes),
        refused,
    )


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


def _differing_rows(
    expected: Mapping[int, Ids], actual: Mapping[int, Ids], decode: Decode
) -> tuple[int, FirstDifference | None]:
    """Count the rows that differ, and find the first difference."""
    differences = []
    for row, ids in expected.items():
        difference = first_difference(row, ids, actual[row], decode)
        if difference:
            differences.append(difference)
    return len(differences), next(iter(differences), None)


def likeliest(labels: Mapping[str, float]) -> str:
    """The label with the highest log-probability."""
    return max(labels, key=labels.__getitem__)


def answering(proof: Proof) -> str:
    """What gives the answers that others are compared with."""
    return "the unmerged adapter" if proof.facts["adapters"] else "the model in this process"


def holds(proof: Proof, tolerance: Tolerance) -> bool:
    """True if all prompts are equal and all answers are within the tolerance."""
    return not _beyond(proof, tolerance)


def verdict(proof: Proof, tolerance: Tolerance) -> str:
    """Summarise the check in one sentence: the extent of the parity, or every failure."""
    failures = _beyond(proof, tolerance)
    if failures:
        return f"Not equal: {'; '.join(failures)}."
    rows_by_dataset = {answers.dataset: answers.n for answers in proof.answers}
    rows_by_dataset.update({chat.dataset: chat.n for chat in proof.chats})
    rows_by_dataset.update({prompts.dataset: prompts.n for prompts in proof.prompts})
    equal = [f"Equal on {counted(sum(rows_by_dataset.values()), 'example')}:"]
    if proof.prompts:
        compared_ways = {prompts.way for prompts in proof.prompts}
        ways = counted(len(compared_ways), "other way")
        give = "gives" if len(compared_ways) == 1 else "give"
        equal.append(f"{ways} of making prompts {give} the reference's token ids")
    model_names = {*(answers.model for answers in proof.answers), *(chat.model for chat in proof.chats)}
    if not model_names:
        return f"{' '.join(equal)}."
    if proof.prompts:
        equal[-1] += ", and"
    models = counted(len(model_names), "served model")
    flips = counted(sum(len(answers.flips) for answers in proof.answers), "flip")
    nats = [answers.largest for answers in proof.answers if answers.largest is not None]
    within = ""
    if nats:
        within = f", labels' log-probabilities within {max(nats):.2g} nats"
    return f"{' '.join(equal)} the answers of {models} are those of {answering(proof)} ({flips}{within})."


def _beyond(proof: Proof, tolerance: Tolerance) -> list[str]:
    """Describe every difference that the tolerance does not allow."""
    failures = []
    for prompts in proof.prompts:
        if not prompts.equal:
            rows = counted(prompts.n, "row")
            failures.append(
                f"{prompts.way} gives other token ids in {prompts.differing} of {rows} of {prompts.dataset}"
                f"{_refused(prompts.refused)}"
            )
    for answers in proof.answers:
        if tolerance.allows(answers):
            continue
        nats = ""
        if answers.largest is not None:
            nats = f", a label's log-probability differs by {answers.largest:.2g} nats"
        total = counted(answers.n, "answer")
        failures.append(
            f"{answers.model} flips {len(answers.flips)} of {total} of {answers.dataset}"
            f"{_refused(answers.refused)}{nats}"
        )
    for chat in proof.chats:
        if tolerance.allows_chat(chat):
            continue
        total = counted(chat.n, "chat answer")
        failure = f"{chat.model} gives {chat.differing} other of {total} to {chat.dataset}"
        if chat.runs_on:
            failure += f", and {len(chat.runs_on)} run on"
        failures.append(failure)
    return failures


def _refused(rows: Sequence[int]) -> str:
    """The number of refused rows for a sentence, "" without any."""
    return f" ({len(rows)} refused)" if rows else ""
