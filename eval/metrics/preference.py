"""How often the chosen answer of a pair is likelier than the rejected one; the AUC of marked answers.

Both also against the base.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuneyard.eval.statistics.rates import Rows, accuracy_of, groups_of, hits, mean_of, rate

AUC = "auc"
CHOSEN, REJECTED = "chosen", "rejected"
DESIRABLE, UNDESIRABLE = "desirable", "undesirable"
ANSWER = "answer"


def margin_of(row: Mapping[str, Any]) -> float:
    """Return log p(chosen) - log p(rejected) in nats, both summed over the answer's tokens."""
    return float(row["chosen_logp"]) - float(row["rejected_logp"])


def preference_summary(rows: Rows, base: Sequence[Mapping[str, Any]] | None) -> dict[str, object]:
    """Return the share of pairs whose chosen answer is likelier, in sum and per token, and the margin. With
    the `base`'s rows, `reward` is the share in which the chosen answer gained more: DPO's implicit reward
    (Rafailov et al. 2023) without its factor β. Refused rows count as wrong."""
    scored = _scored(rows)
    groups = groups_of(scored)
    per_token = [_per_token(row, CHOSEN) > _per_token(row, REJECTED) for row in scored]
    before = {row["row"]: margin_of(row) for row in _scored(base or ())}
    both = [row for row in scored if row["row"] in before]
    gained = [margin_of(row) > before[row["row"]] for row in both]
    return {
        **accuracy_of(hits(rows), groups_of(rows)),
        "majority": 0.5,
        "majority_label": "chance",
        "per_token": rate(per_token, groups) if scored else None,
        "margin": mean_of([margin_of(row) for row in scored], groups).as_json() if scored else None,
        "reward": rate(gained, groups_of(both)) if both else None,
    }


def marked_summary(rows: Rows, base: Sequence[Mapping[str, Any]] | None) -> dict[str, object]:
    """Return the AUC of desirable against undesirable answers: `auc` by log p per token. With the `base`'s
    rows, `reward_auc` is that of log p - log p of the base, summed: KTO's implicit reward (Ethayarajh et al.
    2024) without its factor β. Refused rows are left out."""
    scored = _scored(rows)
    before = {row["row"]: row["answer_logp"] for row in _scored(base or ())}
    both = [row for row in scored if row["row"] in before]
    return {
        "n": len(scored),
        "desirable": sum(row["expected_output"] == DESIRABLE for row in scored),
        AUC: _area(scored, [_per_token(row, ANSWER) for row in scored]),
        "reward_auc": _area(both, [row["answer_logp"] - before[row["row"]] for row in both]),
    }


def auc_of(rows: Sequence[Mapping[str, Any]]) -> Sequence[float | None]:
    """Return each row's part in the AUC by log p per token, None where the rows have one mark alone."""
    return _parts(rows, [_per_token(row, ANSWER) for row in rows]) or [None] * len(rows)


def auc_parts(scores: Sequence[float], positive: Sequence[bool]) -> list[float]:
    """Return a part for each row, of which the mean is the area under the ROC curve (ties count half). The
    parts' variance is that of DeLong et al. 1988: a row moves the figure by the share of the other class that
    it is ranked right against. `ValueError` where a class has no row."""
    values, marks = np.asarray(scores), np.asarray(positive)
    if marks.all() or not marks.any():
        raise ValueError("found rows of one class, expected both")
    right = np.empty(len(marks))
    for own in (True, False):
        other = np.sort(values[marks != own])
        ends = (np.searchsorted(other, values[marks == own], side) for side in ("left", "right"))
        below = sum(ends) / 2 / len(other)
        right[marks == own] = below if own else 1 - below
    area = right[marks].mean()
    sizes = np.where(marks, marks.sum(), (~marks).sum())
    parts: list[float] = (area + len(marks) / sizes * (right - area)).tolist()
    return parts


def _parts(rows: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[float]:
    """Return each row's part in the AUC of scores, none at all where the rows have one mark alone."""
    marks = [row["expected_output"] == DESIRABLE for row in rows]
    return auc_parts(scores, marks) if len(set(marks)) == 2 else []


def _area(rows: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, object] | None:
    """Return the AUC of scores with its limits, None where the rows have one mark alone."""
    if not (parts := _parts(rows, scores)):
        return None
    found = mean_of(parts, groups_of(rows))
    return {**found.as_json(), "ci95": np.clip(found.ci95, 0, 1).tolist()}


def _scored(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if "refused" not in row]


def _per_token(row: Mapping[str, Any], side: str) -> float:
    return float(row[f"{side}_logp"]) / max(1, int(row[f"{side}_tokens"]))
