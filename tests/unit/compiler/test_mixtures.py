"""Mixtures of web pages: each row to one field by its keywords, answers without their HTML."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messages import raises
from tuneyard.compiler.check.cleaning import HTML, without_html
from tuneyard.compiler.cli import cli
from tuneyard.compiler.draw import apportioned
from tuneyard.compiler.spec.model import load_spec
from tuneyard.core.errors import ContentError

AI = "{share: 0.6, as: qa, filter: {keywords: [neural network, LLM]}}"
IC = "{share: 0.4, as: qa, filter: {keywords: [FPGA, CMOS]}}"
WRITE = "write: [{dataset: m, file: m.jsonl, format: alpaca}]\n"
MIX = f"about: m\nmix: {{total: 10, parts: {{ai: {AI}, ic: {IC}}}}}\n{WRITE}"
PAGE = """<p>Use <code>a &lt; b</code> &amp; <em>nothing</em> else:</p>

<pre><code>for x in y:
    print(x)
</code></pre>

<ul>
<li>one</li>
<li>a <a href="https://example.org">link</a></li>
</ul><h2>End</h2>A line<br>and another<!-- no -->"""
PLAIN = """Use a < b & nothing else:

for x in y:
    print(x)

- one
- a link

End

A line
and another"""


def questions(*texts):
    return [{"question": text, "answer": f"It is so: {text}"} for text in texts]


def test_a_row_with_keywords_of_two_fields_goes_into_one(bench):
    """By their number, both in the question and in the answer here; of equals the first part."""
    rows = questions(
        "An LLM on an FPGA in CMOS.",
        "A neural network, an LLM, an FPGA.",
        "An LLM or CMOS?",
        "A FPGA.",
        "Tea.",
    )
    path = bench.rows("a.jsonl", rows)
    spec = bench.write("m.yaml", MIX)
    report = bench.compile(spec, f"ai={path}", f"ic={path}")
    assert report.dropped == {"more keywords of another part": 3, "no keyword": 3}
    asked = bench.values("m.jsonl", "instruction")
    assert asked == [rows[n]["question"] for n in (1, 2, 0, 3)]
    assert (report.read, report.kept) == (10, 4)


def test_rows_of_other_files_are_no_rivals(bench):
    """What only one part reads would be lost if it went to another."""
    one, other = (
        bench.rows(name, questions(f"An LLM on an FPGA in CMOS, {name}.")) for name in ("a.jsonl", "b.jsonl")
    )
    report = bench.compile(MIX, f"ai={one}", f"ic={other}")
    assert (report.kept, report.dropped) == (2, {})


def test_show_follows_the_same_rule(here, bench):
    path = bench.rows("a.jsonl", questions("An LLM on an FPGA in CMOS.", "An LLM."))
    spec = bench.write("m.yaml", MIX)
    show = (cli, "show", spec, "--source", f"ai={path}", "--source", f"ic={path}")
    assert '"instruction":"An LLM."' in here(*show, "--row", 1).stdout
    assert "CMOS" in here(*show, "--row", 2).stdout
    here(*show, "--row", 3, code=2)


def test_html_of_a_page_becomes_its_text():
    assert without_html(PAGE) == PLAIN


@given(st.text())
def test_text_without_tags_stays_and_no_tag_is_left(text):
    if not HTML.search(text):
        assert without_html(text) == text
    letters = "".join(filter(str.isalnum, text))
    assert without_html(f"<p>{html.escape(letters)}</p>") == letters


@pytest.mark.parametrize(
    "text", ["1 < 2 && 3 > 2", "a &amp; b", "Map<String, List<a>>", "#include <p.h>", "<b"]
)
def test_what_only_looks_like_html_stays(text):
    assert without_html(text) == text


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("q: [q], a: {names: [a], is: answer}", {"a": PAGE}),
        ("q: [q], a: {names: [a], is: list}", {"a": [PAGE]}),
        ("q: [q], a: {names: [a], is: best, best: {by: n, take: t}}", {"a": [{"n": 1, "t": PAGE}]}),
    ],
)
def test_every_kind_of_answer_is_named_and_cleaned(bench, columns, row):
    write = "[{dataset: t, file: t.jsonl, format: alpaca, instruction: '{q}', output: '{a}'}]"
    text = f"about: t\ncolumns: {{{columns}}}\nwrite: {write}\n"
    source = bench.rows("a.jsonl", [{"q": "Why?", **row}])
    assert bench.compile(bench.write("t.yaml", text), source).problems.counts == {"W214": 1}
    report = bench.compile(bench.write("t.yaml", f"{text}clean: html\n"), source)
    assert not report.problems.counts and bench.first("t.jsonl")["output"] == PLAIN


def test_turns_are_cleaned_but_not_what_tools_are_told(bench):
    call = '{"name": "show", "arguments": {"page": "<p>x</p>"}}'
    turns = [("human", "<p>Ask</p>"), ("function_call", call), ("observation", "<p>y</p>"), ("gpt", PAGE)]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    row["tools"] = [{"name": "show", "description": "<b>Show</b> a page"}]
    spec = "like: messages\nabout: t\nclean: [html]\n"
    assert not bench.compile_rows(spec, [row]).problems.counts
    talk = [turn["value"] for turn in bench.first("messages.jsonl")["conversations"]]
    assert talk == ["Ask", call, "<p>y</p>", PLAIN]


@pytest.mark.parametrize(
    ("asked", "answer", "named"),
    [
        ("Why?", PAGE, True),
        ("Make a link in HTML.", "<a href='/'>Home</a>", False),
        ("写一个网页", "<p>好</p>", False),
        ("Show it.", "So:\n```\n<p>Hello</p>\n```", False),
        ("Show it.", "<!DOCTYPE html>\n<p>Hello</p>", False),
    ],
)
def test_tags_of_a_program_are_no_scraps_of_a_page(bench, asked, answer, named):
    source = bench.rows("a.jsonl", [{"question": asked, "answer": answer}])
    assert bench.compile("qa", source).problems.counts == ({"W214": 1} if named else {})


def test_a_filter_of_a_part_s_own_spec_holds_beside_the_part_s(bench):
    bench.write("own.yaml", "about: o\nlike: qa\nfilter: {keywords: [LLM], max: 60}\n")
    part = f"{{share: 1, as: {bench.folder / 'own.yaml'}, filter: {{max: 50}}}}"
    mix = bench.write("m.yaml", f"about: m\nmix: {{total: 9, parts: {{p: {part}}}}}\n{WRITE}")
    source = bench.rows("p.jsonl", questions("LLM", "CMOS", "LLM " * 5))
    report = bench.compile(mix, f"p={source}")
    assert bench.values("m.jsonl", "instruction") == ["LLM"]
    assert report.dropped == {"no keyword": 1, "too long": 1}


@pytest.mark.parametrize(
    ("total", "shares", "rows"),
    [
        (1, [0.5, 0.5], [1, 0]),
        (10, [1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),
        (100, [0.29, 0.57, 0.14], [29, 57, 14]),
        (3, [0.1, 0.2, 0.7], [0, 1, 2]),
        (2000, [0.4, 0.4, 0.2], [800, 800, 400]),
    ],
)
def test_the_rows_of_the_parts_add_up_to_the_total(total, shares, rows):
    named = {str(number): share for number, share in enumerate(shares)}
    assert list(apportioned(total, named).values()) == rows
    assert sum(rows) == total


@pytest.mark.parametrize("spec", ["pairs", "pairs-chat", "kto", "media"])
def test_a_part_with_more_than_a_record_of_a_mixture_holds_is_refused(bench, spec):
    """Before, the compile ended with "came to the disk otherwise than it was made" or a traceback."""
    path = bench.write("m.yaml", MIX.replace("as: qa", f"as: {spec}", 1))
    with raises(ContentError, "mix.parts.ai", spec):
        load_spec(str(path))


def test_a_part_with_earlier_turns_needs_a_history(bench):
    told = {"instruction": "b", "input": "", "output": "c", "history": [["a", "b"]]}
    files = {"ai": bench.rows("a.jsonl", [told]), "ic": bench.rows("q.jsonl", questions("d"))}
    text = MIX.replace("as: qa", "as: alpaca", 1).replace("keywords: [neural network, LLM]", "min: 0")
    text = text.replace("keywords: [FPGA, CMOS]", "min: 0")
    with raises(ContentError, "mix.parts.ai", "turns: history"):
        load_spec(str(bench.write("m.yaml", text)))
    spec = bench.write("m.yaml", text.replace("format: alpaca", "format: alpaca, turns: history"))
    report = bench.compile(spec, *(f"{part}={path}" for part, path in files.items()))
    assert not report.failed and report.kept == 2
    histories = bench.values("m.jsonl", "history")
    assert sorted(histories) == [[], [["a", "b"]]]
    assert bench.registry()["m"]["columns"]["history"] == "history"
