"""Defect reports: the judgement and the reason in an answer of the form `判断:…`, `原因：…`.

A mark begins a line, bare or in Markdown (`**判断**：`, `## 1. 【判断】:`), its colon full- or
half-width; the reason may also follow on the judgement's line. The judgement is the first line after
its mark. An answer with no judgement, or with two different ones, does not parse.
"""

import re
import unicodedata
from dataclasses import dataclass

from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.figures.labels import UNKNOWN, summary
from tuneyard.eval.statistics.rates import Row, Rows, hits, share_of

LEAD = r"^(?:[^\S\n]|[>#*_•·-])*+(?:\d+[.．、)]\s*)?[*_【\[「\"“]*+"
COLON = r"[\s*_】\]」\"”]*[:：]"
JUDGEMENT = re.compile(f"{LEAD}判断{COLON}", re.MULTILINE)
REASON = re.compile(rf"(?:{LEAD}|(?<=[\s*,，;；。、]))原因{COLON}", re.MULTILINE)
EDGES = " \t*_`'\"“”‘’「」『』【】<>《》.,;:。，；：、!！"


@dataclass(frozen=True, slots=True)
class Report:
    """A parsed answer: its judgement as the model wrote it, and its reason ('' without a reason)."""

    judgement: str
    reason: str


def parse_report(text: str) -> Report | None:
    """Parse the answer's judgement and reason, without its <think> part; None if it does not parse."""
    parts = [REASON.split(part, maxsplit=1) for part in JUDGEMENT.split(cut_thought(text))]
    judgements = [_first_line(part[0]) for part in parts[1:]]
    if not judgements or not judgements[0] or len(set(map(canonical, judgements))) > 1:
        return None
    reasons = [part[1].strip(" \t\n*") for part in parts if len(part) > 1]
    return Report(judgements[0], "".join(reasons[:1]))


def canonical(judgement: str) -> str:
    """Normalise a judgement for comparing: NFKC, case folded, without white space and marks around it."""
    folded = unicodedata.normalize("NFKC", judgement).casefold()
    return "".join(folded.strip(EDGES).split())


def judge(expected: str, text: str) -> Report:
    """Parse a prediction's judgement and reason. An equal judgement gets the reference's spelling."""
    report = parse_report(text)
    if report is None:
        return Report(UNKNOWN, "")
    is_equal = canonical(report.judgement) == canonical(expected)
    return Report(expected if is_equal else report.judgement, report.reason)


def report_summary(rows: Rows) -> dict[str, object]:
    """Accuracy of the judgements with its uncertainty: overall, by subtype and by type.

    A row's type is its field `type`, otherwise its reference judgement.
    """
    return {
        **summary(rows),
        "subtypes": _by([row["subtype"] for row in rows], rows),
        "types": _by([row.get("type", row["expected_output"]) for row in rows], rows),
    }


def _by(kinds: list[str], rows: Rows) -> dict[str, dict[str, object] | None]:
    """Accuracy of each kind, the most common first."""
    parted: dict[str, list[Row]] = {}
    for kind, row in zip(kinds, rows, strict=True):
        parted.setdefault(kind, []).append(row)
    ordered = sorted(parted.items(), key=lambda item: (-len(item[1]), item[0]))
    return {kind: share_of(hits(of_kind), of_kind) for kind, of_kind in ordered}


def _first_line(text: str) -> str:
    for line in text.splitlines():
        stripped = line.strip(EDGES)
        if stripped:
            return stripped
    return ""
