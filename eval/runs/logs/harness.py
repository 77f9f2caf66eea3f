"""lm-evaluation-harness's samples_*.jsonl (`--log_samples`): a run for each filter that it applied."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuneyard.core.errors import ContentError, show_value, unexpected
from tuneyard.core.language.message import _
from tuneyard.eval.runs.logs import DATE, log_reader
from tuneyard.eval.runs.scored_run import Record, confidence_of, optional_text
from tuneyard.eval.runs.tables import placed_lines

HARNESS = ("doc_id", "target", "filtered_resps")
JUDGED_BY = ("acc", "exact_match")


def names(path: Path, record: Record) -> Record:
    """The model is the folder, the dataset is the task; a filter of several has a dataset of its own."""
    task = DATE.sub("", path.stem).removeprefix("samples_")
    applied = optional_text(record, "filter") or "none"
    return {
        "model": path.absolute().parent.name,
        "dataset": task if applied == "none" else f"{task},{applied}",
    }


@log_reader(
    "harness",
    _("lm-evaluation-harness's samples"),
    ".jsonl",
    fields=(HARNESS,),
    files=("samples_*.jsonl",),
    names=names,
)
def harness(path: Path) -> Iterator[Record]:
    """Read one task; the harness logs every row once for each filter, and each filter is a dataset."""
    by_filter: defaultdict[str, list[Record]] = defaultdict(list)
    for record in placed_lines(path):
        missing = [name for name in HARNESS if name not in record]
        if missing:
            raise ContentError(
                _("{place}: no {name}, as the rows before it have", place=record["place"], name=missing[0])
            )
        by_filter[optional_text(record, "filter") or "none"].append(record)
    for records in by_filter.values():
        metric = _metric(records)
        fixed = len({tuple(_choices(record)) for record in records}) == 1
        for record in records:
            doc_hash = record.get("doc_hash")
            yield {
                **names(path, record),
                "question": next((str(pair.get("arg_0", "")) for pair in _arguments(record)), ""),
                "place": record["place"],
                "fingerprint": doc_hash and f"doc_hash {doc_hash}",
                "deciding_score": metric,
                **_sample(record, metric, fixed),
            }


def _arguments(record: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The prompt (`arg_0`) with each choice (`arg_1`). Older versions log lists without these keys."""
    arguments = record.get("arguments")
    values: list[object] = []
    if isinstance(arguments, dict):
        values = list(arguments.values())
    elif isinstance(arguments, list):
        values = arguments
    pairs: list[Mapping[str, object]] = []
    for value in values:
        if isinstance(value, list):
            pairs.append({f"arg_{place}": argument for place, argument in enumerate(value)})
        elif isinstance(value, dict):
            pairs.append(value)
    if len(pairs) < len(values):
        return []
    with_context = [pair for pair in pairs if pair.get("arg_0") != ""]
    if len(with_context) * 2 == len(pairs):  # acc_mutual_info also asks for each choice without the question
        return with_context
    return pairs


def _metric(records: Sequence[Record]) -> str:
    """Find the first metric that is 0 or 1 in every row. `ContentError` if there is none."""
    listed = records[0].get("metrics")
    names = list(JUDGED_BY)
    if isinstance(listed, list):
        names += map(str, listed)
    for name in names:
        if all(record.get(name) in (0, 1) for record in records):
            return name
    raise ContentError(
        _(
            "{place}: no metric that is 0 or 1 in every row (found {names}); only correct or "
            "incorrect answers can be paired",
            place=records[0]["place"],
            names=show_value(listed),
        )
    )


def _sample(record: Record, metric: str, fixed: bool) -> Record:
    """Convert a row of the harness. Labels are the texts of `fixed` choices, otherwise their places."""
    responses, choices = record["filtered_resps"], _choices(record)
    target = optional_text(record, "target") or ""
    where = record["place"]
    if not isinstance(responses, list) or len(responses) < max(1, len(choices)):
        raise unexpected(where, "filtered_resps", responses, _("an answer or more"))
    gold, sure = target, None
    predicted = optional_text({"response": _first(responses)}, "response") or ""
    if choices:
        scores = [_score(where, response) for response in responses[: len(choices)]]
        names = choices if fixed else [str(place) for place in range(len(choices))]
        predicted, sure = names[scores.index(max(scores))], confidence_of(scores)
        place = int(target) if target.isdecimal() and len(target) < 9 else -1
        gold = dict(enumerate(names)).get(place, target)
    if len(choices) == 1:  # one expected continuation: the metric says if it is the likeliest
        gold = choices[0]
        predicted, sure = (gold if record[metric] == 1 else ""), None
    answer = {"id": record["doc_id"], "gold": gold, "prediction": predicted}
    return {**answer, "correct": record[metric] == 1, "confidence": sure}


def _first(value: object) -> object:
    """The first answer in nested lists, which repeated generations are logged as."""
    if isinstance(value, list) and value:
        return _first(value[0])
    return value


def _score(where: str, response: object) -> float:
    """The log-probability of [log-probability, is greedy], written as texts or numbers."""
    first = _first(response)
    if isinstance(first, str | int | float):
        with contextlib.suppress(ValueError, OverflowError):  # no number, or one beyond any float
            number = float(first)
            if not math.isnan(number):
                return number
    raise unexpected(where, "filtered_resps", response, _("a log-probability"))


def _choices(record: Mapping[str, object]) -> list[str]:
    """Texts of the choices in a multiple-choice row. Empty for a generated answer."""
    texts = [pair.get("arg_1") for pair in _arguments(record)]
    if not all(isinstance(text, str) for text in texts):
        return []
    return [str(text).strip() for text in texts]
