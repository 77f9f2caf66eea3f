"""The report of verify: counts, findings with their first locations, token lengths, one marked example."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from math import ceil

from tuneyard.compiler.lint.fingerprints import quantiles
from tuneyard.compiler.verify.audit import Audit
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.datasets.compiled import MANIFEST
from tuneyard.core.errors import summarise
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _

BARS = 8
REPEATED = re.compile(r"(<\|[^|<>]+\|>)\1{3,}")


def lines(verdict: Verdict, every: bool) -> Iterator[str]:
    """The report on one dataset, line by line; `every` shows all findings kept."""
    if verdict.problems:
        yield summarise(verdict.problems, every, verdict.counts)
    yield (
        _(
            "{name}: {count} records in the file, {rows} rows from LLaMA-Factory's "
            "loader, {same} with the same turns and text",
            name=verdict.dataset,
            count=verdict.records,
            rows=verdict.loaded,
            same=verdict.same,
        )
    )
    if verdict.trained not in (None, verdict.records):
        yield (
            _(
                "{name}: `split` and `num_samples` of its entry draw {number} rows of these "
                "{records} records for a training",
                name=verdict.dataset,
                number=verdict.trained,
                records=verdict.records,
            )
        )
    if not verdict.is_compiled:
        yield (
            _(
                "{dataset} was not compiled here (no {manifest} lists it): the hash of its "
                "file and its entry were not compared with a compile's",
                dataset=verdict.dataset,
                manifest=MANIFEST,
            )
        )
    yield from verdict.notes
    audit = verdict.audit
    if audit and audit.rows:
        lengths = ", ".join(f"{name} {value}" for name, value in quantiles(audit.lengths).items())
        yield _("tokens per row: {lengths} (cutoff_len {cutoff})", lengths=lengths, cutoff=verdict.cutoff)
        yield from [_learned_pretraining(audit, verdict)] if verdict.stage == "pt" else _learned(audit)
    yield from (_("not checked: {what}", what=reason) for reason in verdict.not_checked)


def as_json(verdict: Verdict) -> JsonObject:
    """The report on one dataset as plain values."""
    same_keys = ("dataset", "records", "loaded", "same", "stage", "failed")
    report: JsonObject = {key: getattr(verdict, key) for key in same_keys}
    report["compiled"] = verdict.is_compiled
    report |= {
        "counts": dict(sorted(verdict.counts.items())),
        "problems": [asdict(problem) for problem in verdict.problems],
        "trained": verdict.trained,
        "unread_turn_keys": dict(verdict.unread_turn_keys),
        "not_checked": verdict.not_checked,
    }
    audit = verdict.audit
    if audit:
        report["tokens"] = {
            **quantiles(audit.lengths),
            "cutoff_len": verdict.cutoff,
            **{key: getattr(audit, key) for key in ("rows", "seen", "learned")},
            "turns": dict(audit.turns),
            "histogram": histogram(audit.lengths),
        }
        if verdict.packing:
            report["blocks"] = audit.blocks
        report["example"] = [{"text": text, "learned": learned} for text, learned in audit.example]
        if audit.rejected:
            report["rejected"] = audit.rejected
    return report


def histogram(lengths: Counter[int], bars: int = BARS) -> list[tuple[int, int, int]]:
    """(from, to, rows) for at most `bars` classes of equal width; `to` is included."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = max(1, ceil((high - low + 1) / bars))
    counts = Counter((length - low) // width for length in lengths.elements())
    return [(low + n * width, low + (n + 1) * width - 1, counts[n]) for n in range((high - low) // width + 1)]


def _learned_pretraining(audit: Audit, verdict: Verdict) -> str:
    line = _("{number} tokens, all of them loss tokens (stage pt)", number=audit.seen)
    if not verdict.packing:
        return line
    rest = audit.uncut - audit.seen
    return _(
        "{line}, in {blocks} blocks of {cutoff}; {rest} left over: LLaMA-Factory "
        "drops what does not fill the last block of each batch of rows",
        line=line,
        blocks=audit.blocks,
        cutoff=verdict.cutoff,
        rest=rest,
    )


def _learned(audit: Audit) -> Iterator[str]:
    share = audit.learned / audit.seen if audit.seen else 0
    yield _(
        "{number} tokens, {learned} of them loss tokens ({share:.1%}); everything else is masked",
        number=audit.seen,
        learned=audit.learned,
        share=share,
    )
    yield _("labels: LLaMA-Factory's own processor and tokenizer on every row")
    yield from _messages(audit.turns)
    if audit.example:
        yield _("the first example, loss tokens between ⟦ and ⟧:")
        example = ""
        for text, learned in audit.example:
            example += f"⟦{text}⟧" if learned else text
        yield REPEATED.sub(_with_count, example)
    if audit.rejected:
        yield _("rejected, after the same prompt:")
        yield "".join(f"⟦{text}⟧" for text in audit.rejected)


def _with_count(match: re.Match[str]) -> str:
    """A token that repeats (an image has many) once, with its count."""
    return f"{match[1]} × {len(match[0]) // len(match[1])} "


def _messages(turns: Counter[str]) -> Iterator[str]:
    """Lines on tool calls, their results and reasoning, if the rows have any."""
    learned = turns["assistant"] + turns["function"]
    if turns["function"] or turns["observation"]:
        yield (
            _(
                "turns: {answers} answers and {calls} calls of tools learned, {results} "
                "results of tools masked",
                answers=turns["assistant"],
                calls=turns["function"],
                results=turns["observation"],
            )
        )
    if turns["thought"] or turns["removed"]:
        yield (
            _(
                "reasoning: learned in {learned} of {turns} turns; removed from {removed} "
                "(enable_thinking: false); an empty thought put before {empty}",
                learned=turns["thought"],
                turns=learned,
                removed=turns["removed"],
                empty=turns["empty"],
            )
        )
