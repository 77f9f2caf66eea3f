"""docs/scale.md: its computed tables follow from the others, its rates from what their sources state."""

import re

import pytest

from tests.scale_page import PAGE, duration, money, number, size, table_with, with_tables

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_computed_tables_are_those_of_the_command() -> None:
    """`python -m tests.scale_page --write` writes them."""
    assert with_tables(TEXT) == TEXT
    cheaper = TEXT.replace("| one A100, an hour | $2.00 |", "| one A100, an hour | $1.00 |")
    assert with_tables(cheaper) != cheaper


def test_the_published_rates_follow_from_their_sources() -> None:
    """Prompt tokens a second over those of a row; requests; answer tokens a second over those of a row."""
    rates = [number(row["rows/s"]) for row in table_with(TEXT, "rows/s")]
    assert rates == [round(2048 / 0.133 / 256, 1), round(14.556, 1), round(5777 / 128, 1)]
    published = " ".join(row["published"] for row in table_with(TEXT, "rows/s"))
    assert all(figure in published for figure in ("2,048 prompt tokens in 133 ms", "14.556", "5,777"))


def test_the_sentences_have_the_figures_of_the_tables() -> None:
    (one,) = [row for row in table_with(TEXT, "CPU s") if row["rows"] == "12,000,000"]
    cpu = int(re.findall(r"12 M rows in about (\d+) CPU seconds", TEXT)[0])
    assert cpu == pytest.approx(number(one["CPU s"]), abs=5)


def test_numbers_are_shown_for_a_reader() -> None:
    assert [duration(seconds) for seconds in (30, 1800, 7200, 864_000)] == [
        "30 s",
        "30 min",
        "2.0 h",
        "10.0 days",
    ]
    assert [size(count) for count in (9e8, 2.5e10, 3.69e12)] == ["900 MB", "25 GB", "3.69 TB"]
    assert [money(dollars) for dollars in (0.947, 38.05, 1234)] == ["$0.95", "$38", "$1,234"]
