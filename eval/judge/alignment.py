"""Whether runs of one set may be compared: the same rows, asked in the same way."""

from collections.abc import Sequence

from tuneyard.core.errors import RequestError, counted, show_value
from tuneyard.core.language import tr
from tuneyard.eval.read.run import ScoredRun

OWN = ("model", "batch_tokens")  # settings that differ for good reason, or change no answer
FEW_GROUPS = 6  # of fewer, 2 of at most 32 flips are as far as the data themselves: p is 0.0625 at least


def check_rows(runs: Sequence[ScoredRun]) -> list[str]:
    """Return warnings on how runs of one set were asked; `RequestError`, naming two runs and what differs,
    where they did not answer the same rows."""
    first, *others = runs
    warnings = []
    if first.groups is not None and (count := len(set(first.groups))) < FEW_GROUPS:
        told = (
            "{dataset}: fewer than {few} clusters ({count} here) cannot show any difference; "
            "score examples of more"
        )
        warnings.append(tr(told, dataset=first.dataset, count=count, few=FEW_GROUPS))
    for run in others:
        warnings += _check_same(run, first)
    return warnings


def _check_same(run: ScoredRun, first: ScoredRun) -> list[str]:
    """Refuse other rows than the first run's; return warnings on how they were asked."""
    both = f"{run.source} and {first.source}"
    data, other = _hash(run), _hash(first)
    if data and other and data != other:
        raise RequestError(f"{both} were scored on different data ({data[:16]} and {other[:16]})")
    if run.rows != first.rows:
        lacking = sorted(set(first.rows) ^ set(run.rows), key=lambda row: (len(row), row))
        shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
        raise RequestError(
            f"{both}: {len(run.rows):,} and {counted(len(first.rows), 'row')}; only one has row {shown}; "
            "score both on the same rows to compare them"
        )
    for row, answer, expected in zip(run.rows, run.gold, first.gold, strict=True):
        if answer != expected:
            found = f"{show_value(answer)} and {show_value(expected)}"
            raise RequestError(f"{both}: row {row} has different expected answers ({found})")
    if run.groups != first.groups:
        raise RequestError(
            f"{both}: the same rows are in different groups; score both with the same --cluster"
        )
    warnings = []
    if not (data and other):
        told = "{both}: paired by row and expected answer alone (not both name their data)"
        warnings.append(tr(told, both=both))
    one, another = _asked(run), _asked(first)
    differing = [
        f"{name} {show_value(one[name])} and {show_value(another[name])}"
        for name in one
        if name in another and one[name] != another[name]
    ]
    if differing:
        told = "{both} were prompted differently: {differing}"
        warnings.append(tr(told, both=both, differing="; ".join(differing)))
    return warnings


def _hash(run: ScoredRun, name: str = "data") -> str:
    hashes = run.facts.get("hashes")
    value = hashes.get(name) if isinstance(hashes, dict) else None
    return value if isinstance(value, str) else ""


def _asked(run: ScoredRun) -> dict[str, object]:
    """How a run was asked, by setting: what else than the weights may make a difference."""
    settings = run.facts.get("settings")
    found = {key: run.facts[key] for key in ("mode", "device", "dtype") if key in run.facts}
    if isinstance(settings, dict):
        found |= {key: value for key, value in settings.items() if key not in OWN}
    if template := _hash(run, "chat_template"):
        found["chat template"] = template[:13]
    return found
