"""LLaMA-Factory's generated_predictions.jsonl, of a recipe with do_predict and predict_with_generate.

Its lines have `prompt`, `predict` and `label` and no id: examples are paired by their line, which is the
order of the dataset. An answer is correct that equals the label, blanks at both ends aside.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, show_value
from tuneyard.eval.read.logs import LoggedRow, log_reader
from tuneyard.eval.read.scored_run import ScoredExample, optional_text

NAME = "generated_predictions.jsonl"
FIELDS = ("predict", "label")


@log_reader(
    "llamafactory", "LLaMA-Factory's generated_predictions", ".jsonl", fields=(FIELDS,), files=(NAME,)
)
def generated_predictions(path: Path) -> Iterator[LoggedRow]:
    """Read the predictions of one run; its model is called as the output_dir."""
    model = path.absolute().parent.name if path.name == NAME else path.stem
    for number, record in json_lines(path):
        place = f"{path}:{number}"
        for name in FIELDS:
            if not isinstance(record.get(name), str):
                raise ContentError(f"{place}: {name}: found {show_value(record.get(name))}, expected a text")
        predicted, gold = (str(record[name]).strip() for name in FIELDS)
        example = ScoredExample(str(number), gold, predicted, gold == predicted, place)
        question = optional_text(record, "prompt") or ""
        yield LoggedRow(example, model, question=question, output=str(record["predict"]))
