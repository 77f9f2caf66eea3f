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
from tuneyard.core.language.message import _, counted, tr

MOST_UNKNOWN = 0.05
"""Of the rows. More of them with unknown labels are a class, which no compile should leave out."""


def counts_line(report: CompileReport) -> str:
    """One line: the counts, the records of each dataset, the seconds."""
    parts = [report.name, f"read {report.read}"]
    if not report.failed:
        parts.append(f"kept {report.kept}")
    if report.dropped or not report.failed:
        dropped = str(sum(report.dropped.values()))
        if report.dropped:
            reasons = ", ".join(f"{tr(reason)} {count}" for reason, count in report.dropped.items())
            dropped = tr("{count} ({reasons})", count=dropped, reasons=reasons)
        parts.append(f"dropped {dropped}")
    if report.rejected:
        parts.append(f"rejected {report.rejected}")
    if report.not_sampled:
        parts.append(f"not sampled {report.not_sampled}")
    if report.failed:
        parts.append(f"not written {report.not_written}")
    else:
        parts += [f"{name} {rows}" for name, rows in report.datasets.items()]
    if report.up_to_date:
        parts.append(tr("up to date"))
    return "  ".join([*parts, f"{report.seconds:.1f} s"])


def why_failed(report: CompileReport, spec: str) -> str:
    """Why a compile failed, and how to compile the other rows if only some rows are wrong.

    `spec` is its name or path.
    """
    problems = report.problems
    errors = problems.count("E")
    reason: str = counted(errors, "problem", "problems")
    if not errors:
        reason = f"{counted(problems.count('W'), 'warning', 'warnings')}, and --strict"
    message = f"{reason}; nothing was written"
    of_rows = counted(report.read, "row", "rows")
    unknown = problems.counts[UNKNOWN_LABEL]
    if unknown > max(1, report.read * MOST_UNKNOWN):  # one row is no class
        place = place_of("labels", spec)
        fix = "correct it there"
        if not spec.endswith((".yaml", ".yml")):  # a spec of the user's own may be what init has proposed
            fix += ", or take the spec of this file: `tuneyard data init FILE` proposes one"
        return f"{message}. {unknown} of {of_rows} have labels that are not in `labels` ({place}): {fix}"
    if problems.fatal or not 0 < report.rejected < report.read:
        return f"{message}. Correct them and compile again"
    return (
        f"{message}. Correct {report.rejected} of {of_rows}, or compile the others with "
        f"--on-error reject, which lists the rejected ones in {REJECTED}"
    )


def file_lines(report: CompileReport, out: Path) -> Iterator[str]:
    """Yield the paths of the files that a compile has written, and the registry."""
    folder = out / report.name
    files = [str(folder / name) for name in report.files if not name.endswith(ROW_INDEX)]
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
        "fit": report.fit,
        "notes": problems.notes,
        "not_used": dict(report.unused.rows),
        "ignored": dict(report.unused.ignored),
        "problems": [asdict(problem) for problem in [*problems.errors, *problems.warnings]],
    }
