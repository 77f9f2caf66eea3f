"""Two models with bit-equal log-probabilities: they are one model, or one of them was not loaded.

Another weight changes log-probabilities in their last digits, even if every answer stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from tuneyard.core.language.message import _, relative
from tuneyard.eval.runs.results import BASE
from tuneyard.eval.runs.scored_run import ScoredRun

LOGS = ("choices", "chosen_logp", "rejected_logp", "answer_logp", "loss")
"""Fields with log-probabilities: of labels, of both answers of a pair, of one answer, and of a text."""


def equal_warnings(runs: Sequence[ScoredRun]) -> Iterator[str]:
    """Yield a warning for each pair of runs of one dataset whose log-probabilities are bit-equal.

    Runs of one adapter under two names are equal for a good reason.
    """
    logs = {run.model: _logs(run) for run in runs}
    for one, other in combinations(runs, 2):
        if not logs[one.model] or logs[one.model] != logs[other.model] or _is_same_adapter(one, other):
            continue
        adapted, reference = other, one
        if other.model == BASE:
            adapted, reference = one, other
        folders = adapted.facts.get("adapters", {}).values()
        command = " ".join(["tuneyard adapter show", *map(relative, map(str, folders or ["ADAPTER"]))])
        yield _(
            "{dataset}: all log-probabilities of {model} and {other} are bit-equal: nothing was learned, or "
            "the adapter was not loaded; if `{command}` shows ΔW = 0, train again, otherwise score again and "
            "read the warnings of loading",
            dataset=one.dataset,
            model=adapted.model,
            other=reference.model,
            command=command,
        )


def _is_same_adapter(one: ScoredRun, other: ScoredRun) -> bool:
    """True if both runs have adapters of the same content and weights."""
    facts = []
    for run in (one, other):
        digests = run.facts.get("hashes", {}).get("adapters", {})
        weights = run.facts.get("weights", {})
        facts.append(sorted((str(digest), str(weights.get(name))) for name, digest in digests.items()))
    return bool(facts[0]) and facts[0] == facts[1]


def _logs(run: ScoredRun) -> Sequence[object]:
    """The log-probabilities of each row that has some, [] if the run has none.

    Readers of other tools keep the share of the likeliest label. A log may have one share in all rows.
    """
    rows = []
    for record in run.records:
        logs = {name: record[name] for name in LOGS if isinstance(record.get(name), Mapping | float)}
        if logs:
            rows.append(logs)
    if rows or not run.confidence or len(set(run.confidence)) == 1:
        return rows
    return [*zip(run.predicted, run.confidence, strict=True)]
