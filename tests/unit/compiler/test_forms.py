"""The forms of document 004: one indented object a file, folders of them, text and subtype, all splits."""

import json

import pytest

from tests.messages import printed, raises
from tests.unit.compiler.conftest import as_zst, exchange
from tuneyard.compiler.cli import cli
from tuneyard.core.errors import ContentError


def report(number, subtype="过热"):
    """Return a report with the fields of document 004, made up."""
    return {
        "instruction": [{"subtype": subtype}],
        "input": {"task": "判断故障。", "event": f"第{number}号设备停机。", "output_format": "判断:…"},
        "output": {"judgement": f"部件{number}", "reason": "温度过高。"},
    }


def indented(row):
    return json.dumps(row, ensure_ascii=False, indent=4)


def test_a_folder_of_single_objects_is_what_their_list_is(bench):
    """By another way: the same rows in one list, which the compiler has always read."""
    rows = [report(n, "过热" if n % 3 else "断线") for n in range(20)]
    folder = bench.write("reports/r00.json", indented(rows[0])).parent
    for number, row in enumerate(rows[1:], 1):
        bench.write(f"reports/r{number:02}.json", indented(row))
    single = bench.compile("defect", folder, out=bench.folder / "single")
    listed = bench.compile("defect", bench.write("list.json", json.dumps(rows)), out=bench.folder / "listed")
    assert (single.read, single.kept, single.problems.notes) == (20, 20, [])
    assert single.files == listed.files


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("qa", {"question": "Why?", "answer": "Because."}),
        ("stackexchange", {"question": "Why?", "answers": [{"pm_score": 1, "text": "So."}]}),
        ("messages", {"messages": exchange("A", "B")}),
        ("like: qa\ncolumns: {answer: {is: any}}\n", {"question": "Why?", "answer": [{"page": 1}]}),
    ],
)
@pytest.mark.parametrize(
    "form", [indented, json.dumps, lambda row: json.dumps(row) + "\n", lambda row: f"\n{indented(row)}\n"]
)
def test_an_object_with_the_columns_is_one_row(bench, spec, row, form):
    path = bench.write("train.json.zst", as_zst(form(row).encode()))
    report = bench.compile(spec, path)
    assert (report.read, report.kept, report.problems.errors) == (1, 1, [])


def test_what_is_wrong_in_a_single_object_has_its_place(bench):
    row = report(1)
    row["output"]["reason"] = None
    problem = bench.compile("defect", bench.write("a.json", "\n" + indented(row))).problems.errors[0]
    assert (problem.code, problem.field) == ("E103", "output.reason (reason)") and problem.place.endswith(
        "a.json:2"
    )
    twice = indented(report(1)).replace('"reason"', '"judgement"')
    assert bench.codes(bench.compile("defect", bench.write("b.json", twice))) == [("E006", "b.json:1")]
    del row["output"]["reason"]
    problem = bench.compile("defect", bench.write("c.json", indented(row))).problems.errors[0]
    assert (problem.code, problem.field) == ("E101", "reason") and "output.reason" in problem.message


def test_an_object_that_lacks_a_column_or_holds_rows_is_read_as_before(bench):
    """Rows under a key win over a field of that document which is called as a column is."""
    lacking = {"instruction": [{"subtype": "过热"}], "output": {}}
    assert bench.compile("defect", bench.write("a.json", indented(lacking))).problems.errors
    held = {"text": "Our texts", "data": [{"text": "One."}, {"text": "Two."}]}
    found = bench.compile("text", bench.write("b.json", indented(held)))
    assert found.kept == 2
    printed(found.problems.notes[0], f"{bench.folder}/b.json", '"data"')


def files_of(out, name):
    return {path.name: path.read_bytes() for path in (out / name).iterdir() if path.name != "manifest.json"}


def test_what_is_written_in_the_documents_form_compiles_to_itself(bench):
    """The text/subtype form as a source: before the split to the same split, split already as it is."""
    rows = [report(n, "过热" if n % 3 else "断线") for n in range(30)]
    bench.compile("defect", bench.write("raw.json", json.dumps(rows)))
    first = files_of(bench.out, "defect")
    assert {json.loads(line)["subtype"] for line in first["test.jsonl"].splitlines()} == {"过热", "断线"}
    own = bench.out / "defect"
    bench.compile("defect-text", own / "converted_data.jsonl", out=bench.folder / "a")
    assert files_of(bench.folder / "a", "defect-text") == first
    bench.compile("defect-split", own / "train.jsonl", own / "test.jsonl", out=bench.folder / "b")
    del first["converted_data.jsonl"], first["converted_data.examples.npy"]
    assert files_of(bench.folder / "b", "defect-split") == first


def test_a_sample_by_option(here, bench):
    rows = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(45)]
    source = bench.write("raw.json", json.dumps(rows))
    command = (cli, "compile", "qa", "--source", source, "--out", bench.out)

    def kept(*words):
        printed = here(*command, *words)
        assert f"not sampled {45 - len(bench.records('qa.json'))}" in printed.stdout.split("  ")
        return [int(row["instruction"][1:]) for row in bench.records("qa.json")], printed

    drawn, _ = kept("--sample", "0.1")  # 4.5 rows, to the even number
    assert len(drawn) == 4 and drawn == sorted(drawn)
    again, printed = kept("--sample", ".10")
    assert again == drawn and "up to date" in printed.stdout
    assert kept("--sample", "0.1", "--seed", "7")[0] != drawn
    assert [len(kept("--sample", size)[0]) for size in ("1", "2", "2.0", "44", "0.9")] == [1, 2, 2, 44, 40]
    everything = here(*command, "--sample", "2000")
    assert "sample: all 45 rows, since there are not 2000" in everything.stderr
    one = here(*command, "--sample", "1.0", code=2).stderr
    assert "all rows" in one and "--sample 1 to take one" in one
    for size in ("1.5", "0", "0.0", "-1", "nan", "inf", "10%", "1e3", "", "1" * 40, "0,1"):
        assert f"--sample {size}: " in here(*command, "--sample", size, code=2).stderr
    assert "`total`" in here(cli, "check", "mix-small", "--sample", "0.1", code=2).stderr
    next_command = here(cli, "check", "qa", "--source", source, "--sample", "3").stderr
    assert "--sample 3" in next_command


def test_another_share_by_option(here, bench):
    """Two classes of 10 and 20 rows: 30 % of each; the share stands in what the set was made from."""
    source = bench.write("raw.json", json.dumps([report(n, "过热" if n % 3 else "断线") for n in range(30)]))
    command = (cli, "compile", "defect", "--source", source, "--out", bench.out)
    counts = here(*command, "--split", "test=0.3").stdout.split("  ")
    for count in ("defect_train 21", "test.jsonl 9", "defect_test 9"):
        assert count in counts
    subtypes = bench.values("test.jsonl", "subtype")
    assert (subtypes.count("断线"), subtypes.count("过热")) == (3, 6)
    assert "defect_train 24" in here(*command).stdout, "made again, as the share is another"
    for share in ("test=1.3", "test=0", "test", "test=x"):
        assert "as test=0.3" in here(*command, "--split", share, code=2).stderr
    assert "--split test=0.3" in here(*command, "--split", "tset=0.3", code=2).stderr
    qa = here(cli, "check", "qa", "--source", source, "--split", "test=0.3", code=2)
    assert "the spec qa has no `split` of its own" in qa.stderr and "val_size" in qa.stderr


@pytest.mark.parametrize(
    "write",
    [
        "{dataset: a, file: a.jsonl, format: text, text: '{t}'}",
        "{dataset: 'a_{split}', file: a.jsonl, format: text, text: '{t}'}",
        "{file: a.jsonl, format: text, text: '{t}'}, {file: a.jsonl, format: text, text: '{t}'}",
    ],
)
def test_only_a_file_that_is_no_dataset_holds_all_splits(bench, write):
    text = f"about: a\ncolumns: {{t: [t]}}\nsplit: {{test: 0.5}}\nwrite: [{write}]\n"
    with raises(ContentError):
        bench.compile_rows(text, [{"t": "x"}])


def test_leaks_stand_in_no_file(bench):
    """Ten questions with three answers each: of a question in test no row is left in train, nor in all."""
    write = "{file: '{split}.jsonl', format: alpaca, instruction: '{q}', output: '{a}'}"
    write += ", {file: all.jsonl, format: alpaca, instruction: '{q}', output: '{a}'}"
    text = "about: a\ncolumns: {q: [q], a: [a]}\nsplit: {test: 0.2}\ndrop_leaks: true\n"
    rows = [{"q": f"q{n % 10}", "a": f"a{n}"} for n in range(30)]
    made = bench.compile_rows(f"{text}write: [{write}]\n", rows)
    train, test, whole = (bench.records(f"{name}.jsonl") for name in ("train", "test", "all"))
    assert made.dropped["leak"] == 30 - made.kept > 0
    assert whole == sorted(train + test, key=lambda row: int(row["output"][1:]))
    assert {row["instruction"] for row in train}.isdisjoint(row["instruction"] for row in test)
