"""W226: pictures, videos and audios that are named in a text, and would be learned as text."""

import pytest
from PIL import Image

from tests.unit.compiler.conftest import Bench, exchange

PICTURES = [
    "Picture 1: <img>a.png</img> What is it?",
    "What does <image_1> show?",
    "<image>\nWhat is it?",
    "Compare <image1> and <IMAGE 2>.",
    "<video> What happens?",
    "Listen: <audio>",
    "<|image_1|> What is it?",
    "<ImageHere> Describe it.",
    "<image_placeholder>Describe it.",
    'Look: <img src="a.png" alt="x"> What is it?',
]
TEXTS = [
    "What is an image?",
    "a < image > b",
    "Is x<img or y>z?",
    'Write a web page with <img src="a.png">.',
    "<imagery> and <videos> and <image-set>",
]


@pytest.mark.parametrize("text", PICTURES)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_picture_in_a_text_is_named(bench: Bench, text: str, column: str) -> None:
    row = {"question": "What is it?", "answer": "A cat."} | {column: text}
    report = bench.compile("qa", bench.rows("rows.jsonl", [{"question": "Q?", "answer": "A."}, row]))
    assert bench.codes(report) == [("W226", "rows.jsonl:2")]


@pytest.mark.parametrize("text", TEXTS)
def test_other_texts_are_not(bench: Bench, text: str) -> None:
    report = bench.compile("qa", bench.rows("rows.jsonl", [{"question": text, "answer": "A."}]))
    assert bench.codes(report) == []


def test_placeholders_of_files_are_read(bench: Bench) -> None:
    """`<image>` is a picture if the row has one; `<image_1>` never is."""
    rows = [{"messages": exchange("<image>What is it?", "A cat.")}]
    assert bench.codes(bench.compile("messages", bench.rows("rows.jsonl", rows))) == [
        ("W226", "rows.jsonl:1")
    ]
    Image.new("RGB", (2, 2)).save(bench.folder / "a.png")
    spec = "about: m\nlike: media\nwrite: [{dataset: m, file: m.json}]\n"
    for text, codes in (("<image>What is it?", []), ("<image>Is <image_1> red?", [("W226", "rows.jsonl:1")])):
        rows = [{"messages": exchange(text, "A cat."), "images": ["a.png"]}]
        assert bench.codes(bench.compile(spec, bench.rows("rows.jsonl", rows), force=True)) == codes
