"""data diff and data stats: what changed between two datasets, and what a dataset holds."""

import json
import re

import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.messages import printed_line, raises
from tests.unit.compiler.conftest import exchange
from tuneyard.compiler.cli import cli
from tuneyard.compiler.inspect.diff import diff
from tuneyard.compiler.inspect.stats import stats
from tuneyard.compiler.read.dataset_reader import stored_examples
from tuneyard.core.errors import ContentError, RequestError


def record(number, answer="yes", **more):
    return {"instruction": f"Question {number}?", "input": "", "output": answer, **more}


def run(*arguments):
    return invoke(cli, *arguments)


def test_added_removed_changed_and_shifted_labels_have_their_places(bench):
    old = bench.rows("old.jsonl", [record(0), record(1), record(2), record(3, "no"), record(3, "no")])
    new = bench.rows("new.jsonl", [record(3, "no"), record(2, "no"), record(0), record(4, "no")])
    found = diff(str(old), str(new), bench.out)
    assert (found.same, list(found.added()), list(found.removed())) == (
        2,
        [f"{new}:4"],
        [f"{old}:2", f"{old}:5"],
    )
    assert list(found.changed()) == [(f"{old}:3", f"{new}:2", "yes", "no")]
    assert found.as_json()["labels"] == {"a": {"no": 2, "yes": 3}, "b": {"no": 3, "yes": 1}}
    said = run("diff", old, new)
    assert said.exit_code == 1
    assert "shift    yes → no: 1 example\n" in said.stdout
    assert "label    yes: 3 → 1\n" in said.stdout
    assert said.stdout.splitlines()[-1].endswith("same 2, added 1, removed 2, changed 1")
    assert json.loads(run("diff", old, new, "--json").stdout)["added"] == [f"{new}:4"]


def test_what_stands_beside_the_answer_counts(bench):
    turns = [("human", "q"), ("function_call", "{}")]
    difference = diff_of(bench, talk(*turns, tools="[1]"), talk(*turns, tools="[2]"))
    assert len(list(difference.changed())) == 1


def test_many_places_are_cut_unless_all_are_wanted(bench):
    old, new = bench.rows("old.jsonl", [record(0)]), bench.rows("new.jsonl", [record(n) for n in range(40)])
    assert "… and 19 more (--all shows them)" in run("diff", old, new).stdout
    assert run("diff", old, new, "--all").stdout.count("added    ") == 39


def test_a_file_without_an_entry_has_its_system_text_and_history_too(bench):
    told = record(0, system="Be brief.", history=[["Hello?", "Hello."]])
    assert not diff_of(bench, told, told).different
    (examples,) = stored_examples(f"{bench.folder}/old.jsonl", bench.out)
    assert examples.prompts() == ["Be brief.\nHello?\nHello.\nQuestion 0?"]
    difference = diff_of(bench, told, record(0, system="Be long."))
    assert list(difference.removed()) == [f"{bench.folder}/old.jsonl:1"]


def talk(*turns, **more):
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **more}


def diff_of(bench, old, new):
    """Compare `old.jsonl` of one record with `new.jsonl` of another."""
    files = bench.rows("old.jsonl", [old]), bench.rows("new.jsonl", [new])
    return diff(*map(str, files), bench.out)


def stats_of(bench, rows, tokenizer=None):
    return stats(str(bench.rows("set.jsonl", rows)), bench.out, tokenizer)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([("human", "Be brief.\nHi."), ("gpt", "Yes?")], id="system merged into the user's turn"),
        pytest.param([("human", "Be brief."), ("human", "Hi."), ("gpt", "Yes?")], id="another role"),
        pytest.param([("system", "Be brief."), ("human", "Hi."), ("function_call", "Yes?")], id="a call"),
    ],
)
def test_the_same_text_in_other_roles_is_a_change(bench, other):
    old = talk(("system", "Be brief."), ("human", "Hi."), ("gpt", "Yes?"))
    places = (f"{bench.folder}/old.jsonl:1", f"{bench.folder}/new.jsonl:1")
    assert list(diff_of(bench, old, talk(*other)).changed()) == [(*places, "Yes?", "Yes?")]


def test_one_talk_in_three_formats_is_the_same(bench):
    sharegpt = talk(("human", "Hi."), ("gpt", "Yes?"), system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, *exchange("Hi.", "Yes?")]
    alpaca = {"instruction": "Hi.", "input": "", "output": "Yes?", "system": "Be brief."}
    for other in ({"messages": messages}, alpaca):
        assert diff_of(bench, sharegpt, other).same == 1


def test_stats_count_lengths_labels_languages_and_duplicates(bench):
    rows = [record(0), record(0), record(0, "no"), record(1), {**record(2), "instruction": "问题二是什么？"}]
    source = bench.rows("set.jsonl", rows)
    found = stats(str(source), bench.out, None)
    assert (found.examples, found.duplicates, found.conflicts) == (5, 1, 1)
    assert found.labels == {"yes": 4, "no": 1} and found.languages["Chinese"] == 1
    assert found.as_json()["lengths"]["prompts"] == {"min": 7, "median": 11, "p95": 11, "max": 11}
    printed_line(run("stats", source).stdout, source, "5", "1")
    assert json.loads(run("stats", source, "--json").stdout)["labels"] == {"yes": 4, "no": 1}


@pytest.mark.parametrize("other", [record(0, "yes "), record("0 ")])
def test_a_blank_more_is_a_change(bench, other):
    assert len(list(diff_of(bench, record(0), other).changed())) == 1


def test_stats_are_printed_in_chinese(bench):
    rows = [record(n) for n in range(3)]
    source = bench.rows("set.jsonl", [*rows, rows[1], {**record(5), "instruction": "问题二是什么？"}])
    lines = run("stats", source, "--lang", "zh").stdout.splitlines()
    assert len(lines) == 7
    texts = [line.replace(str(source), "") for line in lines]
    assert not [text for text in texts if re.search("[a-z]{4,}", text)], lines  # "yes" is a label
    assert "（同:2）" in texts[1] and "中文 1 (20.0%)" in lines[-1]


def test_stats_say_where_the_first_duplicates_stand(bench):
    rows = [record(n) for n in range(3)]
    source = bench.rows("set.jsonl", [*rows, rows[1], record(1, "no"), *[rows[0]] * 25])
    report = run("stats", source).stdout
    printed_line(report, source, "30", "26")
    places = [f"{source}:{n} (as {source}:{m})" for n, m in ((4, 2), (6, 1), (7, 1))]
    printed_line(report, *places)
    places = json.loads(run("stats", source, "--json").stdout)["duplicates_first"]
    assert places[0] == {"place": f"{source}:4", "same_as": f"{source}:2"} and len(places) == 20
    few = bench.rows("few.jsonl", [*rows, rows[2]])
    assert run("stats", few).stdout.splitlines()[1] == f"first duplicates: {few}:4 (as {few}:3)"
    assert "duplicates:" not in run("stats", bench.rows("none.jsonl", rows)).stdout


def test_labels_of_marked_answers_are_their_marks(bench):
    rows = [record(n, kto_tag=n == 1) for n in range(3)]
    assert stats_of(bench, rows).labels == {"good": 1, "bad": 2}


def test_free_answers_are_no_labels(bench):
    assert not stats_of(bench, [record(n, f"Answer {n}.") for n in range(40)]).labels


def test_lengths_in_tokens_are_those_of_the_tokenizer(bench):
    folder = next((ROOT.parent / "shared/tokenizers").glob("*/tokenizer.json"), None)
    if folder is None:
        pytest.skip("no tokenizer here")
    found = stats_of(bench, [record(0, "yes"), record(1, "yes yes yes")], folder.parent)
    assert found.unit == "tokens" and found.lengths["answers"] == {1: 1, 3: 1}


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("", ""),
        ('{"other": 1}\n', "set.jsonl:1"),
        ("{broken\n", "set.jsonl:1: E002"),
    ],
)
def test_what_is_no_dataset_is_refused_with_its_place(bench, content, facts):
    with raises(ContentError, facts):
        stats(str(bench.write("set.jsonl", content)), bench.out, None)


def test_a_missing_file_dataset_or_tokenizer_is_named(bench):
    for name in (f"{bench.folder}/none.jsonl", "none"):
        with raises(RequestError, name):
            stats(name, bench.out, None)
    source = bench.rows("set.jsonl", [record(0)])
    with raises(RequestError, "tokenizer.json"):
        stats(str(source), bench.out, bench.folder)
    bench.write("tokenizer.json", "{}")
    with raises(ContentError, "model"):
        stats(str(source), bench.out, bench.folder)


def test_images_as_objects_are_counted_like_any_column(bench):
    """`datasets` writes them so; only scoring needs their paths."""
    file = bench.rows("seen.jsonl", [record(0, images=[{"bytes": None, "path": "x.png"}])])
    assert run("stats", file).exit_code == 0
    assert run("diff", file, file).exit_code == 0


def test_notes_and_warnings_of_a_compile_are_chinese(bench, working_folder):
    """Also the columns that are not used, and how many warnings there are. Each stays one line."""
    rows = [{"question": "Why?", "answer": "<br>", "id 1": n} for n in range(30)]
    source = bench.rows("a\nb c d.jsonl", rows)
    lines = invoke(cli, "compile", "qa", "--source", source, "--lang", "zh").stderr.splitlines()
    warnings = [line for line in lines if "W202" in line]
    assert (
        len(warnings) > 3 and any("W214" in line for line in lines) and any("id 1" in line for line in lines)
    )
    english = re.compile("[a-z]{3,} [a-z]{2,} [a-z]{3,}")
    assert [line for line in lines if english.search(line) and "tuneyard" not in line] == []
    assert not [line for line in lines if line.startswith("b c d")]
