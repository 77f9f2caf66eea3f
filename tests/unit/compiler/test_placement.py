"""Files, sheets, archive members and folders that are named like splits: where their rows go."""

import shutil
from pathlib import Path

import openpyxl
import pytest

from tests.conftest import ROOT
from tests.messages import raises
from tests.unit.compiler.conftest import Bench, as_zip, exchange, json_lines, questions
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.publish.drift import compile_again
from tuneyard.compiler.read.split_names import split_of_folder, splits_named_in
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets.compiled import read_manifest
from tuneyard.core.errors import ContentError, RequestError

THREE = "source: {splits: {train: train, eval: [dev], test: test}}\n"
TWO = "source: {splits: {train: train, eval: [dev]}}\n"
PLAIN = (
    "about: questions\ncolumns: {question: [question], answer: [answer]}\n"
    "write: [{dataset: q, file: q.json, format: alpaca, instruction: '{question}', output: '{answer}'}]\n"
)
"""A spec without splits."""
WRITE = "write: [{dataset: 'q_{split}', file: 'q-{split}.json'}]\n"


def spec_with(splits: str) -> str:
    return f"about: questions\nlike: qa\n{splits}{WRITE}"


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("rte-eval", ["eval"]),
        ("eval_2024", ["eval"]),
        ("my.test", ["test"]),
        ("data_test_v2", ["test"]),
        ("TEST", ["test"]),
        ("dev2", ["eval"]),
        ("hold-out", ["eval"]),
        ("held_out_rows", ["eval"]),
        ("validationset", ["eval"]),
        ("测试", ["test"]),
        ("客服验证集", ["eval"]),
        ("rte测试数据", ["test"]),
        ("评估", ["eval"]),
        ("开发集", ["eval"]),
        ("训练集_3k", ["train"]),
        ("testing", ["test"]),
        ("Testing_Data_v2", ["test"]),
        ("software-testing", []),
        ("train_test", ["train", "test"]),
        ("trainval", ["train", "eval"]),
        ("TrainTest_v2", ["train", "test"]),
        ("校验集", ["eval"]),
        ("客服测评集", ["eval"]),
        ("dataValidation", ["eval"]),
        ("rteTestSet", ["test"]),
        ("validate", ["eval"]),
        ("validations_2024", ["eval"]),
        ("eval_train", ["eval", "train"]),
        *[
            (name, [])
            for name in (
                "contest",
                "latest",
                "developers",
                "attest",
                "valuation",
                "devops",
                "retrain",
                "DevOps",
                "TestFlight",
            )
        ],
        *[(name, []) for name in ("软件测试", "手机评测", "培训", "faq", "")],
    ],
)
def test_a_split_is_a_whole_word_of_a_name(name: str, splits: list[str]) -> None:
    assert list(splits_named_in(name)) == splits


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[
            (name, "test")
            for name in ("test", "Test", "rte-test", "test_data", "test_v2", "test-2024", "测试集")
        ],
        *[(name, "eval") for name in ("dev", "my-validation-set", "hold_out")],
        *[
            (name, "")
            for name in ("test-questions", "dev-tools", "tests", "train_test", "test_compiles_rows0")
        ],
    ],
)
def test_the_last_word_of_a_folder_names_a_split(name: str, split: str) -> None:
    """`test-questions` is a topic, and test runners make folders such as `test_compiles_rows0`."""
    assert split_of_folder(name) == split


HELD_OUT = [
    "test.jsonl",
    "eval_2024.jsonl",
    "my.dev.jsonl",
    "qa-验证集.jsonl",
    "test/0001.jsonl",
    "HOLDOUT.jsonl",
]


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_spec_without_splits_refuses_held_out_rows(bench: Bench, name: str) -> None:
    """They were trained on without a word."""
    source = bench.rows(name, questions(3))
    with raises(RequestError, source, f"train={source}", "init"):
        bench.compile(PLAIN, source)
    assert not bench.out.exists()


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_rows_are_trained_on_if_the_user_says_so(bench: Bench, name: str) -> None:
    source = bench.rows(name, questions(3))
    report = bench.compile("qa", f"train={source}")
    assert report.kept == 3
    (note,) = [note for note in report.problems.notes if "named like" in note]
    assert str(source) in note and "train" in note


def test_files_of_a_spec_are_obeyed_with_one_note(bench: Bench) -> None:
    paths = [str(bench.rows(f"rows/{name}.jsonl", questions(2))) for name in ("train", "test1", "test2")]
    report = bench.compile(f"about: questions\nlike: qa\nsource: {{files: {paths}}}\n")
    assert report.kept == 6
    (note,) = [note for note in report.problems.notes if "named like" in note]
    assert note.startswith(f"{paths[1]}: ") and "1 more" in note


@pytest.mark.parametrize(
    "name", ["contest.jsonl", "latest.jsonl", "developers.jsonl", "a/faq.jsonl", "train_3k.jsonl"]
)
def test_other_names_are_trained_on_as_before(bench: Bench, name: str) -> None:
    report = bench.compile("qa", bench.rows(name, questions(3)))
    assert report.kept == 3
    assert not [note for note in report.problems.notes if "named like" in note]


@pytest.mark.parametrize(
    ("splits", "name", "split", "has_note"),
    [
        (THREE, "dev.jsonl", "eval", False),
        (THREE, "my.test.jsonl", "test", False),
        (THREE, "validation-1.jsonl", "eval", True),
        (THREE, "test/0001.jsonl", "test", False),
        (THREE, "dev/train.jsonl", "train", False),
        (TWO, "test.jsonl", "eval", True),
        (TWO, "测试集.jsonl", "eval", True),
        (TWO, "test_data/0001.jsonl", "eval", True),
    ],
)
def test_a_file_goes_to_the_split_that_it_is_named_like(
    bench: Bench, splits: str, name: str, split: str, has_note: bool
) -> None:
    report = bench.compile(spec_with(splits), bench.rows(name, questions(3)))
    assert report.datasets == {f"q_{split}": 3}
    assert any("named like" in note for note in report.problems.notes) == has_note


@pytest.mark.parametrize(
    "name", ["train_test.jsonl", "eval_train.jsonl", "dev-and-test.jsonl", "训练集_测试集.jsonl"]
)
@pytest.mark.parametrize("spec", ["qa", spec_with(THREE)])
def test_a_name_of_several_splits_is_refused(bench: Bench, spec: str, name: str) -> None:
    with raises(RequestError, name, "--source"):
        bench.compile(spec, bench.rows(name, questions(3)))


def test_folders_named_like_splits_are_read(bench: Bench) -> None:
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        bench.rows(f"all/{split}/0001.jsonl", questions(count))
    assert bench.compile(spec_with(THREE), bench.folder / "all").datasets == {
        "q_train": 3,
        "q_eval": 2,
        "q_test": 1,
    }
    with raises(RequestError, "dev/0001.jsonl"):
        bench.compile(PLAIN, bench.folder / "all")


def test_members_of_an_archive_go_to_their_splits(bench: Bench) -> None:
    files = {
        "a/train.jsonl": json_lines(questions(3)).encode(),
        "test/1.jsonl": json_lines(questions(2)).encode(),
        "test/2.jsonl": json_lines(questions(1)).encode(),
    }
    source = bench.write("rows.zip", as_zip(files))
    assert bench.compile(spec_with(THREE), source).datasets == {"q_train": 3, "q_test": 3}
    sources = bench.manifest("spec")["made_from"]["sources"]
    assert [each.get("names") for each in sources] == ["a/train.jsonl", "test/1.jsonl, test/2.jsonl"]
    manifest = read_manifest(bench.out / "spec")
    assert manifest is not None
    command = compile_again(manifest)
    assert f"--source {source}`" in command and command.count("--source") == 1
    with raises(RequestError, "rows.zip/test/1.jsonl"):
        bench.compile(PLAIN, source)
    assert bench.compile(PLAIN, f"train={source}", force=True).kept == 3


@pytest.mark.parametrize("titles", [("train", "test"), ("test", "train"), ("notes", "测试集", "训练集")])
def test_sheets_go_to_their_splits(bench: Bench, titles: tuple[str, ...]) -> None:
    """The first sheet was read, whatever its name."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title in titles:
        sheet = book.create_sheet(title)
        sheet.append(["question", "answer"])
        for number in range(4 if title in ("train", "训练集") else 2):
            sheet.append([f"{title} {number}?", "yes"])
    source = bench.folder / "rows.xlsx"
    book.save(source)
    report = bench.compile(spec_with(TWO), source)
    assert report.datasets == {"q_train": 4, "q_eval": 2}
    assert [code for code, _ in bench.codes(report) if code == "W224"] == ["W224"] * ("notes" in titles)
    with raises(RequestError, "rows.xlsx, sheet"):
        bench.compile(PLAIN, source)


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_bundled_spec_writes_held_out_rows_beside_those_to_train_on(bench: Bench, name: str) -> None:
    """`text`, `qa`, `alpaca` and others trained on a dataset's own validation rows."""
    held_out = bench.rows(name, questions(3))
    report = bench.compile("qa", bench.rows("mine.jsonl", questions(5)), held_out)
    (split,) = {"eval", "test"} & set(split_of_name(name))
    assert report.datasets == {"qa": 5, f"qa_{split}": 3}
    assert any(str(held_out) in note and f"read as {split}" in note for note in report.problems.notes)
    assert len(bench.records("qa.json")) == 5 and len(bench.records(f"qa-{split}.json")) == 3
    assert bench.registry().keys() == {"qa", f"qa_{split}"}


def split_of_name(name: str) -> tuple[str, ...]:
    """The splits in the name of a file, or of the folder around it."""
    return splits_named_in(name) or splits_named_in(name.partition("/")[0])


def generic_specs() -> list[str]:
    """The bundled specs for files of any origin that divide no rows themselves."""
    specs = [load_spec(name) for name in known_specs()]
    return [
        spec.name for spec in specs if not (spec.split or spec.mix or spec.source.splits or spec.source.files)
    ]


@pytest.mark.parametrize("name", generic_specs())
def test_every_bundled_spec_has_the_splits_that_a_source_may_have(bench: Bench, name: str) -> None:
    """A second copy of its example, in a folder called validation."""
    spec = load_spec(name)
    assert spec.input_names == ("train", "eval", "test")
    example = ROOT / "tests/examples/good" / name
    for split in ("train", "validation"):
        shutil.copytree(example, bench.folder / "all" / split)
    report = bench.compile(name, bench.folder / "all")
    plain = bench.compile(name, example, out=bench.folder / "plain", force=True)
    files = {split: [output.file_of(split) for output in spec.outputs] for split in ("train", "eval")}
    for train, held_out in zip(files["train"], files["eval"], strict=True):
        assert train == spec.outputs[files["train"].index(train)].file
        records = bench.records(train)
        assert records == bench.records(held_out)
    names = [output.dataset for output in spec.outputs if output.dataset]
    assert report.datasets == {
        **{dataset: plain.datasets[dataset] for dataset in names},
        **{f"{dataset}_eval": plain.datasets[dataset] for dataset in names},
    }


def test_a_bundled_spec_without_rows_to_train_on_says_so(bench: Bench) -> None:
    source = bench.rows("validation.jsonl", questions(3))
    report = bench.compile("qa", source)
    assert report.datasets == {"qa_eval": 3}
    command = f"tuneyard data compile qa --source train=TRAINING_ROWS --source eval={source}"
    (note,) = [note for note in report.problems.notes if command in note]
    assert f"--source train={source}" in note


def test_a_split_that_no_source_has_any_more_is_not_deleted(bench: Bench) -> None:
    rows, held_out = bench.rows("mine.jsonl", questions(5)), bench.rows("dev.jsonl", questions(3))
    bench.compile("qa", rows, held_out)
    with raises(RequestError, "qa-eval.json", "--source eval=PATH", "--force"):
        bench.compile("qa", rows)
    assert len(bench.records("qa-eval.json")) == 3


def test_another_dataset_may_have_the_name_of_a_split_that_is_not_written(bench: Bench) -> None:
    other = "about: q\nlike: qa\nwrite: [{dataset: qa_eval, file: q.json}]\n"
    bench.compile(other, bench.rows("other.jsonl", questions(2)))
    bench.compile("qa", bench.rows("mine.jsonl", questions(5)))
    assert bench.registry().keys() == {"qa_eval", "qa"}
    with raises(ContentError, "qa_eval"):
        bench.compile("qa", bench.rows("mine.jsonl", questions(5)), bench.rows("dev.jsonl", questions(3)))


@pytest.mark.parametrize("keys", ["split: {eval: 0.2}\n", "source: {splits: {train: train, eval: dev}}\n"])
def test_a_spec_with_its_own_splits_has_no_others(bench: Bench, keys: str) -> None:
    source = bench.rows("mine.jsonl", questions(20))
    report = bench.compile(f"about: q\nlike: qa\n{keys}{WRITE}", f"train={source}")
    assert report.datasets.keys() <= {"q_train", "q_eval"}


def test_shares_and_splits_that_a_source_may_have_exclude_each_other(bench: Bench) -> None:
    source = bench.rows("mine.jsonl", questions(20))
    keys = "source: {held_out: [eval]}\nsplit: {eval: 0.2}\n"
    with raises(ContentError, "source.held_out", "split"):
        bench.compile(PLAIN + keys, source)


def test_init_takes_files_without_a_split_for_train(bench: Bench) -> None:
    for name, count in (("questions-1", 3), ("questions-2", 2), ("qa.test", 1)):
        bench.rows(f"all/{name}.jsonl", questions(count))
    report = bench.compile(propose(bench.folder / "all")[0])
    assert report.read == 6 and report.dropped == {"leak": 2}  # both files have the question of the test
    assert report.datasets == {"all_train": 3, "all_test": 1}


def test_init_refuses_a_name_of_several_splits_next_to_others(bench: Bench) -> None:
    for name in ("train_test", "test"):
        bench.rows(f"all/{name}.jsonl", questions(3))
    with raises(RequestError, "train_test.jsonl"):
        propose(bench.folder / "all")


def test_init_says_that_a_file_is_named_like_a_held_out_split(bench: Bench) -> None:
    _, report, _ = propose(bench.rows("test.jsonl", questions(30)))
    assert "named like test" in report


def test_init_compares_files_without_a_split_with_the_others(bench: Bench) -> None:
    """Files of other data next to `rows_test.jsonl` are no rows of train."""
    bench.rows("all/rows_test.jsonl", questions(3))
    bench.rows("all/people.jsonl", [{"name": "Ann", "town": "Bonn"}])
    with raises(ContentError, "people.jsonl", "rows_test.jsonl"):
        propose(bench.folder / "all")


def texts_of_defects(count: int, first: int = 0) -> list[dict]:
    return [
        {"text": exchange(f"event {number}", f"reason {number}"), "subtype": f"type {number % 3}"}
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test.jsonl", "test"),
        ("报告_测试集.jsonl", "test"),
        ("dev/0001.jsonl", "eval"),
        ("validation.jsonl", "eval"),
    ],
)
def test_a_spec_that_draws_rows_draws_none_from_a_source_that_holds_some_out(
    bench: Bench, name: str, split: str
) -> None:
    """The files of all rows have those of both splits."""
    held_out = bench.rows(name, texts_of_defects(4, first=20))
    report = bench.compile("defect-text", bench.rows("mine.jsonl", texts_of_defects(20)), held_out)
    assert report.datasets == {
        "train.jsonl": 20,
        "defect_train": 20,
        f"{split}.jsonl": 4,
        f"defect_{split}": 4,
        "converted_data.jsonl": 24,
    }
    assert any("draws none" in note and str(held_out) in note for note in report.problems.notes)
    assert bench.registry().keys() == {"defect_train", f"defect_{split}"}
    turns = [record["text"][0]["content"] for record in bench.records(f"{split}.jsonl")]
    assert turns == [f"event {number}" for number in range(20, 24)]


def test_each_share_of_a_spec_stands_for_the_usual_split_of_its_name(bench: Bench) -> None:
    spec = f"about: questions\nlike: qa\nsplit: {{dev: 0.2, probe: 0.1}}\n{WRITE}"
    rows, held_out = bench.rows("mine.jsonl", questions(8)), bench.rows("validation.jsonl", questions(3))
    assert bench.compile(spec, rows, held_out).datasets == {"q_train": 8, "q_dev": 3}
    assert bench.compile(spec, rows, f"probe={held_out}", force=True).datasets == {"q_train": 8, "q_probe": 3}


def test_files_that_hold_no_rows_out_are_drawn_from_as_before(bench: Bench) -> None:
    """A draw has 2 of 10 rows. A split without a source is not deleted in silence."""
    rows = bench.rows("train.jsonl", texts_of_defects(10))
    report = bench.compile("defect-text", rows)
    assert report.datasets["defect_test"] == 3  # one of each subtype
    bench.compile("defect-text", rows, bench.rows("test.jsonl", texts_of_defects(4, first=10)))
    with raises(RequestError, "defect-train.jsonl"):
        bench.compile("defect-text", bench.folder / "test.jsonl")


def test_a_share_of_the_command_line_is_refused_for_held_out_files(bench: Bench) -> None:
    rows, held_out = bench.rows("a.jsonl", texts_of_defects(5)), bench.rows("dev.jsonl", texts_of_defects(4))
    spec = load_spec("defect-text", {"split": {"test": 0.5}})
    request = CompileRequest(spec, sources=(str(rows), str(held_out)), out=bench.out)
    with raises(RequestError, "--split test=0.5", str(held_out)):
        compile_dataset(request)


def with_sheets(bench: Bench, name: str, **rows_by_title: int) -> Path:
    """Write a workbook with a sheet of so many questions for each title."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, count in rows_by_title.items():
        sheet = book.create_sheet(title)
        sheet.append(["question", "answer"])
        for row in questions(count):
            sheet.append([row["question"], row["answer"]])
    path = bench.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def container(bench: Bench, kind: str, **rows_by_name: int) -> Path:
    """A folder, a folder of folders, an archive or a workbook with so many questions under each name."""
    if kind == "xlsx":
        return with_sheets(bench, "rows.xlsx", **rows_by_name)
    files = {f"{name}.jsonl": json_lines(questions(count)) for name, count in rows_by_name.items()}
    if kind == "folders":
        files = {name.replace(".jsonl", "/0001.jsonl"): text for name, text in files.items()}
    if kind == "zip":
        return bench.write("rows.zip", as_zip({name: text.encode() for name, text in files.items()}))
    for name, text in files.items():
        bench.write(f"rows/{name}", text)
    return bench.folder / "rows"


CONTAINERS = ("folder", "folders", "zip", "xlsx")


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize(
    ("train", "held_out"), [("train", "validation"), ("训练集", "校验集"), ("trainData", "dev")]
)
def test_a_split_given_to_a_container_takes_its_own_rows(
    bench: Bench, kind: str, train: str, held_out: str
) -> None:
    source = container(bench, kind, **{held_out: 2, train: 5})
    report = bench.compile(spec_with(TWO), f"train={source}")
    assert report.datasets == {"q_train": 5}
    assert "W224" in [problem.code for problem in report.problems.warnings]
    report = bench.compile(spec_with(TWO), f"train={source}", f"eval={source}", force=True)
    assert report.datasets == {"q_train": 5, "q_eval": 2}
    assert "W224" not in [problem.code for problem in report.problems.warnings]


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize(
    ("split", "other"), [("train", "validation"), ("eval", "train"), ("train", "测评集")]
)
def test_a_container_of_other_splits_is_refused(bench: Bench, kind: str, split: str, other: str) -> None:
    source = container(bench, kind, **{other: 2})
    with raises(RequestError, f"--source {split}=FILE"):
        bench.compile(spec_with(TWO), f"{split}={source}")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_members_without_a_split_go_with_the_split_given(bench: Bench, kind: str) -> None:
    source = container(bench, kind, faq=3, validation=2)
    assert bench.compile(spec_with(TWO), f"train={source}").datasets == {"q_train": 3}


def test_a_workbook_of_one_split_is_compiled_again_as_that_split(bench: Bench) -> None:
    source = container(bench, "xlsx", validation=2, train=5)
    bench.compile(spec_with(TWO), f"train={source}")
    manifest = read_manifest(bench.out / "spec")
    assert manifest is not None
    assert f"--source train={source}" in compile_again(manifest)


COLUMN_SAYS = "by its column"


@pytest.mark.parametrize(
    ("column", "held_out"),
    [("split", "validation"), ("Subset", "test"), ("partition", "dev"), ("划分", "验证集")],
)
def test_a_column_of_splits_that_is_not_read_is_named(bench: Bench, column: str, held_out: str) -> None:
    rows = [{**row, column: held_out if n < 3 else "train"} for n, row in enumerate(questions(26))]
    source = bench.rows("rows.jsonl", rows)
    (note,) = [note for note in bench.compile("qa", source).problems.notes if COLUMN_SAYS in note]
    assert "3 of 26 rows" in note and column in note
    assert COLUMN_SAYS in propose(source)[1]
    ignoring = f"about: questions\nlike: qa\nignore: [{column}]\nwrite: [{{dataset: q, file: q.json}}]\n"
    assert not [note for note in bench.compile(ignoring, source).problems.notes if COLUMN_SAYS in note]


@pytest.mark.parametrize(
    ("name", "values"),
    [("train.jsonl", ["train"]), ("validation.jsonl", ["val", "dev"]), ("rows.jsonl", ["easy", "test"])],
)
def test_a_column_that_agrees_with_its_file_or_has_other_values_is_not_named(
    bench: Bench, name: str, values: list[str]
) -> None:
    rows = [{**row, "split": values[n % len(values)]} for n, row in enumerate(questions(6))]
    report = bench.compile("qa", bench.rows(name, rows))
    assert not [note for note in report.problems.notes if COLUMN_SAYS in note]


@pytest.mark.parametrize("name", ["Validation", "VAL", "验证集", "dev", "evalSet"])
def test_a_split_may_be_given_by_any_of_its_names(bench: Bench, name: str) -> None:
    rows = bench.rows("train.jsonl", questions(4))
    held_out = bench.rows("more.jsonl", questions(3))
    sources = [f"train={rows}", f"{name}={held_out}"]
    assert bench.compile(spec_with(THREE), *sources).datasets == {"q_train": 4, "q_eval": 3}
    assert bench.compile("qa", *sources, force=True).datasets == {"qa": 4, "qa_eval": 3}


@pytest.mark.parametrize("name", ["trainval", "contest", "tran"])
def test_a_name_of_no_split_or_of_several_is_no_split_of_a_source(bench: Bench, name: str) -> None:
    with raises(RequestError, name, "(splits: train, eval, test)"):
        bench.compile(spec_with(THREE), f"{name}={bench.rows('train.jsonl', questions(4))}")


@pytest.mark.parametrize("name", ["all", "rows_2024", "全部"])
def test_a_saved_split_of_no_name_next_to_held_out_rows_is_trained_on(bench: Bench, name: str) -> None:
    import datasets

    splits = {name: questions(5), "holdout": questions(7)[5:]}
    saved = datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in splits.items()})
    saved.save_to_disk(bench.folder / "saved")
    source = bench.folder / "saved"
    report = bench.compile("qa", source)
    assert report.datasets == {"qa": 5, "qa_eval": 2}
    assert [note for note in report.problems.notes if "holdout/" in note and "read as eval" in note]
    report = bench.compile("qa", f"train={source}", out=bench.folder / "other")
    assert report.datasets == {"qa": 5}
    (warning,) = [problem for problem in report.problems.warnings if problem.code == "W224"]
    assert warning.place == f"{source}/holdout" and "1 data file " in warning.message
