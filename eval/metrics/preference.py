"""How often the chosen answer of a pair is likelier than the rejected one; the AUC of marked answers.

Both also against the base.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.metrics.auc import AUC, auc_parts
from eval.metrics.text import ratio
from eval.statistics.rates import Rows, groups_of, hits, rate

CHOSEN, REJECTED = "chosen", "rejected"
DESIRABLE, UNDESIRABLE = "desirable", "undesirable"
ANSWER = "answer"


def margin_of(row: Mapping[str, Any]) -> float:
    """Return log p(chosen) - log p(rejected) in nats, both summed over the answer's tokens."""
    return float(row["chosen_logp"]) - float(row["rejected_logp"])


def preference_summary(rows: Rows, base: Sequence[Mapping[str, Any]] | None) -> dict[str, object]:
    """Return the share of pairs whose chosen answer is likelier, in sum and per token, and the margin.

    With the `base`'s rows, `reward` is the share in which the chosen answer gained more: DPO's implicit
    reward (Rafailov et al. 2023) without its factor β. Refused rows count as wrong.
    """
    groups, right = groups_of(rows), hits(rows)
    found = rate(right, groups)
    scored = [row for row in rows if "refused" not in row]
    own = groups_of(scored)
    keys = own or range(len(scored))
    per_token = [_per_token(row, CHOSEN) > _per_token(row, REJECTED) for row in scored]
    margins = [margin_of(row) for row in scored]
    mean = ratio(margins, [1] * len(scored), keys) if scored else None
    told: dict[str, object] = {
        "accuracy": found["value"], "n": found["n"], "stderr": found["stderr"], "ci95": found["ci95"],
        "majority": 0.5, "majority_label": "chance",
        "per_token": rate(per_token, own) if scored else None,
        "margin": mean and {"value": mean.value, "stderr": mean.stderr, "ci95": list(mean.ci95)},
        "reward": None,
    }  # fmt: skip
    if base is not None and scored:
        before = {row["row"]: row for row in base if "refused" not in row}
        both = [row for row in scored if row["row"] in before]
        gained = [margin_of(row) > margin_of(before[row["row"]]) for row in both]
        told["reward"] = rate(gained, groups_of(both)) if both else None
    return told


def marked_summary(rows: Rows, base: Sequence[Mapping[str, Any]] | None) -> dict[str, object]:
    """Return the AUC of desirable against undesirable answers: `auc` by log p per token.

    With the `base`'s rows, `reward_auc` is that of log p - log p of the base, summed: KTO's implicit reward
    (Ethayarajh et al. 2024) without its factor β. Refused rows are left out.
    """
    scored = [row for row in rows if "refused" not in row]
    told: dict[str, object] = {
        "n": len(scored), "desirable": sum(row["expected_output"] == DESIRABLE for row in scored),
        AUC: _area(scored, [_per_token(row, ANSWER) for row in scored]), "reward_auc": None,
    }  # fmt: skip
    if base is not None:
        before = {row["row"]: float(row["answer_logp"]) for row in base if "refused" not in row}
        both = [row for row in scored if row["row"] in before]
        gained = [float(str(row["answer_logp"])) - before[row["row"]] for row in both]
        told["reward_auc"] = _area(both, gained)
    return told


def auc_of(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return each row's part in the AUC by log p per token; `ValueError` where all marks are alike."""
    return auc_parts(
        [_per_token(row, ANSWER) for row in rows], [row["expected_output"] == DESIRABLE for row in rows]
    )


def _area(rows: Rows, scores: Sequence[float]) -> dict[str, object] | None:
    """Return the AUC of scores with its limits, None where the rows left have one mark alone."""
    marks = [row["expected_output"] == DESIRABLE for row in rows]
    if len(set(marks)) < 2:
        return None
    found = ratio(auc_parts(scores, marks), [1] * len(rows), groups_of(rows) or range(len(rows)))
    limits = [max(0.0, found.ci95[0]), min(1.0, found.ci95[1])]
    return {"value": found.value, "n": len(rows), "stderr": found.stderr, "ci95": limits}


def _per_token(row: Mapping[str, Any], side: str) -> float:
    return float(row[f"{side}_logp"]) / max(1, int(row[f"{side}_tokens"]))
