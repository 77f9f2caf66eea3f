"""prove.md and prove.json."""

from collections.abc import Sequence
from dataclasses import asdict

from tuneyard.core.errors import counted, one_line, show_value
from tuneyard.core.language.number_format import Table, grid
from tuneyard.eval.prove.proof import (
    AnswerProof,
    ChatProof,
    FirstDifference,
    PromptProof,
    Proof,
)

PROMPTS = ("prompts made by", "dataset", "examples", "different ids", "first")
CHATS = ("chat answers of", *PROMPTS[1:3], "different texts", "run on", "first")
ANSWERS = ("answers of", *PROMPTS[1:3], "flips", "largest difference, nats", "different texts", "first")


def markdown(proof: Proof) -> str:
    """Write the page: the verdict, the tolerance, the tables, causes, and the checks that were not made."""
    tolerance = proof.tolerance
    parts = [
        "# Parity of training, scoring and serving",
        one_line(proof.verdict()),
        f"Reference of the prompts: {proof.reference}. Reference of the answers: {proof.answering}. "
        f"Allowed: {counted(tolerance.flips, 'flip')}, {tolerance.nats:g} nats.",
    ]
    if proof.prompts:
        parts.append(grid(Table(PROMPTS, [_prompts(prompts) for prompts in proof.prompts])))
    if proof.answers:
        parts.append(grid(Table(ANSWERS, [_answer(one) for one in proof.answers])))
    if proof.chats:
        parts.append(grid(Table(CHATS, [_chat(chat) for chat in proof.chats])))
    if proof.causes:
        causes = ["{model}, {dataset}: {sentence}".format_map(cause) for cause in proof.causes]
        parts += ["## Causes", _bullets(causes)]
    if proof.unchecked:
        parts += ["## Not checked", _bullets(proof.unchecked)]
    return "\n\n".join(parts) + "\n"


def _bullets(texts: Sequence[str]) -> str:
    """A list in Markdown. Names and answers of servers may contain control characters, which are escaped."""
    return "\n".join(f"- {one_line(text)}" for text in texts)


def _prompts(prompts: PromptProof) -> list[str]:
    """One line of the table of prompts."""
    rows, differing = f"{prompts.n:,}", f"{prompts.differing:,}"
    return [prompts.way, prompts.dataset, rows, differing, _first(prompts.first)]


def _answer(answers: AnswerProof) -> list[str]:
    """One line of the table of answers, with the first five flipped rows."""
    flips = f"{len(answers.flips)}"
    if answers.flips:
        rows = ", ".join(map(str, answers.flips[:5]))
        if len(answers.flips) > 5:
            rows += "…"
        flips += f" (row {rows})"
    largest = "–"
    if answers.largest is not None:
        largest = f"{answers.largest:.2g} (row {answers.largest_row})"
    differing = "–"
    if answers.differing is not None:
        differing = f"{answers.differing:,}"
    return [
        answers.model,
        answers.dataset,
        f"{answers.n:,}",
        flips,
        largest,
        differing,
        _first(answers.first),
    ]


def _chat(chat: ChatProof) -> list[str]:
    """One line of the table of chat answers."""
    runs_on = "–"
    if chat.runs_on is not None:
        runs_on = f"{len(chat.runs_on):,}"
    return [chat.model, chat.dataset, f"{chat.n:,}", f"{chat.differing:,}", runs_on, _first(chat.first)]


def _first(first: FirstDifference | None) -> str:
    """Describe the first difference, e.g. `row 3, token 17: 12 'a' became the end`."""
    if first is None:
        return ""
    expected = _token(first.expected, first.expected_text)
    actual = _token(first.actual, first.actual_text)
    return f"row {first.row}, token {first.place}: {expected} became {actual}"


def _token(token: int | None, text: str) -> str:
    if token is None:
        return "the end"
    return f"{token} {show_value(text)}"


def to_json(proof: Proof, command: str) -> dict[str, object]:
    """The proof as plain JSON values, as prove.json has them."""

    def plain(one: PromptProof | AnswerProof | ChatProof, within: str) -> dict[str, object]:
        return {**asdict(one), within: not one.failure(proof.tolerance)}

    return {
        "proved": not proof.failures(),
        "verdict": proof.verdict(),
        "tolerance": asdict(proof.tolerance),
        "reference": proof.reference,
        "prompts": [plain(one, "equal") for one in proof.prompts],
        "answers": [plain(one, "within") for one in proof.answers],
        "chats": [plain(one, "within") for one in proof.chats],
        "causes": proof.causes,
        "not_checked": proof.unchecked,
        **proof.facts,
        "command": command,
    }
