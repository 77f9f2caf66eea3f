"""Paths in a spec, patterns of paths, and forms of values that YAML writes in several ways."""

from pathlib import Path

import pytest

from tests.messages import raises
from tests.unit.compiler.conftest import Bench, questions
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.spec.file import SPECS
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import ContentError, RequestError


def qa(files: str, *, name: str = "q") -> str:
    return (
        f"about: q\nlike: qa\nsource: {{files: {files}}}\nwrite: [{{dataset: {name}, file: {name}.json}}]\n"
    )


@pytest.fixture
def shell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The current folder has specs/, specs/data/a.jsonl and b.jsonl, and data/c.jsonl."""
    for name, count in (("specs/data/a", 1), ("specs/data/b", 2), ("data/c", 4)):
        bench.rows(f"{name}.jsonl", questions(count))
    monkeypatch.chdir(bench.folder)
    return bench


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        ("data/a.jsonl", 1),
        ("data", 3),
        ("'data/*.jsonl'", 3),
        ("'**/[b]*.jsonl'", 2),
        ("'data/**'", 3),
        ("../data/c.jsonl", 4),
        ("'../*/c.jsonl'", 4),
        ("[data/a.jsonl, ../data/c.jsonl]", 5),
    ],
)
def test_files_of_a_spec_are_relative_to_its_folder(shell: Bench, files: str, rows: int) -> None:
    """They were relative to the current folder, whatever folder the spec was in."""
    shell.write("specs/mine.yaml", qa(files))
    for spec in ("specs/mine.yaml", shell.folder / "specs/mine.yaml"):
        assert shell.compile(spec, force=True).kept == rows


@pytest.mark.parametrize("files", ["data/c.jsonl", "'data/c*'", "{train: data/c.jsonl}"])
def test_a_file_that_only_the_current_folder_has_is_refused_by_both_names(shell: Bench, files: str) -> None:
    shell.write("specs/mine.yaml", qa(files))
    with raises(RequestError, "specs/data/c", "data/c", "../data/c"):
        shell.compile("specs/mine.yaml")


def test_a_packaged_file_is_not_read_in_place_of_a_missing_one(shell: Bench) -> None:
    """It was read without a word: the rows of the demo were learned."""
    shell.write("specs/mine.yaml", "like: rte\nsource: {files: {train: samples/rte/train.jsonl}}\n")
    with raises(RequestError, "specs/samples/rte/train.jsonl", "specs/mine.yaml"):
        shell.compile("specs/mine.yaml")


def test_a_bundled_spec_and_those_like_it_find_the_packaged_files(shell: Bench) -> None:
    shell.rows("samples/rte/train.jsonl", questions(1))  # another file of the same name
    assert shell.compile("demo_rte").kept > 100
    shell.write(
        "specs/mine.yaml", "like: demo_rte\nwrite: [{dataset: 'm_{split}', file: 'm_{split}.json'}]\n"
    )
    assert shell.compile("specs/mine.yaml").kept > 100


def test_a_bundled_spec_by_its_path_is_the_same(shell: Bench) -> None:
    assert load_spec(str(SPECS / "demo_rte.yaml")).source == load_spec("demo_rte").source
    link = shell.folder / "specs-of-tuneyard"
    link.symlink_to(SPECS)
    assert load_spec("specs-of-tuneyard/demo_rte.yaml").source == load_spec("demo_rte").source


def test_a_mixture_takes_files_and_specs_from_its_folder(shell: Bench) -> None:
    shell.write("specs/part.yaml", qa("data/a.jsonl"))
    shell.write(
        "specs/mix.yaml",
        "about: m\nmix: {total: 2, parts: {p: {share: 1, as: part.yaml, source: {files: data/b.jsonl}}}}\n"
        "write: [{dataset: m, file: m.jsonl, format: alpaca}]\n",
    )
    assert shell.compile("specs/mix.yaml").kept == 2


def test_like_names_a_spec_next_to_it(shell: Bench) -> None:
    shell.write("specs/base.yaml", qa("data/b.jsonl"))
    shell.write("specs/sub/mine.yaml", "like: ../base.yaml\nwrite: [{dataset: m, file: m.json}]\n")
    assert shell.compile("specs/sub/mine.yaml").datasets == {"m": 2}
    shell.write("other.yaml", qa("data/c.jsonl"))
    shell.write("specs/wrong.yaml", "like: other.yaml\n")
    with raises(RequestError, "specs/other.yaml", "other.yaml", "../other.yaml"):
        load_spec("specs/wrong.yaml")


def test_media_lie_below_the_folder_of_the_spec(shell: Bench) -> None:
    turns = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "Red."}]
    shell.rows("rows.jsonl", [{"messages": turns, "images": ["a.png"]}])
    shell.write("specs/pictures/a.png", b"")
    shell.write("specs/mine.yaml", "like: media\nsource: {files: ../rows.jsonl, media_dir: pictures}\n")
    report = shell.compile("specs/mine.yaml")
    assert "specs/pictures" in report.problems.errors[0].message or report.kept == 1
    assert load_spec("specs/mine.yaml").source.media_dir == "specs/pictures"


@pytest.mark.parametrize("pattern", ["specs/data/*.jsonl", "train=specs/data/[ab].jsonl", "*/data/*"])
def test_a_source_may_be_a_pattern(shell: Bench, pattern: str) -> None:
    assert shell.compile("qa", pattern).kept == 3


def test_a_path_that_exists_is_no_pattern(shell: Bench) -> None:
    shell.rows("odd/rows[1].jsonl", questions(5))
    shell.rows("odd/rows1.jsonl", questions(1))
    assert shell.compile("qa", "odd/rows[1].jsonl").kept == 5
    shell.rows("a[1]/x.jsonl", questions(2))
    shell.write("a[1]/mine.yaml", qa("'*.jsonl'"))
    assert shell.compile("a[1]/mine.yaml").kept == 2


@pytest.mark.parametrize("pattern", ["specs/*.csv", "no-folder/*.jsonl", "specs/**x/*.jsonl"])
def test_a_pattern_without_a_match_is_refused(shell: Bench, pattern: str) -> None:
    with raises(RequestError, pattern):
        shell.compile("qa", pattern)


@pytest.mark.parametrize("out", ["specs/new.yaml", "new.yaml", "specs/deep/new.yaml"])
def test_init_writes_paths_from_the_folder_of_the_spec(shell: Bench, out: str) -> None:
    Path("specs/deep").mkdir()
    text, _, _ = propose(Path("data/c.jsonl"), 0, Path(out))
    Path(out).write_text(text, encoding="utf-8")
    assert shell.compile(out).kept == 4


NUMBERS = [
    ("sample: 100.0\n", 100),
    ("sample: 25.000\n", 25),
    ("filter: {min: 1.0, max: 500.0}\n", 120),
    ("split: {eval: 0.5, seed: 7.0}\n", 120),
]


@pytest.mark.parametrize(("lines", "rows"), NUMBERS)
def test_whole_numbers_may_have_a_fraction_of_zero(bench: Bench, lines: str, rows: int) -> None:
    """`100.0` ended in a traceback."""
    spec = f"about: q\nlike: qa\n{lines}write: [{{dataset: 'q_{{split}}', file: 'q-{{split}}.json'}}]\n"
    assert bench.compile(spec, bench.rows("rows.jsonl", questions(120))).kept == rows


def test_whole_numbers_of_a_mixture_an_output_and_a_column(bench: Bench) -> None:
    source = bench.rows("rows.jsonl", questions(12))
    mix = "about: m\nmix: {total: 10.0, shuffle: 1.0, parts: {a: {share: 1.0, as: qa}}}\n"
    write = (
        "write: [{dataset: m, file: m.jsonl, format: alpaca}, {file: n.jsonl, format: alpaca, like: 0.0}]\n"
    )
    assert bench.compile(mix + write, f"a={source}").kept == 10
    rows = [{"question": "Q?", "choices": ["a", "b"], "answer": number} for number in (1, 2)]
    choice = "about: c\nlike: choices\ncolumns: {answer: {names: answer, is: choice, first: 1.0}}\n"
    bench.compile(choice, bench.rows("choices.jsonl", rows))
    assert bench.values("choices.json", "output") == ["A", "B"]


def test_an_output_like_another_one_needs_no_format(bench: Bench) -> None:
    """The schema refused it, although the output that it is like has the format."""
    write = "write: [{dataset: a, file: a.json}, {file: b.json, like: 0}, {file: c.json, like: 1}]\n"
    bench.compile(f"about: q\nlike: qa\n{write}", bench.rows("rows.jsonl", questions(2)))
    assert bench.records("a.json") == bench.records("b.json") == bench.records("c.json")
    with raises(ContentError, "write.0", "format"):
        bench.compile(
            "about: q\ncolumns: {q: question}\nwrite: [{dataset: a, file: a.json}]\n",
            bench.folder / "rows.jsonl",
        )


@pytest.mark.parametrize(
    "columns",
    [
        "{question: frage, answer: {names: antwort, is: answer}}",
        "{question: [frage], answer: {names: [antwort], is: answer}}",
        "{question: {names: frage}, answer: {names: antwort, is: answer}}",
    ],
)
def test_a_column_may_have_one_name(bench: Bench, columns: str) -> None:
    """`q: question` was refused, and so was `names: antwort`."""
    rows = [{"frage": "Wer?", "antwort": "Ann", "note": 1}]
    spec = f"about: q\nlike: qa\ncolumns: {columns}\nignore: note\n"
    bench.compile(spec, bench.rows("rows.jsonl", rows))
    assert bench.values("qa.json", "output") == ["Ann"]
