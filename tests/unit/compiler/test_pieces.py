"""Texts longer than the cutoff become several records: nothing is lost, every row is accounted for."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messages import raises
from tuneyard.compiler.commands.trace import trace
from tuneyard.compiler.spec.model import load_spec
from tuneyard.compiler.write.pieces import PieceRule
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core.errors import ContentError, RequestError

SPEC = """
about: long texts
columns: {text: [text], source: {names: [source], is: extra}}
MOREwrite:
  - {dataset: "long_DATASET", file: "long-DATASET.jsonl", format: text, text: "{text}",
     keep: [source], pieces: PIECES}
"""
TEXTS = ["abcdefghij", "xyz", "0123456789ABCDEF", "é\u2028苹果" * 3]


def spec(bench, pieces, more="", dataset="x"):
    text = SPEC.replace("PIECES", pieces).replace("MORE", more).replace("DATASET", dataset)
    return bench.write("long.yaml", text)


def joined(pieces, overlap):
    """The text that pieces were cut from."""
    return pieces[0] + "".join(piece[overlap:] for piece in pieces[1:])


def test_another_tokenizer_makes_other_pieces(tmp_path):
    """A compile is up to date only while the tokenizer is the same."""
    file = tmp_path / "tokenizer.json"
    identities = []
    for content in (b"{}", b"{} "):
        file.write_bytes(content)
        identities.append(PieceRule(tokens=5, tokenizer=str(tmp_path)).identity())
    assert identities == [hashlib.sha256(content).hexdigest() for content in (b"{}", b"{} ")]
    assert PieceRule(characters=5).identity() == ""


@given(st.text(max_size=60), st.integers(1, 9), st.integers(0, 8))
def test_characters_are_all_there_and_no_piece_only_repeats(text, size, overlap):
    overlap = min(overlap, size - 1)
    pieces = PieceRule(characters=size, overlap=overlap).cutter()(text)
    assert joined(pieces, overlap) == text
    assert all(0 < len(piece) <= size for piece in pieces) or pieces == [""]
    assert all(len(piece) > overlap for piece in pieces[1:])


def words(text):
    """Starts of tokens: a word with the blanks before it."""
    return [at for at in range(len(text)) if at == 0 or (text[at] == " " and text[at - 1] != " ")]


@given(
    st.lists(st.sampled_from(["a", "bc", " ", "苹果", "def"]), max_size=40).map(" ".join), st.integers(1, 6)
)
def test_tokens_are_all_there(text, size):
    pieces = PieceRule(tokens=size, overlap=0)._by_tokens(text, words)
    assert "".join(pieces) == text
    assert all(len(words(piece)) <= size for piece in pieces)


def test_tokens_overlap_by_whole_tokens():
    pieces = PieceRule(tokens=3, overlap=1)._by_tokens("a b c d e f", words)
    assert pieces == ["a b c", " c d e", " e f"]


def test_rows_are_accounted_for_and_records_counted_as_pieces(bench):
    rows = [{"text": text, "source": f"s{number}"} for number, text in enumerate(TEXTS)]
    source = bench.rows("t.jsonl", rows)
    report = bench.compile(spec(bench, "{characters: 8, overlap: 2}"), source)
    records = bench.records("long-x.jsonl")
    assert (report.read, report.kept, report.datasets) == (4, 4, {"long_x": len(records)})
    by_source = {}
    for record in records:
        by_source.setdefault(record["source"], []).append(record["text"])
    assert [joined(pieces, 2) for pieces in by_source.values()] == TEXTS
    assert by_source["s0"] == ["abcdefgh", "ghij"] and by_source["s1"] == ["xyz"]
    again = bench.compile(bench.folder / "long.yaml", source)
    assert again.up_to_date and again.datasets == report.datasets


@pytest.mark.parametrize("more", ["split: {test: 0.5}\n", "sample: 3\n", "drop_duplicates: true\n"])
def test_pieces_of_a_row_stay_together_where_rows_are_arranged(bench, more):
    dataset = "{split}" if "split" in more else "x"
    rows = [{"text": text, "source": f"s{number}"} for number, text in enumerate([*TEXTS, TEXTS[0]])]
    report = bench.compile(spec(bench, "{characters: 4}", more, dataset), bench.rows("t.jsonl", rows))
    assert not report.problems.errors
    homes = {}
    for path in sorted(bench.out.rglob("long-*.jsonl")):
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        assert report.datasets[f"long_{path.stem.removeprefix('long-')}"] == len(records)
        for record in records:
            homes.setdefault((record["source"], path.name), []).append(record["text"])
    assert len({source for source, _ in homes}) == len(homes) == report.kept
    assert all("".join(pieces) == rows[int(source[1:])]["text"] for (source, _), pieces in homes.items())


@pytest.mark.parametrize(
    ("pieces", "facts"),
    [
        ("{characters: 8, overlap: 8}", "overlap: 8; 8"),
        ("{tokens: 8}", "write.0; tokens: 8; tokenizer: FOLDER"),
        (
            "{characters: 8, tokens: 9, tokenizer: x}",
            "write.0; characters: 8; tokens: 9",
        ),
        ("{characters: 8, tokens: 9}", "characters: 8; tokens: 9"),
        ("{characters: 8, tokenizer: x}", "tokenizer: x"),
        ("{overlap: 8}", "characters: N; tokens: N; tokenizer: FOLDER; unit"),
        ("{tokenizer: x}", ""),
        ("{}", ""),
        ("{characters: 0}", "write.0.pieces.characters; 0; 1"),
    ],
)
def test_what_pieces_cannot_mean_is_refused(bench, pieces, facts):
    with raises(ContentError, *facts.split("; ")):
        bench.compile(spec(bench, pieces), bench.rows("t.jsonl", [{"text": "a"}]))


def test_pieces_are_of_plain_texts_without_clusters(bench):
    source = bench.rows("t.jsonl", [{"text": "a", "source": "b"}])
    path = spec(bench, "{characters: 8}")
    path.write_text(path.read_text().replace("format: text", "format: alpaca, instruction: x"))
    with raises(ContentError, "format: text"):
        bench.compile(path, source)
    with raises(ContentError, "pieces", "fit.group"):
        bench.compile(spec(bench, "{characters: 8}", "fit: {group: source}\n"), source)


def test_a_missing_tokenizer_is_named(bench):
    path = spec(bench, f"{{tokens: 8, tokenizer: {bench.folder / 'none'}}}")
    with raises(RequestError):
        bench.compile(path, bench.rows("t.jsonl", [{"text": "a"}]))


def test_tokens_of_a_real_tokenizer(bench, tiny_model):
    """Byte-level pieces of letters are kept whole, and no piece has more tokens than it may."""
    from tokenizers import Tokenizer

    texts = ["The yes and no of it. " * 9, "苹果 and é… " * 7, "short"]
    path = spec(bench, f"{{tokens: 12, overlap: 3, tokenizer: '{tiny_model}'}}")
    report = bench.compile(path, bench.rows("t.jsonl", [{"text": text, "source": text} for text in texts]))
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    records = bench.records("long-x.jsonl")
    assert report.kept == 3 and len(records) > 6
    for record in records:
        assert len(tokenizer.encode(record["text"], add_special_tokens=False).ids) <= 12
    for text in texts:
        pieces, end = [record["text"] for record in records if record["source"] == text], 0
        for piece in pieces:  # each begins inside the one before it or at its end, and ends behind it
            at = text.index(piece, max(end - len(piece), 0))
            assert at <= end < at + len(piece)
            end = at + len(piece)
        assert end == len(text)


def test_a_row_whose_pieces_are_not_written_is_noticed(bench, monkeypatch):
    """Records are more than rows, and still every row is counted."""
    add = RecordFile.add

    def add_less(file, data, rows):
        add(file, data.partition(file.between)[2], rows - 1)

    monkeypatch.setattr(RecordFile, "add", add_less)
    with raises(ContentError, "4 rows", "3"):
        source = bench.rows("t.jsonl", [{"text": text} for text in TEXTS])
        bench.compile(spec(bench, "{characters: 4}"), source)


def test_show_prints_every_piece(bench):
    source = bench.rows("t.jsonl", [{"text": TEXTS[0]}])
    steps = list(trace(load_spec(str(spec(bench, "{characters: 4}"))), [str(source)], 1, None))
    assert [json.loads(text)["text"] for title, text in steps if title.startswith("record")] == [
        "abcd",
        "efgh",
        "ij",
    ]
