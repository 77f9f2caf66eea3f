"""prove.md and prove.json."""

from collections.abc import Sequence
from dataclasses import asdict

from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _, counted, tr, translated
from tuneyard.core.language.number_format import NONE
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import markdown_text
from tuneyard.eval.prove.proof import ANSWERS, CHATS, PROMPTS, FirstDifference, Proof, ProofPart, Tolerance

HEADERS = {
    PROMPTS: (_("prompts made by"), _("different ids")),
    ANSWERS: (
        _("answers of"),
        _("flips"),
        _("largest difference, nats"),
        _("different texts"),
    ),
    CHATS: (_("chat answers of"), _("different texts"), _("run on")),
}
FIELDS = {
    PROMPTS: ("differing", "first", "refused"),
    ANSWERS: ("flips", "largest", "largest_row", "differing", "first", "refused"),
    CHATS: ("differing", "first", "runs_on", "finishes", "refused"),
}
"""What prove.json has of each comparison."""
MOST_ROWS = 5  # of the rows that differ


def markdown(proof: Proof) -> str:
    """Write the page: the verdict, the tolerance, the tables, causes, and the checks that were not made."""
    tolerance = proof.tolerance
    parts = [
        tr("# Parity of training, scoring and serving"),
        markdown_text(translated(proof.verdict())),
        tr(
            "Reference of the prompts: {prompts}. Reference of the answers: {answers}. Allowed: "
            "{flips}, {nats:g} nats.",
            prompts=markdown_text(translated(proof.reference)),
            answers=markdown_text(translated(proof.answering)),
            flips=counted(tolerance.flips, "flip", "flips"),
            nats=tolerance.nats,
        ),
    ]
    for part, (name, *columns) in HEADERS.items():
        rows = [_cells(one) for one in proof.of(part)]
        if rows:
            header = [translated(name), tr("dataset"), tr("examples")]
            header += [*map(translated, columns), tr("first")]
            parts.append(markdown_table(header, rows))
    if proof.causes:
        causes = [_("{model}, {dataset}: {sentence}", **cause) for cause in proof.causes]
        parts += [tr("## Causes"), _bullets(causes)]
    if proof.unchecked:
        parts += [tr("## Not checked"), _bullets(proof.unchecked)]
    return "\n\n".join(parts) + "\n"


def _bullets(texts: Sequence[str]) -> str:
    """A list in Markdown. Names and answers of servers may contain control characters, which are escaped."""
    return "\n".join(f"- {markdown_text(translated(text))}" for text in texts)


def _cells(one: ProofPart) -> list[str]:
    """One line of a table, with the first rows that differ."""
    flips = f"{len(one.flips):,}"
    if one.flips:
        rows = ", ".join(map(str, one.flips[:MOST_ROWS]))
        if len(one.flips) > MOST_ROWS:
            rows += "…"
        flips = tr("{flips} (row {rows})", flips=flips, rows=rows)
    cells = [translated(one.model), one.dataset, f"{one.n:,}", flips]
    if one.part == ANSWERS:
        largest, differing = NONE, NONE
        if one.largest is not None:
            largest = tr("{largest:.2g} (row {row})", largest=one.largest, row=one.largest_row)
        if one.differing is not None:
            differing = f"{one.differing:,}"
        cells += [largest, differing]
    elif one.part == CHATS:
        runs_on = NONE
        if one.runs_on is not None:
            runs_on = f"{len(one.runs_on):,}"
        cells.append(runs_on)
    return [*cells, _first(one.first)]


def _first(first: FirstDifference | None) -> str:
    """Describe the first difference, e.g. `row 3, token 17: 12 'a' became the end`."""
    if first is None:
        return ""
    expected = _token(first.expected, first.expected_text)
    actual = _token(first.actual, first.actual_text)
    return tr(
        "row {row}, token {place}: {expected} became {actual}",
        row=first.row,
        place=first.place,
        expected=expected,
        actual=actual,
    )


def _token(token: int | None, text: str) -> str:
    if token is None:
        return tr("the end")
    return f"{token} {show_value(text)}"


def to_json(proof: Proof, command: str) -> dict[str, object]:
    """The proof as plain JSON values, as prove.json has them."""
    return {
        "proved": not proof.failures(),
        "verdict": proof.verdict(),
        "tolerance": asdict(proof.tolerance),
        "reference": proof.reference,
        "prompts": [_json(one, "way", "equal", proof.tolerance) for one in proof.of(PROMPTS)],
        "answers": [_json(one, "model", "within", proof.tolerance) for one in proof.of(ANSWERS)],
        "chats": [_json(one, "model", "within", proof.tolerance) for one in proof.of(CHATS)],
        "causes": proof.causes,
        "not_checked": proof.unchecked,
        **proof.facts,
        "command": command,
    }


def _json(one: ProofPart, name: str, within: str, tolerance: Tolerance) -> dict[str, object]:
    """A comparison with the fields of its part, under `name` its way or model."""
    fields = asdict(one)
    of_part = {field: fields[field] for field in FIELDS[one.part]}
    return {
        name: one.model,
        "dataset": one.dataset,
        "n": one.n,
        **of_part,
        within: not one.failure(tolerance),
    }
