"""The Brier score: how far the labels' probabilities are from the expected label."""

import math
from collections.abc import Mapping
from typing import Any

from tuneyard.core.errors import unexpected
from tuneyard.eval.metrics import metric


@metric("brier", unit="squared error", higher=False, needs=("choices", "expected_output"))
def brier(prediction: Mapping[str, Any]) -> float:
    """Σ (p - y)² over the labels (Brier 1950). Their probabilities are normalised to sum to 1.

    0 is certain and correct, 2 certain and incorrect.
    """
    choices, gold = prediction["choices"], prediction["expected_output"]
    if not isinstance(choices, Mapping) or not choices or not all(map(_is_log, choices.values())):
        place = prediction.get("place", "brier")
        raise unexpected(place, "choices", choices, "the labels' log-probabilities")
    top = max(choices.values())
    shares = {label: math.exp(log - top) for label, log in choices.items()}
    total = math.fsum(shares.values())
    return math.fsum((share / total - (label == gold)) ** 2 for label, share in shares.items())


def _is_log(value: object) -> bool:
    """True for a log-probability. That of an impossible label is -inf; NaN is none."""
    return isinstance(value, float | int) and value < math.inf
