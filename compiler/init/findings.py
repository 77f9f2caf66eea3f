"""What is wrong with the rows of a file and a spec can mend: HTML, words for no answer, repeated rows, leaks.

A finding that is no matter of taste is a key of the proposed spec. Any other one is a line to uncomment.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from tuneyard.compiler.check.cleaning import HTML
from tuneyard.compiler.engine.request import CompileReport
from tuneyard.compiler.init.column_statistics import CHINESE, FEWEST_ROWS, FileStatistics
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.lint.empty_answers import EMPTY
from tuneyard.compiler.lint.html_answers import HTML_ANSWER, MARKUP
from tuneyard.compiler.lint.leaks import LEAK
from tuneyard.compiler.lint.repeated_rows import REPEATED_ROW
from tuneyard.compiler.lint.text_keys import plain_text
from tuneyard.compiler.spec.file import Raw
from tuneyard.compiler.spec.model import UNLABELLED, Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.errors import show_value, show_values
from tuneyard.core.language.message import _, counted

_MAY_BE_ANSWERS = {b"-", b"none", b"null", *(word.encode() for word in ("–", "—", "无", "暂无"))}
"""Words for nothing that may be the right answer to a question."""
_MOST_EMPTY = 0.5
"""The share of empty answers from which on the column is hardly that of the answers."""
_MOST_REPEATED = 0.5
_CLASS_PAIRS = {
    "退款": ("refund", "refunds"), "退货": ("return", "returns"),
    "物流": ("shipping", "logistics", "delivery"),
    "配送": ("delivery", "shipping"), "快递": ("shipping", "delivery"), "账号": ("account",),
    "账户": ("account",), "登录": ("login",), "发票": ("invoice",), "账单": ("billing", "bill"),
    "支付": ("payment",), "付款": ("payment",), "投诉": ("complaint",), "咨询": ("inquiry", "question"),
    "售后": ("after-sales", "support"), "售前": ("pre-sales", "sales"), "维修": ("repair",),
    "技术": ("technical", "tech"), "故障": ("bug", "fault"), "其他": ("other", "others"), "其它": ("other",),
    "正面": ("positive",), "积极": ("positive",), "负面": ("negative",), "消极": ("negative",),
    "中性": ("neutral",), "中立": ("neutral",), "是": ("yes",), "否": ("no",), "垃圾": ("spam",),
}  # fmt: skip
"""Chinese names of classes with English ones of the same meaning."""


class Findings(NamedTuple):
    """Keys of a spec, lines that a user may uncomment at its end, and what people should know."""

    keys: Raw
    to_uncomment: list[str]
    messages: list[str]


def findings_of(
    statistics: FileStatistics, proposal: Proposal, spec: Spec, report: CompileReport
) -> Findings:
    """What a spec can mend in a file. `report` is the check of the spec on all rows."""
    findings = Findings({}, [], [])
    if not spec.clean:
        _find_html(findings, statistics, proposal, report)
    if not (spec.empty or proposal.labels):
        _find_empty_answers(findings, statistics, proposal)
    _find_repeated_rows(findings, statistics, proposal, report)
    _find_leaks(findings, report)
    _find_scripts(findings, proposal, report)
    return findings


def _texts_of_rows(statistics: FileStatistics, proposal: Proposal) -> list[list[str]]:
    """The texts of the prompt and of the answer, of each of the first rows."""
    leaves = list(proposal.prompts(statistics).values())
    answer = proposal.answer(statistics)
    if answer is not None:
        leaves.append(answer)
    columns = [map(str, statistics.values(leaf)) for leaf in leaves]
    return [list(texts) for texts in zip(*columns, strict=True)]


def _find_html(
    findings: Findings, statistics: FileStatistics, proposal: Proposal, report: CompileReport
) -> None:
    """Propose to take out HTML, unless a row is about web pages or programs, or has messages."""
    rows = _texts_of_rows(statistics, proposal)
    with_html = sum(any(map(HTML.search, texts)) for texts in rows)
    is_meant = any(any(map(MARKUP.search, texts)) for texts in rows)
    count, total = with_html, counted(len(rows), "row", "rows")
    if not with_html:
        count, total = report.problems.counts[HTML_ANSWER], counted(report.read, "row", "rows")
        is_meant = True
    if not count:
        return
    if is_meant:
        findings.to_uncomment.append("clean: [html]")
        findings.messages.append(
            _(
                "HTML in {count} of {rows}: uncomment `clean: [html]` to take it out, unless it is meant",
                count=count,
                rows=total,
            )
        )
        return
    findings.keys["clean"] = ["html"]
    findings.messages.append(
        _("HTML in {count} of {rows}: `clean: [html]` takes it out", count=count, rows=total)
    )


def _find_empty_answers(findings: Findings, statistics: FileStatistics, proposal: Proposal) -> None:
    """Propose to drop rows with a word for no answer, and words that may be an answer in a comment."""
    answer = proposal.answer(statistics)
    if answer is None:
        return
    texts = ["" if value is None else str(value).strip() for value in statistics.values(answer)]
    words = Counter(text for text in texts if plain_text(text) in EMPTY)
    doubtful = {word: count for word, count in words.items() if plain_text(word) in _MAY_BE_ANSWERS}
    certain = {word: count for word, count in words.items() if word not in doubtful}
    if sum(words.values()) > _MOST_EMPTY * len(texts):
        return
    values = [word for word in certain if word] or [""]
    if certain:
        findings.keys["empty"] = values
        findings.messages.append(
            _(
                "{column} is {values} in {count} of {rows}: `empty` drops these rows",
                column=answer.path,
                values=show_values(certain),
                count=sum(certain.values()),
                rows=counted(len(texts), "row", "rows"),
            )
        )
    if doubtful:
        both = [value for value in (*(values if certain else ()), *doubtful) if value]
        findings.to_uncomment.append(f"empty: [{', '.join(map(show_value, both))}]")
        findings.messages.append(
            _(
                "{column} is {values} in {count} of {rows}: uncomment `empty` to drop these rows, if "
                "it is no answer",
                column=answer.path,
                values=show_values(doubtful),
                count=sum(doubtful.values()),
                rows=counted(len(texts), "row", "rows"),
            )
        )


def _find_repeated_rows(
    findings: Findings, statistics: FileStatistics, proposal: Proposal, report: CompileReport
) -> None:
    """Propose to drop repeated rows, in a comment if they are most rows: people repeat rows to weigh them.

    If some rows are bad, the check compares none: the first ones are compared here.
    """
    repeated, total = report.problems.counts[REPEATED_ROW], report.read
    if report.failed:
        rows = _texts_of_rows(statistics, proposal)
        keys = Counter(tuple(map(plain_text, texts)) for texts in rows)
        repeated, total = len(rows) - len(keys), len(rows)
    if not repeated or total < FEWEST_ROWS:
        return
    if repeated > _MOST_REPEATED * total:
        findings.to_uncomment.append("drop_duplicates: true")
        message = _(
            "{count} of {rows} came before: uncomment `drop_duplicates` to leave them out",
            count=repeated,
            rows=counted(total, "row", "rows"),
        )
    else:
        findings.keys["drop_duplicates"] = True
        message = _(
            "{count} of {rows} came before: `drop_duplicates` leaves them out",
            count=repeated,
            rows=counted(total, "row", "rows"),
        )
    findings.messages.append(message)


def _find_leaks(findings: Findings, report: CompileReport) -> None:
    """Propose to drop training rows that another split has, too, in a comment if they are most rows."""
    leaks = report.problems.counts[LEAK]
    if not leaks:
        return
    rows_of_train = report.quality.get(TRAIN_SPLIT, {}).get("rows", 0)
    rows = counted(leaks, "row", "rows")
    if leaks > _MOST_REPEATED * rows_of_train:
        findings.to_uncomment.append("drop_leaks: true")
        message = _(
            "{rows} of train with the input of another split: uncomment `drop_leaks` to leave them out",
            rows=rows,
        )
    else:
        findings.keys["drop_leaks"] = True
        message = _(
            "{rows} of train with the input of another split: `drop_leaks` leaves them out", rows=rows
        )
    findings.messages.append(message)


def _find_scripts(findings: Findings, proposal: Proposal, report: CompileReport) -> None:
    """Name classes in Chinese next to some in Latin letters, and which may mean the same."""
    names = [name for name in proposal.labels if name != UNLABELLED]
    chinese = [name for name in names if CHINESE.search(name)]
    latin = [name for name in names if name.isascii() and any(map(str.isalpha, name))]
    if not chinese or not latin:
        return
    rows = _rows_of_classes(report)
    message = _(
        "classes in two scripts: {chinese} next to {latin}; if two are one class, write them in one line of "
        "`labels`",
        chinese=_with_rows(chinese, rows),
        latin=_with_rows(latin, rows),
    )
    english = {name.lower(): name for name in latin}
    pairs = []
    for name in chinese:
        other = next((english[word] for word in _CLASS_PAIRS.get(name, ()) if word in english), None)
        if other is not None:
            pairs.append(f"{other}: [{other}, {name}]")
    if pairs:
        message = _("{message}, as {pairs}", message=message, pairs="; ".join(pairs))
    findings.messages.append(message)


def _rows_of_classes(report: CompileReport) -> Mapping[str, int]:
    """The rows of each class that a check has kept, {} if it has compared none."""
    rows: Counter[str] = Counter()
    for summary in report.quality.values():
        if isinstance(summary, dict):
            rows.update(summary.get("labels", {}))
    return rows


def _with_rows(names: list[str], rows: Mapping[str, int]) -> str:
    """Names of classes with their rows, the first ten."""
    listed = [f"{show_value(name)} ({rows[name]})" if name in rows else show_value(name) for name in names]
    return ", ".join(islice(listed, 10))
