"""The Brier score: how far the labels' probabilities are from the expected label."""

import math

from tuneyard.eval.figures import metric
from tuneyard.eval.figures.labels import label_logs
from tuneyard.eval.statistics.rates import Row


@metric("brier", needs=("choices", "expected_output"))
def brier(prediction: Row) -> float:
    """Σ (p - y)² over the labels (Brier 1950). Their probabilities are normalised to sum to 1.

    0 is certain and correct, 2 certain and incorrect.
    """
    choices, gold = label_logs(prediction), prediction["expected_output"]
    top = max(choices.values())
    shares = {label: math.exp(log - top) for label, log in choices.items()}
    total = math.fsum(shares.values())
    return math.fsum((share / total - (label == gold)) ** 2 for label, share in shares.items())
