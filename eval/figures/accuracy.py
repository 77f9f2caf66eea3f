"""Accuracy: the share of correct answers."""

from tuneyard.eval.figures import metric, metrics
from tuneyard.eval.statistics.rates import (
    Row,
    Rows,
)


@metric("accuracy", needs=("expected_output", "predicted_output"), by_command=True, beside_accuracy=False)
def accuracy(prediction: Row) -> float:
    """1 for a correct answer: it equals the expected one, or its command states `correct`."""
    correct = prediction.get("correct")
    if isinstance(correct, bool):
        return correct
    return bool(prediction["expected_output"] == prediction["predicted_output"])


def accuracy_figures(rows: Rows) -> dict[str, object]:
    """Accuracy as results.json has it. Rows without an answer are incorrect."""
    figure = metrics()["accuracy"].mean(rows).as_json()
    return {"accuracy": figure.pop("value"), **figure}
