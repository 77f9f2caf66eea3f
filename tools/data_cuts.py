"""Files of real data that are made of public files: a function of bytes for each."""

import csv
import io
import json
from collections.abc import Callable, Sequence

REPORTS = 200
"""Fault reports in each file of defect/raw."""
EMPTY = ("", "0")
"""Cells of the fault reports that say nothing."""


def distinct_rows(tables: Sequence[bytes]) -> bytes:
    """The rows of several TSV tables under one header, each first cell once."""
    header = tables[0].splitlines(keepends=True)[0]
    rows: dict[bytes, bytes] = {}
    for table in tables:
        for row in table.splitlines(keepends=True)[1:]:
            rows.setdefault(row.split(b"\t")[0], row)
    return header + b"".join(rows.values())


def questions(conversations: bytes) -> list[dict[str, str]]:
    """The first message of each conversation and its answer."""
    rows = []
    for line in conversations.splitlines():
        question, answer, *_unused = json.loads(line)["conversations"]
        rows.append({"question": question["value"], "answer": answer["value"]})
    return rows


def lines(rows: Sequence[object]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def all_questions(files: Sequence[bytes]) -> bytes:
    return lines(questions(files[0]))


def first_questions(files: Sequence[bytes]) -> bytes:
    """300 questions as an array."""
    return json.dumps(questions(files[0])[:300], ensure_ascii=False, indent=1).encode()


def rows_of_parquet(files: Sequence[bytes]) -> bytes:
    from pyarrow import BufferReader, parquet

    return lines(parquet.read_table(BufferReader(files[0])).to_pylist())


def rows_without_header(files: Sequence[bytes]) -> bytes:
    """The first 40 rows of a TSV table."""
    return b"".join(files[0].splitlines(keepends=True)[1:41])


def reports(number: int) -> Callable[[Sequence[bytes]], bytes]:
    """A part of the fault reports in the raw form of the published document, without empty ones."""

    def cut(files: Sequence[bytes]) -> bytes:
        table = csv.DictReader(io.StringIO(files[0].decode("utf-8"), newline=""))
        records = []
        for row in table:
            subtype, event, reason = (row[name].strip() for name in ("形成原因细类", "问题现象", "原因分析"))
            if subtype in EMPTY or event in EMPTY or reason in EMPTY:
                continue
            task = {
                "task": "根据事件描述判断故障组件，并说明原因。",
                "event": event,
                "output_format": "判断:<故障组件>\n\n原因：<原因分析>",
            }
            output = {"judgement": row["故障组件"].strip(), "reason": reason}
            records.append({"instruction": [{"subtype": subtype}], "input": task, "output": output})
        part = records[number * REPORTS : (number + 1) * REPORTS]
        return json.dumps(part, ensure_ascii=False, indent=2).encode()

    return cut


CUTS: dict[str, Callable[[Sequence[bytes]], bytes]] = {
    "distinct rows": distinct_rows,
    "all questions": all_questions,
    "first questions": first_questions,
    "rows of parquet": rows_of_parquet,
    "rows without header": rows_without_header,
    **{f"reports {number}": reports(number) for number in range(5)},
}
"""What makes a file of others, by its name in the catalogue."""
