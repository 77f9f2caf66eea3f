"""The two files of the defect-report guide's evaluation: evaluation_results.json and subtype_accuracy.png."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.files import write_json
from core.typeface import choose_typeface
from eval.reports.drawing import draw_lying
from eval.reports.plots import kinds_chart
from eval.runs.detailed import DETAILED
from eval.runs.judgement import ScoredRun
from eval.runs.results import Prediction

PLOT = "subtype_accuracy.png"


def write_defects(folder: Path, predictions: Sequence[Prediction], figures: Mapping[str, Any]) -> int:
    """Write both files into OUT/model/set; return how many labels no installed font can write: those are
    numbers in the plot, with their key in the JSON file."""
    numbered = _draw(folder, predictions, figures)
    details = {
        "model": folder.parent.name,
        "test_dataset": folder.name,
        "overall_accuracy": figures["accuracy"],
        "ci95": figures["ci95"],
        "total": figures["n"],
        "correct": sum(map(_is_correct, predictions)),
        "unparsed": figures["unparsed"],
        "subtype_accuracy": _shares(figures["subtypes"]),
        "type_accuracy": _shares(figures["types"]),
        "plot_labels": {number: label for label, number in numbered.items()},
        "results": [_detail(prediction) for prediction in predictions],
    }
    write_json(folder / DETAILED, details)
    return len(numbered)


def _draw(folder: Path, predictions: Sequence[Prediction], figures: Mapping[str, Any]) -> Mapping[str, str]:
    """Draw accuracy by subtype; return the numbers that stand for labels."""
    model, name = folder.parent.name, folder.name
    gold, predicted = ([str(p[key]) for p in predictions] for key in ("expected_output", "predicted_output"))
    rows = [str(prediction["row"]) for prediction in predictions]
    kinds = {"subtype": [str(prediction["subtype"]) for prediction in predictions]}
    run = ScoredRun(
        model, name, str(folder), rows, gold, predicted, [*map(_is_correct, predictions)], kinds=kinds
    )
    title = f"{model} judges {figures['accuracy']:.1%} of the {figures['n']} reports of {name} rightly"
    typeface = choose_typeface([model, name, *figures["subtypes"]])
    draw_lying(replace(kinds_chart([run], "subtype", model), title=title), typeface, folder / PLOT)
    return typeface.numbered


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


def _detail(prediction: Prediction) -> dict[str, object]:
    return {
        "subtype": prediction["subtype"],
        "type": prediction.get("type", prediction["expected_output"]),
        "user": prediction["instruction"],
        "expected": prediction["expected_output"],
        "predicted": prediction["predicted_output"],
        "is_correct": _is_correct(prediction),
        "model_output": prediction["model_output"],
    }


def _is_correct(prediction: Prediction) -> bool:
    return prediction["expected_output"] == prediction["predicted_output"]
