"""Accuracy on preference pairs, and the AUC of marked answers, also compared with the base."""

from collections.abc import Sequence

from tuneyard.eval.figures import metric_over_rows, metrics
from tuneyard.eval.figures.accuracy import accuracy_figures
from tuneyard.eval.statistics.rates import (
    Row,
    Rows,
    groups_of,
    is_answered,
    mean_of,
    share_of,
)

AUC = "auc"
CHOSEN, REJECTED = "chosen", "rejected"
DESIRABLE, UNDESIRABLE = "desirable", "undesirable"
ANSWER = "answer"


def margin_of(row: Row) -> float:
    """log p(chosen) - log p(rejected) in nats, both summed over the answer's tokens."""
    return float(row["chosen_logp"]) - float(row["rejected_logp"])


def preference_summary(rows: Rows, base: Rows) -> dict[str, object]:
    """Share of pairs whose chosen answer is likelier, in sum and per token, and the mean margin.

    With the `base`'s rows, `reward` is the share of pairs whose chosen answer gained more: DPO's implicit
    reward (Rafailov et al. 2023) without its factor β. Refused rows count as incorrect.
    """
    scored = _scored(rows)
    per_token = [_per_token(row, CHOSEN) > _per_token(row, REJECTED) for row in scored]
    margins = [margin_of(row) for row in scored]
    before = {row["row"]: margin_of(row) for row in _scored(base)}
    both = [row for row in scored if row["row"] in before]
    gained = [margin_of(row) > before[row["row"]] for row in both]
    return {
        **accuracy_figures(rows),
        "majority": 0.5,
        "majority_label": "chance",
        "per_token": share_of(per_token, scored),
        "margin": mean_of(margins, groups_of(scored)).as_json() if scored else None,
        "reward": share_of(gained, both),
    }


def marked_summary(rows: Rows, base: Rows) -> dict[str, object]:
    """AUC of desirable against undesirable answers, by log p per token.

    With the `base`'s rows, `reward_auc` is the AUC by log p - log p of the base, summed: KTO's implicit
    reward (Ethayarajh et al. 2024) without its factor β. Refused rows are left out.
    """
    scored = _scored(rows)
    before = {row["row"]: row["answer_logp"] for row in _scored(base)}
    both = [row for row in scored if row["row"] in before]
    return {
        "n": len(scored),
        "desirable": sum(row["expected_output"] == DESIRABLE for row in scored),
        AUC: _area(scored, metrics()[AUC].values(scored)),
        "reward_auc": _area(both, _parts(both, [row["answer_logp"] - before[row["row"]] for row in both])),
    }


@metric_over_rows(AUC, needs=(f"{ANSWER}_logp", f"{ANSWER}_tokens", "expected_output"), by_command=True)
def auc_by_row(rows: Rows) -> Sequence[float | None]:
    """Contribution of each row to the AUC by log p per token. All None if the rows have only one mark."""
    return _parts(rows, [_per_token(row, ANSWER) for row in rows])


def auc_parts(scores: Sequence[float], positive: Sequence[bool]) -> list[float]:
    """Contribution of each row to the area under the ROC curve, so that models can be compared by row.

    The mean of the contributions is the area (ties count half), their variance is that of DeLong et al.
    1988: a row moves the area by the share of the other class that it is ranked correctly against.
    """
    import numpy as np

    values, marks = np.asarray(scores), np.asarray(positive)
    correct_shares = np.empty(len(marks))
    for mark in (True, False):
        other_scores = np.sort(values[marks != mark])
        below = np.searchsorted(other_scores, values[marks == mark], "left")
        not_above = np.searchsorted(other_scores, values[marks == mark], "right")
        share_below = (below + not_above) / 2 / len(other_scores)  # ties count half
        correct_shares[marks == mark] = share_below if mark else 1 - share_below
    area = correct_shares[marks].mean()
    sizes = np.where(marks, marks.sum(), (~marks).sum())
    parts: list[float] = (area + len(marks) / sizes * (correct_shares - area)).tolist()
    return parts


def _parts(rows: Rows, scores: Sequence[float]) -> Sequence[float | None]:
    """Contribution of each row to the AUC of scores. All None if the rows have only one mark."""
    marks = [row["expected_output"] == DESIRABLE for row in rows]
    if len(set(marks)) < 2:
        return [None] * len(rows)
    return auc_parts(scores, marks)


def _area(rows: Rows, contributions: Sequence[float | None]) -> dict[str, object] | None:
    """The AUC with its limits, from the contribution of each row. None if the rows have only one mark."""
    import numpy as np

    parts = [part for part in contributions if part is not None]
    if not parts:
        return None
    area = mean_of(parts, groups_of(rows))
    return {**area.as_json(), "ci95": np.clip(area.ci95, 0, 1).tolist()}


def _scored(rows: Rows) -> list[Row]:
    return [row for row in rows if is_answered(row)]


def _per_token(row: Row, side: str) -> float:
    return float(row[f"{side}_logp"]) / max(1, int(row[f"{side}_tokens"]))
