"""`clean: html`: pages become their text, and nothing else is changed."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.compiler.check.cleaning import HTML, without_html

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
