"""lighteval's details_TASK_DATE.parquet (`--save-details`): a file for each task in a folder of the model."""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.errors import unexpected
from tuneyard.core.language.message import _
from tuneyard.eval.runs.logs import DATE, log_reader
from tuneyard.eval.runs.results import part_of
from tuneyard.eval.runs.scored_run import Record, confidence_of, optional_text
from tuneyard.eval.runs.scores import number_of, numbers_of, with_main_score
from tuneyard.eval.runs.tables import parquet_rows

DETAILS = ("doc", "metric", "model_response")
COLUMNS = (
    *("doc.id", "doc.query", "doc.choices", "doc.gold_index", "metric"),
    *("model_response.text", "model_response.text_post_processed", "model_response.logprobs"),
)
FILES = "details_*.parquet"


def names(path: Path) -> Record:
    """The task of a file, and its model: the folders between `details` and the time of the run."""
    folders = list(path.absolute().parent.parts)
    if not DATE.sub("", f"_{folders[-1]}"):
        folders.pop()
    if "details" in folders:
        last = len(folders) - 1 - folders[::-1].index("details")
        folders = folders[last + 1 :] or folders[-1:]
    else:
        folders = folders[-1:]
    return {"model": "-".join(folders), "dataset": DATE.sub("", path.stem).removeprefix("details_")}


@log_reader(
    "lighteval",
    _("lighteval's details"),
    ".parquet",
    fields=(DETAILS,),
    files=(FILES, f"details/*/*/{FILES}", f"details/*/*/*/{FILES}"),
    scores=True,
)
def lighteval(path: Path) -> Iterator[Record]:
    """Read one task. Labels are the texts of choices that are the same in all rows, else their places."""
    rows = list(parquet_rows(path, COLUMNS))
    choices = [_texts(part_of(row, "doc").get("choices"), row["place"]) for row in rows]
    fixed = len({tuple(texts) for texts in choices}) == 1
    for row, texts in zip(rows, choices, strict=True):
        doc = part_of(row, "doc")
        question = optional_text(doc, "query")
        yield {
            **names(path),
            **_answers(row, texts, fixed),
            "id": optional_text(doc, "id"),
            "question": question,
            "fingerprint": question,
            "scores": with_main_score(numbers_of(part_of(row, "metric"))),
            "place": row["place"],
        }


def _texts(values: object, place: str) -> list[str]:
    if not isinstance(values, list):
        raise unexpected(place, "doc.choices", values, _("a list of texts"))
    return [(optional_text({"choice": value}, "choice") or "").strip() for value in values]


def _answers(row: Record, choices: list[str], fixed: bool) -> Record:
    """The expected and the given answer: a generated text, or the choice with the most probability."""
    place, response = row["place"], part_of(row, "model_response")
    expected = part_of(row, "doc").get("gold_index")
    places: list[int] = []
    for value in expected if isinstance(expected, list) else [expected]:
        if not isinstance(value, int) or not 0 <= value < len(choices):
            raise unexpected(
                place, "doc.gold_index", expected, _("places of the {choices} choices", choices=len(choices))
            )
        places.append(value)
    texts = response.get("text_post_processed") or response.get("text")
    scores = response.get("logprobs")
    if isinstance(texts, list) and texts:
        golds = sorted({choices[value] for value in places})
        outputs = response.get("text")
        output = optional_text({"text": outputs[0]}, "text") if isinstance(outputs, list) and outputs else ""
        prediction = optional_text({"text": texts[0]}, "text")
        return {"gold": _one_or_all(golds), "prediction": prediction, "output": output}
    if not isinstance(scores, list) or not choices or len(scores) < len(choices):
        raise unexpected(place, "model_response", response, _("a text, or a log-probability of each choice"))
    numbers = [number_of(score) for score in scores[: len(choices)]]
    logs = [number for number in numbers if number is not None]
    if len(logs) < len(choices):
        raise unexpected(place, "model_response.logprobs", scores, _("numbers"))
    labels = choices if fixed else [str(number) for number in range(len(choices))]
    return {
        "gold": _one_or_all(sorted({labels[value] for value in places})),
        "prediction": labels[logs.index(max(logs))],
        "confidence": confidence_of(logs),
    }


def _one_or_all(golds: list[str]) -> str | list[str]:
    return golds[0] if len(golds) == 1 else golds
