"""Whether runs of one set may be compared: the same rows, asked in the same way."""

from collections.abc import Sequence

from core.errors import RequestError, show_value
from eval.measure.judgement import Run

SHOULD_AGREE = ("mode", "parser", "variants", "apply", "dtype")
FEW_GROUPS = 20


def check_rows(runs: Sequence[Run]) -> list[str]:
    """Refuse runs of one set that did not answer the same rows; return warnings on how they were asked.

    Raises `RequestError` naming both runs and what differs.
    """
    first, *others = runs
    warnings = []
    if first.groups is not None and len(set(first.groups)) < FEW_GROUPS:
        count = len(set(first.groups))
        warnings.append(
            f"{first.dataset}: {count} groups are few; intervals by group are too narrow under {FEW_GROUPS}"
        )
    for run in others:
        _check_same(run, first)
        warnings += _differences(run, first)
    return warnings


def _check_same(run: Run, first: Run) -> None:
    both = f"{run.source} and {first.source}"
    data, other = _data(run), _data(first)
    if data and other and data != other:
        raise RequestError(f"{both} were scored on different data ({data[:16]} and {other[:16]})")
    if run.rows != first.rows:
        raise RequestError(f"{both}: {_rows_differ(run, first)}")
    for row, answer, expected in zip(run.rows, run.gold, first.gold, strict=True):
        if answer != expected:
            found = f"{show_value(answer)} and {show_value(expected)}"
            raise RequestError(f"{both}: row {row} has different expected answers ({found})")
    if run.groups != first.groups:
        raise RequestError(f"{both}: the same rows are in different groups")


def _data(run: Run) -> str:
    hashes = run.facts.get("hashes")
    value = hashes.get("data") if isinstance(hashes, dict) else None
    return value if isinstance(value, str) else ""


def _differences(run: Run, first: Run) -> list[str]:
    both = f"{run.source} and {first.source}"
    warnings = []
    if not (_data(run) and _data(first)):
        warnings.append(f"{both}: paired by row and expected answer alone (not both name their data)")
    for key in SHOULD_AGREE:
        one, other = _setting(run, key), _setting(first, key)
        if one != other and one is not None and other is not None:
            warnings.append(
                f"{both} were scored with another {key}: {show_value(one)} and {show_value(other)}"
            )
    return warnings


def _setting(run: Run, key: str) -> object:
    settings = run.facts.get("settings")
    return run.facts.get(key, settings.get(key) if isinstance(settings, dict) else None)


def _rows_differ(run: Run, first: Run) -> str:
    lacking = sorted(set(first.rows) ^ set(run.rows), key=lambda row: (len(row), row))
    shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
    return (
        f"{len(run.rows):,} and {len(first.rows):,} rows; only one has row {shown}; "
        "score both on the same rows to compare them"
    )
