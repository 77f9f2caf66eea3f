"""Random small datasets over a hostile alphabet, in every layout: what is compiled is what Python reads."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

from tools.fuzz.execute import execute, scratch
from tools.fuzz.invariants import leftovers, miscounts, records_of, rows_of

SPEC = """
about: a
columns:
  q: {names: [q], is: answer}
  a: {names: ["a b"], is: answer}
  k: {names: [k], is: any}
write:
  - {dataset: t, file: t.jsonl, format: alpaca, instruction: "{q}", input: "<{a}>", output: "{a}", keep: [k]}
  - {dataset: u, file: u.json, format: messages, user: "{q}{{", assistant: "%{a}"}
"""
ALPHABET = [
    '",', '","', '"', '""', "'", "\\", '\\"', ",", ";", "\t", "\n", "\r\n", "\r", "\x00", "\x1e", "\x1f",
    "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\u00a0", "\u3000", "é", "e\u0301", "苹", "😀", "{",
    "}", "[", "]", ":", "%s", "%", "{q}", "0", "12345678901234567890", "-1", "1e5", "null", "true", " ", "a",
    "b c", "<s>",
]  # fmt: skip
LONE = ["\ud800", "\udfff", "\ude00\ud83d"]
KEPT: list[list[object]] = [  # of one type in one dataset
    [None, True, False],
    [None, 0, -1, 1.5, 2**53 + 1, 2**63, 10**22 + 1],
    ["", "x"],
    [[], ["x", None]],
    [None, {"a": 1}],
]
Row = dict[str, object]


def text(rng: random.Random, lone: bool) -> str:
    """Return up to six pieces of the alphabet."""
    signs = ALPHABET + LONE if lone else ALPHABET
    return "".join(rng.choices(signs, k=rng.choice([0, 1, 1, 2, 3, 6])))


def draw(rng: random.Random, lone: bool) -> list[Row]:
    """Return up to six rows; `lone`: in some there may be half of a character."""
    kept = rng.choice(KEPT)
    return [
        {
            "q": text(rng, lone),
            "a b": text(rng, lone),
            "k": rng.choice(kept),
            "more": rng.choice([None, "", 1]),
        }
        for _unused in range(rng.randrange(1, 7))
    ]


def lines(rng: random.Random, rows: list[Row]) -> bytes:
    """Return rows as JSON Lines, escaped or not, with or without blanks between."""
    escaped = rng.random() < 0.5 or any(map(_halved, rows))
    ends = rng.choice(["\n", "\r\n", "\n\n"])
    close = rng.choice([(", ", ": "), (",", ":"), (" ,", " :")])
    return ends.join(json.dumps(row, ensure_ascii=escaped, separators=close) for row in rows).encode()


def array(rng: random.Random, rows: list[Row]) -> bytes:
    """Return rows as one JSON array."""
    indent = rng.choice([None, None, 1, "\t"])
    escaped = rng.random() < 0.5 or any(map(_halved, rows))
    return json.dumps(rows, ensure_ascii=escaped, indent=indent).encode()


def table(rng: random.Random, rows: list[Row]) -> bytes:
    """Return rows as csv, quoted where it must be or everywhere."""
    out = io.StringIO(newline="")
    alone = any("\r" in str(row["q"]) + str(row["a b"]) for row in rows)  # Python's writer leaves it bare
    all_quoted = alone or rng.choice([False, True])
    writer = csv.writer(
        out,
        quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL,
        lineterminator=rng.choice(["\n", "\r\n"]),
    )
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return out.getvalue().encode()


def parquet(rows: list[object]) -> bytes:
    """Return rows as Parquet, or nothing where they have no common types."""
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    except (pyarrow.ArrowException, AttributeError, TypeError, ValueError, OverflowError):
        return b""
    return out.getvalue()


LAYOUTS: dict[str, Callable[[random.Random, list[Row]], bytes]] = {
    "t.jsonl": lines,
    "t.json": array,
    "t.csv": table,
    "t.jsonl.gz": lambda rng, rows: gzip.compress(lines(rng, rows), mtime=0),
    "t.parquet": lambda _unused, rows: parquet([row | {"k": str(row["k"]), "more": None} for row in rows]),
}


def expected(name: str, data: bytes, rows: list[Row]) -> list[Row]:
    """Return the rows that Python's own readers find, without those that no file of ours may hold."""
    found = rows_of(name, data)
    if name.endswith(".parquet"):
        found = [row | {"k": str(row["k"])} for row in rows]
    if name.endswith(".csv"):
        found = [dict(zip(rows[0], row, strict=True)) for row in found or [] if isinstance(row, list)]
    return [row for row in found or [] if isinstance(row, dict) and not _halved(row) and not _large(row)]


def run(seed: str) -> list[str]:
    """Compile one random dataset in one layout; return where it differs from what Python reads."""
    rng = random.Random(seed)
    name = rng.choice(list(LAYOUTS))
    rows = draw(rng, lone=".json" in name and rng.random() < 0.2)
    data = LAYOUTS[name](rng, rows)
    if not data:
        return []
    wanted = expected(name, data, rows)
    with scratch() as folder:
        (folder / name).write_bytes(data)
        (folder / "s.yaml").write_text(SPEC)
        outcome = execute("compile", "s.yaml", "--source", name, "--out", "out", "--on-error", "reject")
        wrong = outcome.wrong + leftovers(folder / "out", outcome)
        if wrong or bool(wanted) != (outcome.code == 0):
            return wrong or [f"exit code {outcome.code} where Python reads {len(wanted)} rows: {outcome.err}"]
        return (miscounts(folder / "out", None) or _differences(folder, wanted)) if wanted else []


def _differences(folder: Path, wanted: list[Row]) -> list[str]:
    alpaca = [
        {"instruction": row["q"], "input": f"<{row['a b']}>", "output": row["a b"], "k": row["k"]}
        for row in wanted
    ]
    talks = [[f"{row['q']}{{", f"%{row['a b']}"] for row in wanted]
    spoken = [
        [turn["content"] for turn in record["messages"]] for record in records_of(folder / "out/s/u.json")
    ]
    found = records_of(folder / "out/s/t.jsonl")
    pairs = [*zip(alpaca, found, strict=False), *zip(talks, spoken, strict=False)]
    wrong = [
        f"wanted {one}\n found {two}" for one, two in pairs if repr(one) != repr(two)
    ]  # 1 == 1.0 == True
    if not len(wanted) == len(found) == len(spoken):
        wrong.append(f"wanted {len(wanted)} rows, found {len(found)} and {len(spoken)}")
    return wrong[:1]


def _large(row: Row) -> bool:
    """Whether a whole number beyond 64 bits stands in a row, of which digits would be lost."""
    number = row.get("k")
    return type(number) is int and not -(2**63) <= number < 2**64


def _halved(row: Row) -> bool:
    """Whether half of a character stands in a row."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
