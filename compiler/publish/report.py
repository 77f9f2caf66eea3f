"""The report of a compile or a check for people and for `--json`: counts, files, why it failed."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tuneyard.compiler.columns.label import UNKNOWN_LABEL
from tuneyard.compiler.engine.request import COUNTED, CompileReport
from tuneyard.compiler.spec.file import place_of
from tuneyard.compiler.spec.model import REJECTED
from tuneyard.core.datasets import REGISTRY
from tuneyard.core.datasets.compiled import ROW_INDEX
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import Message, _, counted, joined, relative

MOST_UNKNOWN = 0.05
"""Of the rows. More of them with unknown labels are a class, which no compile should leave out."""


def counts_line(report: CompileReport) -> Message:
    """One line: the counts, the records of each dataset, the seconds."""
    parts: list[str] = [report.name, _("read {rows}", rows=report.read)]
    if not report.failed:
        parts.append(_("kept {rows}", rows=report.kept))
    if report.dropped or not report.failed:
        parts.append(_("dropped {rows}", rows=_dropped_rows(report)))
    if report.rejected:
        parts.append(_("rejected {rows}", rows=report.rejected))
    if report.not_sampled:
        parts.append(_("not sampled {rows}", rows=report.not_sampled))
    if report.failed:
        parts.append(_("not written {rows}", rows=report.not_written))
    else:
        parts += [f"{name} {rows}" for name, rows in report.datasets.items()]
    if report.up_to_date:
        parts.append(_("up to date"))
    return joined([*parts, _("{seconds:.1f} s", seconds=report.seconds)], "  ")


def _dropped_rows(report: CompileReport) -> str:
    """How many rows are dropped, and for which reasons."""
    total = sum(report.dropped.values())
    if not report.dropped:
        return str(total)
    reasons = []
    for reason, rows in report.dropped.items():
        template = reason.replace("{", "{{").replace("}", "}}")  # one of a reader of yours may have braces
        reasons.append(_("{reason} {rows}", reason=_(template), rows=rows))
    return _("{count} ({reasons})", count=total, reasons=joined(reasons))


def why_failed(report: CompileReport, spec: str) -> Message:
    """Why a compile failed, and how to compile the other rows if only some rows are wrong.

    `spec` is its name or path.
    """
    problems = report.problems
    errors = problems.count("E")
    reason = counted(errors, "problem", "problems")
    if not errors:
        warnings = counted(problems.count("W"), "warning", "warnings")
        reason = _("{warnings}, and --strict", warnings=warnings)
    unknown = problems.counts[UNKNOWN_LABEL]
    if unknown > max(1, report.read * MOST_UNKNOWN):  # one row is no class
        fix = _("correct it there")
        if not spec.endswith((".yaml", ".yml")):  # a spec of the user's own may be what init has proposed
            fix = _("correct it there, or take the spec of this file: `tuneyard data init FILE` proposes one")
        return _(
            "{reason}; nothing was written. {number} of {rows} have labels that are not in `labels` "
            "({place}): {fix}",
            reason=reason,
            number=unknown,
            rows=counted(report.read, "row", "rows"),
            place=place_of("labels", spec),
            fix=fix,
        )
    if problems.fatal or not 0 < report.rejected < report.read:
        return _("{reason}; nothing was written. Correct them and compile again", reason=reason)
    return _(
        "{reason}; nothing was written. Correct {number} of {rows}, or compile the others with "
        "--on-error reject, which lists the rejected ones in {file}",
        reason=reason,
        number=report.rejected,
        rows=counted(report.read, "row", "rows"),
        file=REJECTED,
    )


def file_lines(report: CompileReport, out: Path) -> Iterator[Message]:
    """Yield the paths of the files that a compile has written, and the registry."""
    folder = out / report.name
    files = [relative(folder / name) for name in report.files if not name.endswith(ROW_INDEX)]
    yield _("files: {names}", names=", ".join(files))
    if report.rejected:
        yield _("rejected rows: {path}", path=folder / REJECTED)
    datasets = [name for name in report.datasets if name not in report.files]
    if datasets:
        yield _("registered in {path}: {names}", path=out / REGISTRY, names=", ".join(datasets))
    else:
        yield _("not registered: no output of the spec has a `dataset` name")


def report_as_json(report: CompileReport) -> JsonObject:
    """The figures of the counts, and every problem."""
    problems = report.problems
    counts = {key: getattr(report, key) for key in COUNTED}
    return {
        "name": report.name,
        **counts,
        "kept": 0 if report.failed else report.kept,
        "datasets": report.datasets,
        "up_to_date": report.up_to_date,
        "seconds": round(report.seconds, 3),
        "counts": dict(sorted(problems.counts.items())),
        "fit": report.quality,
        "notes": problems.notes,
        "not_used": dict(report.unused.rows),
        "ignored": dict(report.unused.ignored),
        "problems": [asdict(problem) for problem in [*problems.errors, *problems.warnings]],
    }
