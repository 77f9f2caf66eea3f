"""The commands that `data init` prints run as they stand: they compile, and the recipe fits the dataset."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.json_files import write_lines
from tests.messages import printed, printed_line
from tests.unit.compiler.conftest import exchange, questions
from tuneyard.compiler.cli import cli
from tuneyard.core.datasets import read_registry
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.recipes.__main__ import cli as recipe_cli
from tuneyard.recipes.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("working_folder")
GOOD = ROOT / "tests/examples/good"
PAIRS = questions(40)
CLASSES = [
    {"body": f"A remark of some length, number {n}.", "kind": "ab"[n % 2], "note": "x"} for n in range(40)
]


def init(*words: object) -> Result:
    return invoke(cli, "init", *words)


def next_line(result: Result) -> str:
    """The line with the next commands."""
    return next(line for line in result.stderr.splitlines() if line.startswith("next: "))


def run_next(result: Result) -> None:
    """Run the commands of the line `next:`; each must succeed."""
    line = next_line(result)
    for command in line.removeprefix("next: ").split(" && "):
        program, group, *words = shlex.split(command)
        assert (program, group) == ("tuneyard", "data")
        ended = invoke(cli, *words)
        assert ended.exit_code == 0, f"{command}\n{ended.output}{ended.exception}"


def check_then(result: Result) -> Path:
    """Check the line `then:`: a recipe without errors for a dataset that is there. The training's folder."""
    line = result.stderr.splitlines()[-1]
    program, group, name, recipe, *overrides = shlex.split(line.removeprefix("then: "))
    assert (program, group, name) == ("tuneyard", "recipe", "check")
    checked = invoke(recipe_cli, name, "--quick", recipe, *overrides)
    assert checked.exit_code == 0, f"{line}\n{checked.output}{checked.exception}"
    return read_recipe(Path(recipe), overrides).output_dir


@pytest.mark.parametrize("options", [[], ["--split", "0.25"], ["--split", "0"]])
def test_questions_and_answers(options):
    result = init(write_lines(Path("my questions.jsonl"), PAIRS), *options)
    run_next(result)
    assert check_then(result) == Path("saves/my_questions")


@pytest.mark.parametrize("split", ["0", "0.25"])
def test_a_file_of_llamafactorys_folder_stays_there(split):
    Path("data").mkdir()
    Path("data/dataset_info.json").write_text("{}")
    result = init(write_lines(Path("data/questions.jsonl"), PAIRS), "--split", split)
    run_next(result)
    check_then(result)
    names = read_registry(Path("data"))
    assert names and not Path("dataset_info").exists()
    assert ("questions_test" in names) is (split != "0")


def test_the_options_just_given_are_in_the_next_command(tmp_path):
    source = write_lines(tmp_path / "it's.jsonl", CLASSES)
    result = init(source, "--text", "body", "--label", "kind", "--split", "0.5")
    line = next_line(result)
    words = shlex.split(line)
    assert words[words.index("--text") + 1] == "body" and words[words.index("--label") + 1] == "kind"
    assert words[words.index("--split") + 1] == "0.5" and source.name in words
    run_next(result)
    assert check_then(result) == Path("saves/it_s")
    tested = list(Path("dataset_info/it_s").glob("*_test.jsonl"))
    assert len(tested) == 1 and 19 <= len(tested[0].read_text().splitlines()) <= 21


@pytest.mark.parametrize(
    "example", ["tools/a.json", "pairs/a.jsonl", "kto/a.jsonl", "text/a.csv", "messages/a.jsonl", "io"]
)
def test_every_kind_of_record_gets_a_recipe_that_fits(example):
    result = init(GOOD / example, "--out", "mine.yaml")
    assert result.exit_code == 0, result.output
    run_next(result)
    check_then(result)


def test_some_bad_rows_are_counted_and_rejected_by_the_next_command():
    result = init(
        write_lines(
            Path("rows.jsonl"), [*PAIRS, {"question": "Q?", "answer": 5}, {"question": "Q?", "answer": 6}]
        )
    )
    assert result.exit_code == 0
    printed_line(result.stderr, "2 of 42", "rows.jsonl:41", "E105")
    run_next(result)
    assert len(Path("dataset_info/rows/rejected.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("out", [[], ["--out", "mine.yaml"]])
def test_a_spec_that_compiles_no_row_is_an_error(out):
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    result = init(write_lines(Path("talk.jsonl"), [{"messages": turns}] * 3), *out)
    assert isinstance(result.exception, ContentError)
    printed(str(result.exception), "3 rows", "talk.jsonl:1", "E107", "without --out, which prints the spec")
    assert "next:" not in result.stderr and not Path("mine.yaml").exists()
    assert ("about: Conversations" in result.stdout) == (not out)


def test_a_split_that_cannot_be_made_is_refused():
    few = write_lines(Path("few.jsonl"), PAIRS[:5])
    Path("parts").mkdir()
    for name in ("train", "dev"):
        write_lines(Path("parts") / f"{name}.jsonl", PAIRS)
    for source, reason in ((few, "has 5 rows, a split needs 20"), (Path("parts"), "is split already")):
        result = init(source, "--split", "0.2")
        assert isinstance(result.exception, RequestError) and reason in str(result.exception)
        assert init(source).exit_code == 0
    result = init(write_lines(Path("rows.jsonl"), CLASSES), "--label", "kind", "--answer", "note")
    assert isinstance(result.exception, RequestError) and "give one" in str(result.exception)


@pytest.mark.parametrize("share", ["1", "-1", "half", "10%"])
def test_what_is_no_share_is_refused(share):
    result = init(write_lines(Path("rows.jsonl"), PAIRS), f"--split={share}")
    assert result.exit_code == 2
    compiled = invoke(cli, "compile", "defect", "--split", f"test={share}")
    assert isinstance(compiled.exception, RequestError) and "test=0.3" in str(compiled.exception)


def test_after_setup_core_the_set_up_command_comes_first(monkeypatch):
    """The core has no LLaMA-Factory, which the commands after a compile need."""
    monkeypatch.setattr(
        "tuneyard.core.installation.packages.find_spec", lambda name: None if name == "llamafactory" else name
    )
    result = init(write_lines(Path("rows.jsonl"), PAIRS), "--out", "mine.yaml")
    assert re.search(r"^then: .*make setup\)? && \S* ?recipe check ", result.stderr, re.M)
    assert "make setup" not in next_line(result)
    compiled = invoke(cli, "compile", "mine.yaml")
    assert re.search(r"^next: .*make setup\)? && \S* ?data verify ", compiled.stderr, re.M)


def test_the_printed_commands_take_a_free_name_for_the_spec():
    rows = write_lines(Path("q.jsonl"), PAIRS)
    Path("q.yaml").write_text("mine")
    result = init(rows)
    assert result.exit_code == 0
    run_next(result)
    assert Path("q.yaml").read_text() == "mine" and Path("q-2.yaml").is_file()


TURNS = {"messages": exchange("Hello", "")}


@pytest.mark.parametrize(
    "row", [{"question": "Why?", "answer": ""}, {"prompt": "Why?", "completion": " "}, TURNS]
)
def test_answers_that_are_all_empty_are_refused(tmp_path, row):
    ended = init(write_lines(tmp_path / "data.jsonl", [row] * 60))
    assert isinstance(ended.exception, ContentError)
    assert "all 60 answers are empty" in str(ended.exception)
    assert ended.stdout.startswith("# Proposed by")  # to be corrected by hand


@pytest.mark.parametrize(("empty", "filled"), [("", "An answer."), (None, 7), (None, 2.5)])
def test_rows_with_empty_answers_are_dropped_and_counted(tmp_path, empty, filled):
    """A null among numbers was the text `null`, without a word."""
    rows = [{"question": f"Question {n}?", "answer": empty if n % 3 == 2 else filled} for n in range(60)]
    file = write_lines(tmp_path / "data.jsonl", rows)
    ended = init(file)
    assert ended.exit_code == 0
    printed_line(ended.stderr, "warning", "answer", "20 of 60", "`empty`")
    printed_line(ended.stderr, "tried on the whole file", "kept 40", "no answer 20")


@pytest.mark.parametrize("name", ["rows.jsonl", "my rows.jsonl", "行\n二.jsonl"])
def test_the_spec_of_an_unchanged_file_is_up_to_date(name):
    rows = write_lines(Path(name), PAIRS)
    spec = Path("mine.yaml")
    first = init(rows, "--out", spec)
    assert first.exit_code == 0
    content = spec.read_bytes()
    again = init(rows, "--out", spec)
    assert again.exit_code == 0
    assert again.stdout.splitlines() == ["mine.yaml: up to date"]
    assert again.stderr == first.stderr
    assert spec.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        lambda: write_lines(Path("rows.jsonl"), PAIRS[:-1]),
        lambda: Path("mine.yaml").write_text(Path("mine.yaml").read_text() + "# mine\n"),
        lambda: Path("mine.yaml").write_text("about: of my own\n"),
        lambda: Path("mine.yaml").write_text(""),
        lambda: (Path("mine.yaml").unlink(), Path("mine.yaml").mkdir()),
    ],
)
def test_another_spec_is_never_replaced(change):
    rows = write_lines(Path("rows.jsonl"), PAIRS)
    init(rows, "--out", "mine.yaml")
    change()
    spec = Path("mine.yaml")
    before = spec.read_bytes() if spec.is_file() else None
    refused = init(rows, "--out", "mine.yaml")
    assert refused.exit_code != 0
    if before is not None:
        assert isinstance(refused.exception, RequestError)
        printed(str(refused.exception), "mine.yaml", "exists")
        assert spec.read_bytes() == before


def test_a_spec_by_hand_is_refused_before_the_file_is_read():
    Path("broken.jsonl").write_text("{")
    Path("mine.yaml").write_text("about: of my own\n")
    refused = init("broken.jsonl", "--out", "mine.yaml")
    assert isinstance(refused.exception, RequestError)
    printed(str(refused.exception), "mine.yaml", "exists")
