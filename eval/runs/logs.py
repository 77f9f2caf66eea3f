"""Other tools' results: lm-evaluation-harness's samples_*.jsonl, plain JSON Lines, and the defect guide's
evaluation_results.json, its rows or figures by type where it has none.

A plain line is {"id", "gold", "prediction"} with an optional "cluster", "type" and "subtype".
"""

import contextlib
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from core.documents import json_lines
from core.errors import ContentError, show_value
from core.files import read_object
from eval.runs.judgement import (
    KINDS,
    ScoredExample,
    ScoredRun,
    assemble,
    confidence_of,
    kinds_of,
    optional_text,
)
from eval.statistics.rates import group_of

DETAILED = "evaluation_results.json"
PLAIN = ("id", "gold", "prediction")
HARNESS = ("doc_id", "target", "filtered_resps")
DATE = re.compile(r"_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?$")
JUDGED_BY = ("acc", "exact_match")

Line = tuple[str, dict[str, object]]


def read_log(path: Path) -> list[ScoredRun]:
    """Return the runs of a log file, one for each filter that lm-evaluation-harness applied."""
    lines = [(f"{path}:{number}", record) for number, record in json_lines(path)]
    first = lines[0][1] if lines else {}
    if all(name in first for name in HARNESS):
        return _harness(path, lines)
    if all(name in first for name in PLAIN):
        records = [_plain(where, record) for where, record in lines]
        return [assemble(path.stem, "rows", path, records, {})]
    raise ContentError(
        f"{path}: found the fields {', '.join(first) or 'none'}; expected {', '.join(PLAIN)} "
        f"or lm-evaluation-harness's {', '.join(HARNESS)}"
    )


def _plain(where: str, record: Mapping[str, object]) -> ScoredExample:
    row, gold, prediction = (optional_text(record, name) for name in PLAIN)
    if row is None or gold is None:
        raise ContentError(
            f"{where}: expected id, gold and prediction in every row, found {', '.join(record)}"
        )
    predicted, kinds = prediction or "", kinds_of(record, gold)
    return ScoredExample(row, gold, predicted, gold == predicted, where, group_of(record), kinds)


def _harness(path: Path, lines: Sequence[Line]) -> list[ScoredRun]:
    """One run for each filter: the harness logs every row once for each."""
    by_filter: defaultdict[str, list[Line]] = defaultdict(list)
    for where, record in lines:
        missing = [name for name in HARNESS if name not in record]
        if missing:
            raise ContentError(f"{where}: no {missing[0]}, as the rows before it have")
        by_filter[optional_text(record, "filter") or "none"].append((where, record))
    task = DATE.sub("", path.stem).removeprefix("samples_")
    runs = []
    for name, own in by_filter.items():
        dataset = task if name == "none" else f"{task},{name}"
        metric = _metric(own)
        fixed = len({tuple(_choices(record)) for _, record in own}) == 1
        records = [_sample(where, record, metric, fixed) for where, record in own]
        hashes = sorted(f"{record.get('doc_id')} {record.get('doc_hash')}" for _, record in own)
        data = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        facts = {"hashes": {"data": f"harness {data}"}}
        runs.append(assemble(path.parent.name, dataset, path, records, facts))
    return runs


def _metric(lines: Sequence[Line]) -> str:
    """The first metric that says right or wrong of every row; `ContentError` where none does."""
    where, first = lines[0]
    listed = first.get("metrics")
    for name in (*JUDGED_BY, *(map(str, listed) if isinstance(listed, list) else [])):
        if all(record.get(name) in (0, 1) for _, record in lines):
            return name
    raise ContentError(
        f"{where}: no metric that is 0 or 1 in every row (found {show_value(listed)}); "
        "only correct or incorrect answers can be paired"
    )


def _sample(where: str, record: Mapping[str, object], metric: str, fixed: bool) -> ScoredExample:
    """A row of the harness; labels are the choices' texts where all rows share them, else their places."""
    responses, choices, target = record["filtered_resps"], _choices(record), str(record["target"])
    if not isinstance(responses, list) or len(responses) < max(1, len(choices)):
        raise ContentError(
            f"{where}: filtered_resps: found {show_value(responses)}, expected an answer or more"
        )
    gold, predicted, sure = target, str(_first(responses)), None
    if choices:
        scores = [_score(where, response) for response in responses[: len(choices)]]
        names = choices if fixed else [str(place) for place in range(len(choices))]
        predicted, sure = names[scores.index(max(scores))], confidence_of(scores)
        place = int(target) if target.isdecimal() and len(target) < 9 else -1
        gold = dict(enumerate(names)).get(place, target.strip())
    right = record[metric] == 1
    return ScoredExample(str(record["doc_id"]), gold, predicted, right, where, confidence=sure)


def _first(value: object) -> object:
    """The first answer of lists within lists: repeated generations are logged so."""
    return _first(value[0]) if isinstance(value, list) and value else value


def _score(where: str, response: object) -> float:
    """The log-probability of [log-probability, is greedy], written as texts or numbers."""
    first = _first(response)
    if isinstance(first, str | int | float):
        with contextlib.suppress(ValueError):
            if not math.isnan(number := float(first)):
                return number
    raise ContentError(f"{where}: filtered_resps: found {show_value(response)}, expected a log-probability")


def _choices(record: Mapping[str, object]) -> list[str]:
    """The texts that were compared in a multiple-choice row, none in a generated one."""
    arguments = record.get("arguments")
    pairs = list(arguments.values()) if isinstance(arguments, dict) else []
    texts = [pair.get("arg_1") if isinstance(pair, dict) else None for pair in pairs]
    named = [text.strip() for text in texts if isinstance(text, str)]
    return named if len(named) == len(texts) else []


def read_detailed(path: Path) -> ScoredRun:
    """Return the run of an evaluation_results.json; one without `results` has no rows, so that nothing can be
    paired; `ContentError` where it has no counts by type or subtype either."""
    fields = read_object(path)
    own = path.parent.name if path.name == DETAILED else path.stem
    model, dataset = optional_text(fields, "model") or own, optional_text(fields, "test_dataset") or "rows"
    if not fields.get("results"):
        return _counted(path, model, dataset, fields)
    rows = list(detailed_rows(path))
    records = [_answer(f"{path} result {place}", row) for place, row in enumerate(rows)]
    asked = [optional_text(row, "user") for row in rows]
    data = hashlib.sha256("\n".join(map(str, asked)).encode(errors="surrogatepass")).hexdigest()
    facts = {"hashes": {"data": f"guide {data}"}} if None not in asked else {}
    return assemble(model, dataset, path, records, facts)


def detailed_rows(path: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of an evaluation_results.json, each with its place as `row`; or `ContentError`."""
    results = read_object(path).get("results")
    for place, row in enumerate(results if isinstance(results, list) else [results]):
        if not isinstance(row, dict):
            raise ContentError(f"{path}: results: found {show_value(row)}, expected a list of objects")
        yield {**row, "row": place}


def _answer(where: str, row: Mapping[str, object]) -> ScoredExample:
    gold, predicted = optional_text(row, "expected"), optional_text(row, "predicted")
    correct = row.get("is_correct", gold == predicted)
    if gold is None or not isinstance(correct, bool):
        raise ContentError(
            f"{where}: found {show_value(row)}, expected a row with expected, predicted and is_correct"
        )
    kinds = kinds_of(row, gold)
    return ScoredExample(str(row["row"]), gold, predicted or "", correct, where, kinds=kinds)


def _counted(path: Path, model: str, dataset: str, fields: Mapping[str, object]) -> ScoredRun:
    """Return a run without rows, whose answers are as many right and wrong ones as the file counts."""
    found = {kind: counts for kind in KINDS if (counts := _counts(path, kind, fields))}
    sums = {tuple(map(sum, zip(*counts.values(), strict=True))) for counts in found.values()}
    if len(sums) != 1:
        what = "counts that do not add up alike" if sums else "neither results nor counts"
        raise ContentError(
            f"{path}: {what}; expected subtype_accuracy or type_accuracy with correct and total"
        )
    right, total = sums.pop()
    kinds = {
        kind: [name for name, (good, _) in counts.items() for _ in range(good)]
        + [name for name, (good, every) in counts.items() for _ in range(every - good)]
        for kind, counts in found.items()
    }
    flags = [True] * right + [False] * (total - right)
    unknown = {"majority": float("nan")}
    return ScoredRun(
        model, dataset, str(path), [], [""] * total, [""] * total, flags, kinds=kinds, facts=unknown
    )


def _counts(path: Path, kind: str, fields: Mapping[str, object]) -> dict[str, tuple[int, int]]:
    """By name: the right ones, and all."""
    shares = fields.get(f"{kind}_accuracy")
    counts = {}
    for name, share in shares.items() if isinstance(shares, dict) else ():
        right, total = (share.get(key) if isinstance(share, dict) else None for key in ("correct", "total"))
        if type(right) is not int or type(total) is not int or not 0 <= right <= total or not total:
            raise ContentError(
                f"{path}: {kind}_accuracy: {name}: found {show_value(share)}, "
                "expected counts: correct and total"
            )
        counts[name] = (right, total)
    return counts
