"""The parts of `data view` that need no LLaMA-Factory: texts of tokens, counts over a file, size, losses."""

import itertools
import json
from pathlib import Path

import orjson
import pytest

from tests.json_files import write_lines
from tests.messages import raises
from tuneyard.compiler.read.dataset_reader import raw_text
from tuneyard.compiler.verify.dataset import LoadedRows
from tuneyard.compiler.verify.expect import Expected
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.compiler.view.build import within_limit
from tuneyard.compiler.view.encoding import EncodedMessage, Encoding, RowEncoder
from tuneyard.compiler.view.page import GENERATOR
from tuneyard.compiler.view.page_rows import DROPPED, PageRows
from tuneyard.compiler.view.payload import PageBlock, PageRow, PageSide, json_of
from tuneyard.compiler.view.scan import Scan
from tuneyard.compiler.view.thumbnails import thumbnails
from tuneyard.compiler.view.write_page import check_replaceable, find_losses
from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import RequestError
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLosses, TokenLossFile
from tuneyard.core.llamafactory.prompt.token_texts import TokenTexts
from tuneyard.core.records import format_of_entry


class Bytes:
    """A tokenizer of which each token is some bytes."""

    def __init__(self, *tokens: bytes, strips: bool = False) -> None:
        self.tokens = tokens
        self.strips = strips

    def decode(self, ids: list[int], **_: bool) -> str:
        text = b"".join(self.tokens[token] for token in ids).decode(errors="replace")
        return text.removeprefix(" ") if self.strips else text


def texts(*tokens: bytes, strips: bool = False) -> list[str]:
    return TokenTexts(Bytes(*tokens, strips=strips).decode).of(list(range(len(tokens))))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ((b"a", b"bc"), ["a", "bc"]),
        ((b"\xe4", b"\xbd", b"\xa0", b"x"), ["", "", "你", "x"]),
        ((b"\xe4\xbd", b"\xa0\xe5", b"\xa5\xbd"), ["", "你", "好"]),  # the second ends one and begins another
        ((b"x\xf0", b"\x9f\x99\x82"), ["x", "🙂"]),
        ((b"\xff", b"a"), ["", "\ufffda"]),  # no text at all: with the next token
        ((b"a", b"\xe4"), ["a", "\ufffd"]),
    ],
)
def test_a_character_belongs_to_the_token_that_completes_it(tokens, expected):
    assert texts(*tokens) == expected


def test_a_tokenizer_that_strips_the_first_blank_of_each_text():
    assert texts(b"the", b" cat", b" \xe4\xbd", b"\xa0", strips=True) == ["the", " cat", "", " 你"]


def registered(folder: Path, *rows: object, name: str = "mine") -> Dataset:
    path = folder / f"{name}.jsonl"
    write_lines(path, rows)
    return Dataset(name, path, {"file_name": path.name})


def row(question: object, answer: object, **others: object) -> dict[str, object]:
    return {"instruction": question, "input": "", "output": answer, **others}


def scanned(dataset: Dataset) -> Scan:
    scan = Scan()
    list(scan.counted(Expected(dataset.path, format_of_entry(dataset.entry)).records()))
    scan.compare()
    return scan


def codes_of(scan: Scan) -> dict[str, list[int]]:
    return {code: list(rows) for code, rows in scan.rows_of_code.items()}


def test_counts_over_a_file(tmp_path):
    dataset = registered(
        tmp_path,
        row("Is it?", "yes"),
        row("is IT ?", "yes"),  # the same but for blanks and capitals
        row("Is it?", "no"),
        row("<|im_end|>", "no\x01"),
        row("Tidy", "<p>no</p>"),
        row("lost", None),
    )
    counts = scanned(dataset)
    assert counts.rows == 6
    assert codes_of(counts) == {"W202": [1], "W203": [2], "W205": [3], "W206": [3], "W214": [4]}
    assert not counts.labels  # the lost row has none


def test_the_first_fifty_rows_of_a_code_are_on_the_page_and_a_sampled_row_has_its_code(tmp_path):
    dataset = registered(tmp_path, *(row("same", "a") for _ in range(2000)))
    counts = scanned(dataset)
    page_rows = PageRows(counts, Verdict("mine"), None, None)
    page_rows.choose(1, 42)
    assert len(counts.rows_of_code["W202"]) == 1999
    chosen = list(page_rows.codes)
    assert chosen[:50] == list(range(1, 51)) and chosen[50] > 1000
    assert [each.problems for each in page_rows.read(dataset)] == [["W202"]] * len(chosen)


def test_large_rows_stay_within_the_limit_evenly_spread():
    side = PageSide("", "", [PageBlock("user", "text", "x" * 50)])
    rows = [PageRow(row=number, raw="x" * 50, sides=[side]) for number in range(1, 101)]
    kept, left_off = within_limit(rows, 5000)
    assert len(json_of(kept)) <= 5000 + len(kept)
    numbers = [row.row for row in kept]
    assert left_off == 100 - len(numbers) and 5 <= len(numbers) <= 16
    assert len({after - before for before, after in itertools.pairwise(numbers)}) == 1
    alone = [PageRow(row=1, raw="x" * 99)]
    assert within_limit(alone, 10) == (alone, 0)


def test_a_record_that_the_loader_left_out_is_on_the_page_as_dropped(tmp_path):
    dataset = registered(tmp_path, row("q", "a"), row("r", "b"))
    loaded = LoadedRows(None, [{"_prompt": [{}], "_response": [{}], "_images": None}], None)
    page_rows = PageRows(scanned(dataset), Verdict("mine"), loaded, None)
    page_rows.choose(5, 42)
    first, second = page_rows.read(dataset)
    assert (first.row, first.dropped) == (1, "")
    assert second.problems == [DROPPED]
    assert second.dropped == "the loader leaves this record out"


def test_only_a_page_of_the_command_is_replaced(tmp_path):
    page = tmp_path / "page.html"
    check_replaceable(page, [], force=False)
    page.write_text(f"<head>{GENERATOR}")
    check_replaceable(page, [], force=False)
    page.write_text("mine")
    check_replaceable(page, [], force=True)
    with raises(RequestError, "--force"):
        check_replaceable(page, [], force=False)


def test_no_input_of_the_command_is_replaced(working_folder):
    registry = working_folder / "dataset_info.json"
    registry.write_text("{}")
    with raises(RequestError, "dataset_info.json", "reads that file"):
        check_replaceable(Path("dataset_info.json"), [working_folder / "other", registry], force=True)
    assert registry.read_text() == "{}"


def test_the_losses_of_a_dataset_are_found_in_a_folder_of_results(tmp_path):
    for folder in ("base/mine", "base/other", "tuned/mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / TOKEN_LOSSES).touch()
    file = tmp_path / "base/mine" / TOKEN_LOSSES
    assert find_losses(tmp_path / "base", "mine") == file == find_losses(file, "mine")
    with raises(RequestError, "2 models"):
        find_losses(tmp_path, "mine")
    (tmp_path / "empty").mkdir()
    with raises(RequestError, "--token-losses"):
        find_losses(tmp_path / "empty", "mine")


def test_a_page_with_losses_samples_scored_rows_and_has_those_of_the_highest_loss(tmp_path):
    file = tmp_path / TOKEN_LOSSES
    rows = [TokenLosses(row, [1, 2], [None, row % 60 / 10]) for row in range(11, 311)]
    file.write_bytes(b"".join(row.line() for row in [*rows, TokenLosses(999, [1], [9.0])]))
    losses = TokenLossFile(file)
    scan = Scan()
    scan.rows = 500

    def chosen_rows(losses):
        page_rows = PageRows(scan, Verdict("mine"), None, losses)
        page_rows.choose(20, 42)
        return page_rows.codes.keys()

    chosen = chosen_rows(losses)
    assert chosen <= set(range(10, 310)) and 50 <= len(chosen) <= 70
    highest = sorted(range(11, 311), key=lambda row: row % 60, reverse=True)[:50]
    assert {row - 1 for row in highest} <= chosen
    assert len(chosen_rows(None)) == 20
    scan.rows = 5
    assert chosen_rows(losses) == {0, 1, 2, 3, 4}


def test_tokens_of_images_before_a_prompt_are_kept_with_pairs():
    messages = [EncodedMessage("user", "q", [1]), EncodedMessage("assistant", "a", [2])]
    encoding = Encoding("", messages, [([1], [2])])
    cuts = [(3, 1, 3, 1)]
    encoder = object.__new__(RowEncoder)
    encoder.encodings = [encoding]
    segments = encoder._one_answer(encoding, cuts, [9, 9, 1, 2])
    assert [(segment.ids, segment.kept) for segment in segments] == [
        ([9, 9], 2), ([1], 1), ([2], 1)
    ]  # fmt: skip


def test_raw_texts_can_be_written():
    assert json.loads(raw_text({"a": "你"})) == {"a": "你"}
    assert raw_text({"a": "\ud800"}).encode() == b'{"a": "\\ud800"}'
    assert raw_text({"a": orjson.loads("[" * 1000 + "]" * 1000)}) == "a dict too large to show"


def test_pictures_that_cannot_be_opened_are_left_out(tmp_path):
    from PIL import Image

    Image.new("RGB", (900, 500), "blue").save(tmp_path / "blue.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    images = [tmp_path / "broken.png", tmp_path / "none.png", "A" * 5000, *[tmp_path / "blue.png"] * 6, 3]
    uris, outside = thumbnails(map(str, images), [tmp_path])
    assert outside == ""
    assert len(uris) == 4 and all(uri.startswith("data:image/jpeg;base64,") for uri in uris)
