"""Other tools' per-row logs: lm-evaluation-harness's samples_*.jsonl, and plain JSON Lines.

A plain line is {"id", "gold", "prediction"} with an optional "group", "type" and "subtype".
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ContentError, show_value
from eval.measure.judgement import Run
from eval.output.records import Record, assemble, json_lines, kinds_of, optional_text

PLAIN = ("id", "gold", "prediction")
HARNESS = ("doc_id", "target", "filtered_resps")
DATE = re.compile(r"_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?$")
JUDGED_BY = ("acc", "exact_match")

Line = tuple[str, dict[str, object]]


def read_log(path: Path) -> list[Run]:
    """Return the runs of a log file, one for each filter that lm-evaluation-harness applied."""
    lines = list(json_lines(path))
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


def _plain(where: str, record: Mapping[str, object]) -> Record:
    row, gold, prediction = (optional_text(record, name) for name in PLAIN)
    if row is None or gold is None:
        raise ContentError(
            f"{where}: expected id, gold and prediction in every row, found {', '.join(record)}"
        )
    predicted = "" if prediction is None else prediction
    group = optional_text(record, "group")
    return Record(row, gold, predicted, gold == predicted, where, group, kinds_of(record, gold))


def _harness(path: Path, lines: Sequence[Line]) -> list[Run]:
    """One run for each filter: the harness logs every row once for each."""
    by_filter: defaultdict[str, list[Line]] = defaultdict(list)
    for where, record in lines:
        by_filter[str(record.get("filter", "none"))].append((where, record))
    task = DATE.sub("", path.stem).removeprefix("samples_")
    runs = []
    for name, own in by_filter.items():
        dataset = task if name == "none" else f"{task},{name}"
        metric = _metric(own)
        fixed = len({tuple(_choices(record)) for _, record in own}) == 1
        records = [_sample(where, record, metric, fixed) for where, record in own]
        hashes = sorted(f"{record.get('doc_id')} {record.get('doc_hash')}" for _, record in own)
        data = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        runs.append(
            assemble(path.parent.name, dataset, path, records, {"hashes": {"data": f"harness {data}"}})
        )
    return runs


def _metric(lines: Sequence[Line]) -> str:
    """The first metric that says right or wrong of every row; `ContentError` where none does."""
    where, first = lines[0]
    listed = first.get("metrics")
    names = [*JUDGED_BY, *(listed if isinstance(listed, list) else [])]
    for name in names:
        if all(record.get(name) in (0, 1) for _, record in lines):
            return str(name)
    raise ContentError(
        f"{where}: no metric that is 0 or 1 in every row (found {show_value(listed)}); "
        "only right or wrong answers can be paired"
    )


def _sample(where: str, record: Mapping[str, object], metric: str, fixed: bool) -> Record:
    """A row of the harness; labels are the choices' texts where all rows share them, else their places."""
    choices, target = _choices(record), str(record["target"])
    responses = record["filtered_resps"]
    if not isinstance(responses, list) or not responses:
        raise ContentError(f"{where}: filtered_resps: found {show_value(responses)}, expected a list")
    if choices:
        scores = [float(response[0]) for response in responses[: len(choices)]]
        predicted = str(scores.index(max(scores)))
        names = choices if fixed else [str(place) for place in range(len(choices))]
        gold = names[int(target)] if target.isdigit() and int(target) < len(names) else target.strip()
        predicted = names[int(predicted)]
    else:
        gold, predicted = target, str(responses[0])
    return Record(str(record["doc_id"]), gold, predicted, record[metric] == 1, where)


def _choices(record: Mapping[str, object]) -> list[str]:
    """The texts that were compared in a multiple-choice row, none in a generated one."""
    arguments = record.get("arguments")
    if not isinstance(arguments, dict):
        return []
    pairs = [pair.get("arg_1") for pair in arguments.values() if isinstance(pair, dict)]
    return (
        [text.strip() for text in pairs if isinstance(text, str)]
        if all(isinstance(t, str) for t in pairs)
        else []
    )
