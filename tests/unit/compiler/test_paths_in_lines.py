"""Lines about source files have their paths from the current folder on, however the user names the files."""

import json

import pytest

from tuneyard.compiler.cli import cli
from tuneyard.compiler.rows import Location, Prefix
from tuneyard.core.language.message import _, translated
from tuneyard.core.language.reader import in_language

QUESTIONS = [{"question": f"Q{number}?", "answer": f"A{number}."} for number in (0, 1, 2, 1)]
SOURCES = {
    "list.json": (json.dumps(QUESTIONS), "list.json: read as a list of rows"),
    "list, other keys.json": (
        json.dumps({"rows": QUESTIONS, "authors": ["A"]}),
        "list, other keys.json: ignored next to the rows: authors",
    ),
    "lines.jsonl": ("".join(json.dumps(row) + "\n" for row in QUESTIONS), "as in lines.jsonl:2"),
    "表.csv": ("question,answer\nQ?,A.\nQ?,A.\n", "as in 表.csv:2"),
}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", SOURCES)
def test_lines_of_a_compile_begin_at_the_current_folder(bench, here, monkeypatch, name, language):
    text, line = SOURCES[name]
    source = bench.write(name, text)
    monkeypatch.chdir(bench.folder)
    for command in (
        ("compile", "qa", "--source", f"train={source}", "--out", "out", "--lang", language),
        ("init", source, "--lang", language),
    ):
        printed = here(cli, *command).stderr
        lines = [each for each in printed.splitlines() if not each.startswith(("next:", "下一步"))]
        assert str(bench.folder) not in "\n".join(lines)
        assert command[0] == "init" or language == "zh" or line in printed
    shown = here(cli, "show", "qa", "--source", f"train={source}", "--row", "2", "--lang", language).stdout
    assert str(bench.folder) not in shown


def test_lines_of_a_diff_begin_at_the_current_folder(bench, here, monkeypatch):
    one, two = bench.rows("a.jsonl", [record("b")]), bench.rows("b.jsonl", [record("c"), record("d", "z")])
    monkeypatch.chdir(bench.folder)
    printed = here(cli, "diff", one, two, code=1).stdout.splitlines()
    assert printed[:2] == ["added    b.jsonl:2", "changed  a.jsonl:1 → b.jsonl:1: b → c"]
    assert json.loads(here(cli, "diff", one, two, "--json", code=1).stdout)["added"] == [f"{two}:2"]


def record(answer: str, question: str = "a") -> dict[str, str]:
    return {"instruction": question, "input": "", "output": answer}


def test_a_location_stays_whole_in_files_and_in_values_of_others(bench, monkeypatch):
    """Only what is a path is written from the current folder on: not a text of a row that looks like one."""
    monkeypatch.chdir(bench.folder)
    location = Location(Prefix(f"{bench.folder}/a.jsonl"), 3)
    assert location == f"{bench.folder}/a.jsonl:3"
    message = _("{place}: {answer}", place=location, answer=f"{bench.folder}/b")
    assert message == f"a.jsonl:3: {bench.folder}/b"
    with in_language("zh"):
        assert translated(message) == f"a.jsonl:3: {bench.folder}/b"
