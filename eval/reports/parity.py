"""A parity check as Markdown for people and as JSON for programs, and whether it holds."""

import dataclasses

from core.errors import counted, show_value
from eval.metrics.parity import AnswerProof, FirstDifference, Proof
from eval.reports.numbers import Table, grid

PROMPTS = ("prompts made by", "dataset", "examples", "different ids", "first")
ANSWERS = ("answers of", *PROMPTS[1:3], "flips", "largest difference, nats", "different texts", "first")


@dataclasses.dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: answers that flip, and a label's log-probability in nats. Prompts may not."""

    flips: int
    nats: float

    def allows(self, answer: AnswerProof) -> bool:
        """Whether a model's answers differ by no more than that."""
        return len(answer.flips) <= self.flips and (answer.largest or 0.0) <= self.nats


def holds(proof: Proof, tolerance: Tolerance) -> bool:
    """Return whether all prompts are equal and all answers within the tolerance."""
    return not _beyond(proof, tolerance)


def verdict(proof: Proof, tolerance: Tolerance) -> str:
    """Return in a sentence what is proved, or everything that is not."""
    if wrong := _beyond(proof, tolerance):
        return f"Not equal: {'; '.join(wrong)}."
    ways = counted(1 + len({one.way for one in proof.prompts}), "way")
    rows = sum({one.dataset: one.n for one in proof.prompts}.values())
    same = f"Equal on {rows:,} examples: {ways} of making prompts give the same token ids"
    if not proof.answers:
        return f"{same}."
    models = counted(len({one.model for one in proof.answers}), "served model")
    flips = counted(sum(len(one.flips) for one in proof.answers), "flip")
    largest = max((one.largest for one in proof.answers if one.largest is not None), default=None)
    by = "" if largest is None else f", labels' log-probabilities within {largest:.2g} nats"
    return f"{same}, and the answers of {models} are the unmerged adapter's ({flips}{by})."


def _beyond(proof: Proof, tolerance: Tolerance) -> list[str]:
    """What differs by more than the tolerance allows."""
    wrong = [
        f"{one.way} gives other token ids in {one.differing} of {one.n} rows of {one.dataset}"
        for one in proof.prompts
        if not one.equal
    ]
    for one in proof.answers:
        if not tolerance.allows(one):
            nats = one.largest
            by = "" if nats is None else f", a label's log-probability differs by {nats:.2g} nats"
            wrong.append(f"{one.model} flips {len(one.flips)} of {one.n} answers of {one.dataset}{by}")
    return wrong


def markdown(proof: Proof, tolerance: Tolerance) -> str:
    """Return the page: the verdict, prompts, answers, what was not checked, and what is allowed."""
    prompts = [
        [one.way, one.dataset, f"{one.n:,}", f"{one.differing:,}", _first(one.first)] for one in proof.prompts
    ]
    parts = [
        "# Parity of training, scoring and serving",
        verdict(proof, tolerance),
        f"Reference of the prompts: {proof.reference}. Reference of the answers: the unmerged adapter. "
        f"Allowed: {counted(tolerance.flips, 'flip')}, {tolerance.nats:g} nats.",
        grid(Table(PROMPTS, prompts)),
    ]
    if proof.answers:
        parts.append(grid(Table(ANSWERS, [_answer(one) for one in proof.answers])))
    if proof.unchecked:
        parts.append("\n".join(f"- not checked: {what}" for what in proof.unchecked))
    return "\n\n".join(parts) + "\n"


def _answer(one: AnswerProof) -> list[str]:
    few = ", ".join(map(str, one.flips[:5])) + ("…" if len(one.flips) > 5 else "")
    flips = f"{len(one.flips)}" + (f" (row {few})" if one.flips else "")
    largest = "–" if one.largest is None else f"{one.largest:.2g} (row {one.largest_row})"
    first = _first(one.first)
    return [one.model, one.dataset, f"{one.n:,}", flips, largest, f"{one.differing:,}", first]


def _first(first: FirstDifference | None) -> str:
    if first is None:
        return ""
    sides = ((first.expected, first.expected_text), (first.found, first.found_text))
    was, now = ("the end" if token is None else f"{token} {show_value(text)}" for token, text in sides)
    return f"row {first.row}, token {first.place}: {was} became {now}"


def to_json(proof: Proof, tolerance: Tolerance, command: str) -> dict[str, object]:
    """Return the proof as plain JSON values."""
    return {
        "proved": holds(proof, tolerance),
        "verdict": verdict(proof, tolerance),
        "tolerance": dataclasses.asdict(tolerance),
        "reference": proof.reference,
        "prompts": [{**dataclasses.asdict(one), "equal": one.equal} for one in proof.prompts],
        "answers": [{**dataclasses.asdict(one), "within": tolerance.allows(one)} for one in proof.answers],
        "not_checked": list(proof.unchecked),
        **proof.facts,
        "command": command,
    }
