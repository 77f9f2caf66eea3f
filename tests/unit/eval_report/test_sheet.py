"""Rating sheets: blind, safe in spreadsheets, and read back however a spreadsheet saved them."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.json_files import write_json
from tests.messages import golden_text, printed, printed_line, raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.ab.ratings import CRITERIA, Rating
from tuneyard.eval.ab.sheet import (
    COLUMNS,
    CONTROL,
    LONGEST,
    Answered,
    check_key,
    check_unrated,
    make_sheet,
    read_key,
    read_rows,
    read_sheet,
    safe_cell,
    side_by_side,
    tally_json,
    tally_table,
)

ASKED = [
    Answered(f"Frage {n}\nzwei Zeilen, 中文", "", {"base": f"nein {n}", "tuned": f"ja; {n}"})
    for n in range(1, 31)
]


@pytest.fixture
def key(tmp_path: Path):
    write_json(tmp_path / "key.json", {"models": ["base", "tuned"], "answers": make_sheet(ASKED, 42)[1]})
    return read_key(tmp_path / "key.json")


def rows_of(sheet: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.decode("utf-8-sig"), newline="")))


def filled(marks="3", **saved) -> bytes:
    """The sheet with the same mark everywhere, saved as a spreadsheet would."""
    rows = rows_of(make_sheet(ASKED, 42)[0])
    return save([{**row, **dict.fromkeys(CRITERIA, marks)} for row in rows], **saved)


def save(rows, encoding="utf-8-sig", delimiter=",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def test_the_sheet_is_blind_and_in_random_order() -> None:
    sheet, key = make_sheet(ASKED, 42)
    rows = rows_of(sheet)
    assert sheet.startswith(b"\xef\xbb\xbf") and tuple(rows[0]) == COLUMNS and len(rows) == 60
    assert b"tuned" not in sheet and b"base" not in sheet
    for row in rows:
        of = key[row["id"]]
        one = ASKED[of["prompt"] - 1]
        assert (row["prompt"], row["answer"]) == (one.prompt, one.answers[of["model"]])
    first = [key[row["id"]]["model"] for row in rows[::2]]
    assert 5 < first.count("base") < 25
    assert [key[row["id"]]["prompt"] for row in rows] == [n for n in range(1, 31) for _ in "ab"]


def test_the_seed_alone_decides_the_order() -> None:
    assert make_sheet(ASKED, 42) == make_sheet(ASKED, 42)
    one, other = make_sheet(ASKED, 42)[1], make_sheet(ASKED, 43)[1]
    assert list(one.values()) != list(other.values())
    assert not set(one) & set(other)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "＝1", "－1", "\x00=1"]
)
def test_no_cell_begins_a_formula(text) -> None:
    cell = safe_cell(text)
    assert cell[0] in "'\N{REPLACEMENT CHARACTER}" and cell.endswith(text.lstrip("\x00\t\r\n "))


HOSTILE = st.text(st.sampled_from("=+-@＝'\";,\t\n a；|") | st.characters(codec="utf-8"), max_size=12)


@given(HOSTILE)
def test_a_cell_is_its_text_and_an_apostrophe_before_a_formula(text) -> None:
    plain = CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))
    cell = safe_cell(text)
    assert cell in (plain, f"'{plain}")
    assert cell == text or not text.isalnum()
    assert cell[:1] != "\t" and cell.lstrip(' \n"\u3000\xa0')[:1] not in tuple("=+-@＝＋－＠")


def test_a_sheet_saved_with_semicolons_holds_every_id_and_neutral_texts(tmp_path) -> None:
    asked = [Answered("a;=1+1\n- b", "", {"base": "=HYPERLINK(1)", "tuned": "x;+2"})]
    sheet, key = make_sheet(asked, 42)
    (tmp_path / "s.csv").write_bytes(save(rows_of(sheet), delimiter=";"))
    read = {row["id"]: row for _, row in read_rows(tmp_path / "s.csv")}
    assert {row["prompt"] for row in read.values()} == {"a;=1+1\n- b"}
    told = {key[name]["model"]: row["answer"] for name, row in read.items()}
    assert told == {"base": "'=HYPERLINK(1)", "tuned": "x;+2"}


def test_a_cell_ends_where_a_spreadsheets_does() -> None:
    cell = safe_cell("x" * 40_000)
    assert len(cell) < 32_767 and cell.startswith("x" * LONGEST) and "answers.md" in cell


@pytest.mark.parametrize(
    "saved",
    [{}, {"delimiter": ";"}, {"delimiter": "\t"}, {"encoding": "gb18030"}, {"marks": "３"}, {"marks": "3.0"}],
)
def test_a_sheet_is_read_however_it_was_saved(tmp_path, key, saved) -> None:
    (tmp_path / "anna.csv").write_bytes(filled(**saved))
    ratings = read_sheet(tmp_path / "anna.csv", key, "anna")
    assert len(ratings) == 60
    assert Rating("anna", 1, "base", dict.fromkeys(CRITERIA, 3)) in ratings


def test_wrong_marks_and_ids_are_named_by_row(tmp_path, key) -> None:
    rows = rows_of(filled())
    rows[0]["depth"], rows[1]["usefulness"], rows[2]["id"], rows[4]["id"] = (
        "6",
        "good",
        "s000000-3",
        rows[3]["id"],
    )
    (tmp_path / "s.csv").write_bytes(save(rows))
    with pytest.raises(ContentError) as error:
        read_sheet(tmp_path / "s.csv", key, "a")
    first, second, third, fourth = str(error.value).splitlines()
    printed(first, "6", "row 2", "s.csv", "depth", "1", "2", "3", "4", "5")
    printed(second, "good", "row 3", "s.csv", "usefulness")
    printed(third, "s000000-3", "row 4", "s.csv")
    assert "s.csv row 6: id" in fourth and "stands twice" in fourth


def test_many_problems_are_cut(tmp_path, key) -> None:
    (tmp_path / "s.csv").write_bytes(filled("0"))
    with raises(ContentError, "280"):
        read_sheet(tmp_path / "s.csv", key, "a")


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (b"", "row 1"),
        (b"id,correctness\n", "row 1"),
        (b"PK\x03\x04rest", "CSV"),
        ("id".encode("utf-16"), "CSV"),
        (make_sheet(ASKED, 42)[0], ""),
        (filled().replace(b'"', b"") + b'"' + b"x" * 200_000, "CSV"),
    ],
)
def test_what_is_no_filled_sheet(tmp_path, key, data, facts) -> None:
    (tmp_path / "s.csv").write_bytes(data)
    with raises(ContentError, facts):
        read_sheet(tmp_path / "s.csv", key, "a")


@pytest.mark.parametrize(
    "value", [{}, {"models": [], "answers": {"s-1": {"prompt": 1}}}, {"models": ["a"], "answers": 3}]
)
def test_what_is_no_key(tmp_path, value) -> None:
    write_json(tmp_path / "key.json", value)
    with raises(ContentError, "key.json"):
        read_key(tmp_path / "key.json")


def test_the_key_of_an_earlier_version_is_that_of_its_sheet(tmp_path) -> None:
    """It wrote `sets` and no format. That of a later version is refused by both commands."""
    path, answers = tmp_path / "key.json", make_sheet(ASKED, 42)[1]
    key = {"format": 2, "seed": 42, "models": ["base", "tuned"], "datasets": ["a"], "answers": answers}
    write_json(path, {"seed": 42, "models": ["base", "tuned"], "sets": ["a"], "answers": answers})
    check_key(path, key)
    assert len(read_key(path).answers) == 60
    with raises(RequestError, "key.json", "datasets"):
        check_key(path, {**key, "datasets": ["b"]})
    write_json(path, {**key, "format": 3})
    for read in (read_key, lambda path: check_key(path, key)):
        with raises(ContentError, "key.json", "format 3"):
            read(path)


def test_a_sheet_with_marks_or_comments_is_never_overwritten(tmp_path) -> None:
    path = tmp_path / "sheet.csv"
    check_unrated(path)
    path.write_bytes(make_sheet(ASKED, 42)[0])
    check_unrated(path)
    rows = rows_of(path.read_bytes())
    for column in ("depth", "comment"):
        path.write_bytes(save([{**rows[0], column: "1"}, *rows[1:]]))
        with raises(RequestError, "sheet.csv"):
            check_unrated(path)


def test_the_key_keeps_which_prompts_are_not_independent(tmp_path) -> None:
    asked = [Answered(f"Q{n}", "", {"base": "a", "tuned": "b"}, f"set/{n // 3}") for n in range(5)]
    asked.append(Answered("Q5", "", {"base": "a", "tuned": "b"}))
    answers = make_sheet(asked, 42)[1]
    write_json(tmp_path / "key.json", {"models": ["base", "tuned"], "answers": answers})
    clusters = read_key(tmp_path / "key.json").clusters
    assert clusters == {1: "set/0", 2: "set/0", 3: "set/0", 4: "set/1", 5: "set/1"}
    ratings = [
        Rating("anna", n, model, dict.fromkeys(CRITERIA, mark))
        for n in range(1, 7)
        for model, mark in (("base", 2), ("tuned", 4))
    ]
    tallies = [tally_json(ratings, ["base", "tuned"], given) for given in ({}, clusters)]
    assert [tally["clusters"] for tally in tallies] == [None, 2]
    alone, together = (tally["outcomes"][0] for tally in tallies)
    # six prompts won; by cluster there are three, of which a fair coin wins all or none in 2 of 8 cases
    assert (alone["p"], together["p"]) == (pytest.approx(2 / 64), pytest.approx(2 / 8))
    assert (alone["wins"], together["wins"]) == (6, 3)


def test_answers_side_by_side_are_left_as_they_are() -> None:
    answer = "<b>x</b>\n````\ncode\n````\n# no heading"
    page = side_by_side(
        [Answered("Q", "", {"base": answer}), Answered("R", "the reference", {"base": "``` in a line"})]
    )
    assert f"**base**\n\n`````text\n{answer}\n`````\n" in page
    assert page.count("**Reference**") == 1 and "\n\n````text\n``` in a line\n````\n" in page


def test_the_tally_says_who_won() -> None:
    ratings = [
        Rating(rater, n, model, dict.fromkeys(CRITERIA, mark + (n == 7)))
        for rater in ("anna", "ben")
        for n in range(1, 9)
        for model, mark in (("base", 2), ("tuned", 4 if n < 8 else 2))
    ]
    text = tally_table(tally_json(ratings, ["base", "tuned"], {}))
    golden_text(text, "7", "0", "1", "0.016", "100.0", "64.6–100.0")
    printed_line(text, "same verdict", "100.0")
    found = tally_json(ratings, ["base", "tuned"], {})
    assert (found["raters"], found["prompts"]) == (["anna", "ben"], 8)
    json.dumps(found, allow_nan=False)
    text = tally_table(tally_json(ratings[-2:], ["base", "tuned"], {}))
    assert "agreement" not in text
    golden_text(text, "0", "1", "No difference")
    assert tally_table(tally_json(ratings[:2], ["base", "tuned"], {})).startswith(
        "No evidence of a difference"
    )
