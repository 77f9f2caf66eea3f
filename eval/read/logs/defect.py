"""The defect guide's evaluation_results.json: its rows under `results`."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import read_object
from tuneyard.eval.read.logs import WITHOUT_NAME, LoggedRow, log_reader
from tuneyard.eval.read.scored_run import ScoredExample, kinds_of, optional_text

DETAILED = "evaluation_results.json"
TOTALS = (("results",), ("subtype_accuracy",), ("type_accuracy",))


@log_reader("guide", "the defect guide's evaluation_results", ".json", fields=TOTALS)
def detailed(path: Path) -> Iterator[LoggedRow]:
    """Read the rows, which are paired by their places in the list.

    `ContentError` for a file that has totals without rows: models are compared example by example.
    """
    document = read_object(path)
    model, dataset = _names(path, document)
    rows = document.get("results")
    if not rows:
        raise ContentError(
            f"{path}: found totals without rows (no `results`); a comparison pairs examples. Score the model "
            "again with `tuneyard eval defect`, or keep the guide's `results` in the file: for each report "
            "expected, predicted and is_correct"
        )
    if not isinstance(rows, list):
        raise ContentError(f"{path}: results: found {show_value(rows)}, expected a list of objects")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ContentError(f"{path}: results: found {show_value(row)}, expected a list of objects")
        question = optional_text(row, "user") or ""
        fingerprint = ""
        if question:
            fingerprint = f"user {question}"
        place = f"{path} result {number}"
        expected = optional_text(row, "expected")
        predicted = optional_text(row, "predicted") or ""
        correct = row.get("is_correct", expected == optional_text(row, "predicted"))
        if expected is None or not isinstance(correct, bool):
            raise ContentError(
                f"{place}: found {show_value(row)}, expected a row with expected, predicted and is_correct"
            )
        kinds = kinds_of(row, expected)
        example = ScoredExample(str(number), expected, predicted, correct, place, kinds=kinds)
        yield LoggedRow(example, model, dataset, fingerprint, question)


def _names(path: Path, document: Mapping[str, object]) -> tuple[str, str]:
    """Model and dataset. The guide's own file name contains neither, so the folder names the model."""
    model = path.stem
    if path.name == DETAILED:
        model = path.parent.name
    return (
        optional_text(document, "model") or model,
        optional_text(document, "test_dataset") or WITHOUT_NAME,
    )
