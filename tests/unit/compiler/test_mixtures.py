"""Mixtures: each row goes to one field by its keywords, and the rows of all parts add up."""

import pytest

from tests.messages import raises
from tuneyard.compiler.cli import cli
from tuneyard.compiler.rows.draw import apportioned
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import ContentError

AI = "{share: 0.6, as: qa, filter: {keywords: [neural network, LLM]}}"
IC = "{share: 0.4, as: qa, filter: {keywords: [FPGA, CMOS]}}"
WRITE = "write: [{dataset: m, file: m.jsonl, format: alpaca}]\n"
MIX = f"about: m\nmix: {{total: 10, parts: {{ai: {AI}, ic: {IC}}}}}\n{WRITE}"


def questions(*texts):
    return [{"question": text, "answer": f"It is so: {text}"} for text in texts]


def test_a_row_with_keywords_of_two_fields_goes_into_one(bench):
    """The first one whose keywords it has."""
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
    assert report.dropped == {"keywords of an earlier part": 3, "no keyword": 3}
    asked = bench.values("m.jsonl", "instruction")
    assert asked == [rows[n]["question"] for n in (0, 1, 2, 3)]
    assert (report.read, report.kept) == (10, 4)


def test_keywords_of_a_part_with_other_files_do_not_count(bench):
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
    assert "CMOS" in here(*show, "--row", 1).stdout
    assert '"instruction":"An LLM."' in here(*show, "--row", 2).stdout
    here(*show, "--row", 3, code=2)


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
