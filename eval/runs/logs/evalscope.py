"""EvalScope's reviews/MODEL/DATASET_SUBSET.jsonl: the judged answers of a model.

Rows that repeat one question (`repeats`) are a cluster.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tuneyard.core.errors import unexpected
from tuneyard.core.language.message import _
from tuneyard.eval.runs.logs import log_reader
from tuneyard.eval.runs.results import part_of
from tuneyard.eval.runs.scored_run import Record, optional_text
from tuneyard.eval.runs.scores import chat_text, numbers_of, with_main_score
from tuneyard.eval.runs.tables import placed_lines


@log_reader(
    "evalscope",
    _("EvalScope's reviews"),
    ".jsonl",
    fields=(("index", "sample_score"),),
    files=("reviews/*/*.jsonl",),
    scores=True,
)
def evalscope(path: Path) -> Iterator[Record]:
    """Read the reviews of one subset of a dataset."""
    rows = []
    for line in placed_lines(path):
        review = line.get("sample_score")
        if not isinstance(review, Mapping) or not isinstance(review.get("score"), Mapping):
            raise unexpected(line["place"], "sample_score", review, _("an object with a score"))
        rows.append((line, review))
    repeated = any(review.get("generation_index") for _line, review in rows)
    for line, review in rows:
        record = {**_record(line, review), "model": path.absolute().parent.name, "dataset": path.stem}
        if repeated:
            record["cluster"] = optional_text(review, "group_id")
        yield record


def _record(line: Record, review: Mapping[str, object]) -> Record:
    score = part_of(review, "score")
    expected = line.get("target")
    if isinstance(expected, list) and len(expected) == 1:
        expected = expected[0]
    if expected is None:  # a dataset without expected answers, which a judge scores
        expected = ""
    output = optional_text(score, "prediction") or ""
    answer = optional_text(score, "extracted_prediction")
    question = _question(line)
    unscored = None
    if score.get("status") not in (None, "success"):
        unscored = score.get("explanation") or score.get("status")
    return {
        "id": line.get("index"),
        "gold": optional_text({"target": expected}, "target"),
        "prediction": output if answer is None else answer,
        "output": output,
        "question": question,
        "fingerprint": question,
        "scores": with_main_score(
            numbers_of(part_of(score, "value")), optional_text(score, "main_score_name") or ""
        ),
        "unscored": unscored,
        "place": line["place"],
    }


def _question(line: Record) -> str:
    """The texts before the first answer; older versions have them in `input`."""
    messages = line.get("messages")
    if not isinstance(messages, list):
        return optional_text(line, "input") or ""
    texts = []
    for message in messages:
        if isinstance(message, Mapping) and message.get("role") == "assistant":
            break
        texts.append(chat_text(message))
    return "\n".join(texts)
