"""The defect guide's evaluation_results.json: its rows under `results`."""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _, relative
from tuneyard.eval.runs.logs import log_reader
from tuneyard.eval.runs.other_tools import PROMPTFOO_FIX, UnjudgedFile, other_file
from tuneyard.eval.runs.scored_run import Record, optional_text

DETAILED = "evaluation_results.json"
TOTALS = (("results",), ("subtype_accuracy",), ("type_accuracy",))


@log_reader("guide", _("the defect guide's evaluation_results"), ".json", fields=TOTALS)
def detailed(path: Path) -> Iterator[Record]:
    """Read the rows, which are paired by their places in the list.

    `ContentError` for a file that has totals without rows: models are compared example by example.
    """
    document = read_object(path)
    model = path.stem  # the guide's own file name contains no model, so the folder names it
    if path.name == DETAILED:
        model = path.parent.name
    names = {"model": document.get("model") or model, "dataset": document.get("test_dataset")}
    rows = document.get("results")
    if not rows:
        raise ContentError(
            _(
                "{path}: found totals without rows (no `results`); a comparison pairs examples. "
                "Score the model again with `tuneyard eval defect`, or keep the guide's `results` in "
                "the file: for each report expected, predicted and is_correct",
                path=path,
            )
        )
    if isinstance(rows, dict) and "version" in rows:
        raise other_file(path, UnjudgedFile(_("results of an old promptfoo"), PROMPTFOO_FIX, ()))
    if isinstance(rows, dict):
        raise ContentError(
            _(
                "{path}: lm-evaluation-harness's totals; run it with --log_samples, and name samples_*.jsonl",
                path=path,
            )
        )
    if not isinstance(rows, list):
        raise unexpected(path, "results", rows, _("a list of objects"))
    file = relative(path)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise unexpected(path, "results", row, _("a list of objects"))
        question = optional_text(row, "user")
        judged = {}
        if "is_correct" in row:
            judged = {"correct": row["is_correct"]}
        yield {
            **row,
            **names,
            "id": number,
            "gold": row.get("expected"),
            "prediction": optional_text(row, "predicted"),
            **judged,
            "question": question,
            "fingerprint": question and f"user {question}",
            "place": f"{file} result {number}",
        }
