"""python -m tests.scale_page [--write]: the computed tables of docs/scale.md, from its other tables.

Prints the tables that stand between the marks `<!-- computed: NAME -->` and `<!-- end -->`, or writes them
into the page. A test compares both, so that no figure of the page is worked out by hand.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "scale.md"
HOUR = 3600.0
ROWS = (100_000_000, 10_000_000_000)
SCORED_ROWS = 1_000 * 1_000  # 1,000 pairs of 1,000 rows
PART_ROWS = 128  # of a task of scoring, as in eval/scoring/remote.py
COMPUTED = re.compile(r"(?<=<!-- computed: )(\w+)( -->\n\n)(.*?)(?=\n\n<!-- end -->)", re.S)
Row = dict[str, str]


def tables(text: str) -> Iterator[list[Row]]:
    """Every table of a page: for each row its cells by the table's head."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        head, _, *body = lines
        yield [dict(zip(head, cells, strict=True)) for cells in body]


def table_with(text: str, column: str) -> list[Row]:
    """The only table that has this column."""
    (table,) = [rows for rows in tables(text) if column in rows[0]]
    return table


def number(cell: str) -> float:
    """The first number of a cell: `12,000,000`, `$2.00`, `14.6 rows/s`."""
    match = re.search(r"\d[\d,]*\.?\d*", cell)
    if match is None:
        raise ValueError(f"{cell!r} has no number")
    return float(match[0].replace(",", ""))


def price_of(text: str, name: str) -> float:
    """Dollars, from the table of assumed prices."""
    (row,) = [row for row in table_with(text, "assumed price") if row["of"] == name]
    return number(row["assumed price"])


def duration(seconds: float) -> str:
    """Seconds for a reader: `14 min`, `20 h`, `3.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * HOUR:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * HOUR:
        return f"{seconds / HOUR:.1f} h"
    return f"{seconds / HOUR / 24:.1f} days"


def size(count: float) -> str:
    """Bytes for a reader, in powers of ten."""
    for unit, bytes_of_unit in (("TB", 1e12), ("GB", 1e9)):
        if count >= bytes_of_unit:
            return f"{count / bytes_of_unit:.3g} {unit}"
    return f"{count / 1e6:.0f} MB"


def money(dollars: float) -> str:
    """Dollars for a reader; less than 10 with cents."""
    if dollars < 10:
        return f"${dollars:.2f}"
    return f"${dollars:,.0f}"


def lines_of(head: list[str], body: list[list[str]]) -> str:
    """A table as Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(
        f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("---|", "---|") for line in lines
    )


def compile_table(text: str) -> str:
    """Compile 100 M and 10 G rows: the largest measured compile, scaled by its rows."""
    smallest, *_, one = table_with(text, "CPU s")
    largest = number(one["rows"])
    step = number(one["MB"]) - number(smallest["MB"])
    memory_of_row = step * 1e6 / (largest - number(smallest["rows"]))
    bytes_of = {row["file"]: number(row["bytes"]) / largest for row in table_with(text, "bytes")}
    core_hour = price_of(text, "one CPU core, an hour")
    body = []
    for rows in ROWS:
        alone = number(one["CPU s"]) * rows / largest
        body.append(
            [
                f"{rows:,}",
                duration(alone),
                size(memory_of_row * rows),
                size(bytes_of["source"] * rows),
                size((bytes_of["records"] + bytes_of["row index"]) * rows),
                money(alone / HOUR * core_hour),
            ]
        )
    return lines_of(["rows", "time", "memory", "source", "written", "money"], body)


def scoring_table(text: str) -> str:
    """Score 1,000 pairs of 1,000 rows by the published rates."""
    (on_ray,) = [
        row for row in table_with(text, "use") if row["run by"] == "Ray" and row["lost"] == "nothing"
    ]
    driver_seconds = number(on_ray["driver, a task"]) / 1e6
    body = []
    for row in table_with(text, "rows/s"):
        rate = number(row["rows/s"])
        hours = SCORED_ROWS / rate / HOUR
        gpu = row["GPU"].partition(" ")[0]
        fed = PART_ROWS / rate / driver_seconds
        body.append(
            [
                f"{row['GPU']}, {row['answers']}",
                f"{hours:.1f}",
                money(hours * price_of(text, f"one {gpu}, an hour")),
                duration(hours * HOUR / 8),
                f"{fed:,.0f}",
            ]
        )
    head = ["GPU, answers", "GPU hours", "money", "wall on 8 GPUs", "GPUs that one driver keeps busy"]
    return lines_of(head, body)


TABLES = {"compile": compile_table, "scoring": scoring_table}


def with_tables(text: str) -> str:
    """The page with its computed tables as they follow from the others."""
    return COMPUTED.sub(lambda match: f"{match[1]}{match[2]}{TABLES[match[1]](text)}", text)


def main() -> None:
    """Print the computed tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them into docs/scale.md")
    page = Path(PAGE).read_text(encoding="utf-8")
    if parser.parse_args().write:
        PAGE.write_text(with_tables(page), encoding="utf-8")
        return
    for name, table in TABLES.items():
        print(f"{name}\n\n{table(page)}\n")


if __name__ == "__main__":
    main()
