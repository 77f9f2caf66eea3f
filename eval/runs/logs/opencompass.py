"""OpenCompass's results/MODEL/DATASET.json with the details of each example (`--dump-eval-details`).

The evaluators of OpenCompass name the same things differently. Several runs of one question (`n`) are lists
of values in its details, and one cluster here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import JsonObject, read_object
from tuneyard.core.language.message import _, relative
from tuneyard.eval.figures.answers import answer_key, cut_thought
from tuneyard.eval.runs.logs import log_reader
from tuneyard.eval.runs.scored_run import Record, first_text, optional_text
from tuneyard.eval.runs.scores import Scores, number_of

JUDGED = ("correct", "is_correct", "cascade_correct")  # in OpenCompass's own order
PREDICTED = ("pred", "predictions", "prediction")
EXPECTED = ("answer", "answers", "references", "reference", "refr", "ref", "gold", "refer")
PROMPTS = ("prompt", "origin_prompt", "question")
OUTPUTS = ("origin_prediction", "origin_grade_response", *PREDICTED)
TOTALS = ("accuracy", "score")
Details = Mapping[str, object]


def is_of_opencompass(path: Path) -> bool:
    """True if the answers of the model are in `predictions`, next to `results`."""
    results = path.absolute().parents[1]
    return (results.parent / "predictions" / path.parent.name).is_dir()


@log_reader(
    "opencompass",
    _("OpenCompass's results with --dump-eval-details"),
    ".json",
    fields=(("details",),),
    files=("results/*/*.json",),
    scores=True,
    belongs=is_of_opencompass,
)
def opencompass(path: Path) -> Iterator[Record]:
    """Read the details of one dataset."""
    document = read_object(path)
    examples = _examples(path, document.get("details"))
    records = []
    file = relative(path)
    for number, details in examples:
        records += _runs(f"{file} example {number}", number, details)
    _judge_equal_answers(path, document, records)
    for record in records:
        yield {**record, "model": path.absolute().parent.name, "dataset": path.stem}


def _examples(path: Path, details: object) -> list[tuple[str, Details]]:
    """The details of each example by its number: a list, or an object that also names its `type`."""
    examples: list[tuple[str, object]] = []
    if isinstance(details, list):
        examples = [(str(number), example) for number, example in enumerate(details)]
    elif isinstance(details, Mapping):
        examples = [(number, example) for number, example in details.items() if number != "type"]
    else:
        raise unexpected(path, "details", details, _("a list or an object"))
    checked = []
    for number, example in examples:
        if not isinstance(example, Mapping):
            raise unexpected(path, _("details {number}", number=number), example, _("an object"))
        checked.append((number, example))
    return checked


def _runs(place: str, number: str, details: Details) -> list[JsonObject]:
    """A record for each run of an example. A field of a grouped example has a list with a value for each."""
    if "example_abbr" not in details:
        return [_record(place, number, details)]
    count = max([len(value) for value in details.values() if isinstance(value, list)], default=1)
    records = []
    for run in range(count):
        fields = {
            name: value[run] if isinstance(value, list) and len(value) == count else value
            for name, value in details.items()
        }
        name = str(details["example_abbr"])
        row = f"{name}, run {run + 1}" if run else name
        record = _record(place, row, fields)
        if count > 1:
            record = {**record, "cluster": name}
        records.append(record)
    return records


def _record(place: str, row: str, details: Details) -> JsonObject:
    expected = _first(details, EXPECTED)
    if isinstance(expected, list):
        expected = sorted({optional_text({"text": text}, "text") or "" for text in expected})
        if len(expected) == 1:
            expected = expected[0]
    gold = optional_text({"text": expected}, "text") or ""
    prediction = first_text(details, PREDICTED)
    scores: Scores = {}
    for name in JUDGED:
        if name in details:
            scores["correct"] = number_of(details[name])
            break
    for name, value in details.items():
        if name not in JUDGED and isinstance(value, bool | int | float):
            scores[name] = number_of(value)
    return {
        "id": row,
        "gold": gold,
        "prediction": prediction,
        "output": first_text(details, OUTPUTS),
        "question": first_text(details, PROMPTS),
        "scores": scores,
        "place": place,
    }


def _first(details: Details, names: Sequence[str]) -> object:
    for name in names:
        if details.get(name) is not None:
            return details[name]
    return None


def _judge_equal_answers(path: Path, document: Details, records: list[JsonObject]) -> None:
    """Judge answers that no evaluator did: equal ones are correct. `ContentError` for another total."""
    if not records or any(record["scores"] for record in records):
        return
    hits = 0
    for record in records:
        hit = answer_key(cut_thought(record["gold"])) == answer_key(cut_thought(record["prediction"]))
        record["scores"]["correct"] = float(hit)
        if hit:  # spelled as the expected answer
            record["prediction"] = record["gold"]
        hits += hit
    share = 100 * hits / len(records)
    for name in TOTALS:
        total = number_of(document.get(name))
        if total is not None and not math.isclose(total, share, abs_tol=0.01):
            raise ContentError(
                _(
                    "{path}: its details do not say which answers are correct, and {hits} of {count} "
                    "equal the expected one ({share:.2f}, but {name} is {total:.2f}); use an evaluator "
                    "that writes `correct`, such as AccwithDetailsEvaluator",
                    path=path,
                    hits=hits,
                    count=len(records),
                    share=share,
                    name=name,
                    total=total,
                )
            )
