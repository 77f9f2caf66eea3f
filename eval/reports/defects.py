"""The two files of the defect-report guide's evaluation: evaluation_results.json and subtype_accuracy.png."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.files import write_json
from core.typeface import choose_typeface
from eval.reports.drawing import draw_lying
from eval.reports.plots import kinds_chart
from eval.runs.judgement import ScoredRun
from eval.runs.logs import DETAILED
from eval.runs.results import Prediction
from eval.statistics.rates import hits

PLOT = "subtype_accuracy.png"


def write_defects(folder: Path, predictions: Sequence[Prediction], figures: Mapping[str, Any]) -> int:
    """Write both files into OUT/model/set; return how many labels no installed font can write: those are
    numbers in the plot, with their key in the JSON file."""
    model, name = folder.parent.name, folder.name
    gold, predicted = ([str(p[key]) for p in predictions] for key in ("expected_output", "predicted_output"))
    correct = hits(predictions)
    rows, subtypes = ([str(p[key]) for p in predictions] for key in ("row", "subtype"))
    run = ScoredRun(model, name, str(folder), rows, gold, predicted, correct, kinds={"subtype": subtypes})
    title = f"{model} judges {figures['accuracy']:.1%} of the {figures['n']} reports of {name} rightly"
    typeface = choose_typeface([model, name, *figures["subtypes"]])
    draw_lying(replace(kinds_chart([run], "subtype", model), title=title), typeface, folder / PLOT)
    details = {
        "model": model,
        "test_dataset": name,
        "overall_accuracy": figures["accuracy"],
        "ci95": figures["ci95"],
        "total": figures["n"],
        "correct": sum(correct),
        "unparsed": figures["unparsed"],
        "subtype_accuracy": _shares(figures["subtypes"]),
        "type_accuracy": _shares(figures["types"]),
        "plot_labels": {number: label for label, number in typeface.numbered.items()},
        "results": [
            {
                "subtype": one["subtype"],
                "type": one.get("type", one["expected_output"]),
                "user": one["instruction"],
                "expected": one["expected_output"],
                "predicted": one["predicted_output"],
                "is_correct": right,
                "model_output": one["model_output"],
            }
            for one, right in zip(predictions, correct, strict=True)
        ],
    }
    write_json(folder / DETAILED, details)
    return len(typeface.numbered)


def _shares(kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, object]]:
    return {
        kind: {
            "accuracy": share["value"],
            "correct": round(share["value"] * share["n"]),
            "total": share["n"],
            "ci95": share["ci95"],
        }
        for kind, share in kinds.items()
    }
