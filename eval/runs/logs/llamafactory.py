"""LLaMA-Factory's generated_predictions.jsonl, of a recipe with do_predict and predict_with_generate.

Its lines have `prompt`, `predict` and `label` and no id: examples are paired by their line, which is the
order of the dataset. An answer is correct that equals the label by `answer_key`, without thoughts.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.documents import json_lines
from tuneyard.core.language.message import _, relative
from tuneyard.eval.runs.logs import log_reader
from tuneyard.eval.runs.scored_run import Record, text_field

NAME = "generated_predictions.jsonl"


def names(path: Path, _record: Record) -> Record:
    """The model is called as the output_dir."""
    model = path.stem
    if path.name == NAME:
        model = path.absolute().parent.name
    return {"model": model}


@log_reader(
    "llamafactory",
    _("LLaMA-Factory's generated_predictions"),
    ".jsonl",
    fields=(("predict", "label"),),
    files=(NAME,),
    names=names,
)
def generated_predictions(path: Path) -> Iterator[Record]:
    """Read the predictions of one run."""
    file = relative(path)
    for number, record in json_lines(path):
        place = f"{file}:{number}"
        predicted, gold = (text_field(record, name, place) for name in ("predict", "label"))
        yield {
            "id": number,
            "gold": gold,
            "prediction": predicted,
            "output": predicted,
            **names(path, record),
            "question": record.get("prompt"),
            "place": place,
        }
