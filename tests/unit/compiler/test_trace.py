"""`show --row`: a kept row on its way, as it was read and as a record, whichever rows stand before it."""

import json

import pytest

from tests.cli.scoring import invoke
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.compiler.cli import cli
from tuneyard.compiler.inspect.trace import trace
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY
from tuneyard.core.errors import ProblemsError, RequestError


def row(n, **more):
    return {"sentence1": f"one {n}", "sentence2": f"two {n}", "label": "entailment", "idx": n, **more}


def rte_steps(source, number, **options):
    return list(trace(load_spec("rte"), [str(source)], number, None, **options))


def test_the_row_is_the_one_that_was_kept_at_this_place(bench):
    rows = [row(1), row(2, label="-"), row(3, url="u"), row(4)]
    path = bench.rows("train.jsonl", rows)
    steps = rte_steps(path, 2)
    (place, raw), (_, columns), (file, record) = steps
    assert place.startswith("raw row, ") and place.endswith("train.jsonl:3")
    assert json.loads(raw) == rows[2]
    assert "one 3" in json.loads(columns).values()
    assert file == "record in alpaca_rte-train.json"
    assert json.loads(record)["idx"] == 3 and "one 3" in json.loads(record)["instruction"]
    with raises(RequestError, "row 4", "3 rows"):
        rte_steps(path, 4)


def test_a_row_nested_too_deep_to_be_indented_is_shown(bench):
    path = bench.write("train.jsonl", json.dumps(row(1))[:-1] + f', "x": {"[" * 1000}{"]" * 1000}}}')
    assert rte_steps(path, 1)[0][1] == "a dict too large to show"


def test_a_row_of_a_second_file_counts_on(bench):
    paths = [
        str(bench.rows(f"{name}.jsonl", [row(n) for n in numbers]))
        for name, numbers in (("a", (1, 2)), ("b", (7,)))
    ]
    sources = tuple(f"train={path}" for path in paths)
    (place, raw), *_ = trace(load_spec("rte"), sources, 3, None)
    assert place.endswith("b.jsonl:1") and json.loads(raw)["idx"] == 7


def test_a_row_that_cannot_be_shown_for_those_before_it_says_why(bench):
    bad = bench.rows("bad.jsonl", [row(1) | {"sentence1": ""}, row(2) | {"sentence2": None}])
    with pytest.raises(ProblemsError) as found:
        rte_steps(f"train={bad}", 1)
    assert [problem.place.rpartition(":")[2] for problem in found.value.problems] == ["1", "2"]
    other = bench.rows("other.jsonl", [{"question": "a", "answer": "b"}])
    with pytest.raises(ProblemsError) as found:
        rte_steps(f"train={other}", 1)
    assert {problem.code for problem in found.value.problems} == {"E101"}


def test_sources_that_the_spec_finds_itself_are_not_those_of_the_last_compile(bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    before = bench.rows("data/raw/qa/a.jsonl", [{"question": "Who?", "answer": "She."}])
    bench.compile("qa", out=DEFAULT_FOLDER)
    before.unlink()
    bench.rows("data/raw/qa/b.jsonl", [{"question": "Why?", "answer": "So."}])
    said = invoke(cli, "show", "qa", "-q")
    assert '"Why?"' in said.stdout and said.stderr == ""
    spec = bench.write("own.yaml", "like: qa\nsource: {files: c.jsonl}\nwrite: [{dataset: own}]\n")
    for name in ("c.jsonl", "d.jsonl"):
        bench.rows(name, [{"question": f"{name}?", "answer": "So."}])
    bench.compile(spec, "d.jsonl", out=DEFAULT_FOLDER)
    said = invoke(cli, "show", "own.yaml", "-q")
    assert '"c.jsonl?"' in said.stdout and said.stderr == ""


def test_a_misspelt_name_suggests_registered_datasets_and_specs(working_folder):
    DEFAULT_FOLDER.mkdir()
    write_json(DEFAULT_FOLDER / REGISTRY, {"identity": {"file_name": "a.json"}})
    for name, near in (("identty", "identity"), ("alpac", "alpaca")):
        with raises(RequestError, f'did you mean "{near}"?'):
            cli(["show", name], standalone_mode=False)


def test_a_bundled_spec_is_shown_beside_a_broken_registry(working_folder):
    DEFAULT_FOLDER.mkdir()
    (DEFAULT_FOLDER / REGISTRY).write_text("{broken")
    said = invoke(cli, "show", "demo_rte")
    assert said.exit_code == 0 and "raw row" in said.stdout


def test_a_registered_dataset_shows_its_records(working_folder):
    """A folder of LLaMA-Factory: data/dataset_info.json, made by hand."""
    (working_folder / "data").mkdir()
    records = [{"instruction": f"q {n}", "output": f"a {n}"} for n in range(3)]
    (working_folder / "data/own.json").write_text(json.dumps(records, indent=1))
    write_json(working_folder / "data/dataset_info.json", {"own": {"file_name": "own.json"}})
    result = invoke(cli, "show", "own", "--row", "2")
    assert result.exit_code == 0
    title, record = result.stdout.strip().split("\n", 1)
    assert title.startswith("record 2, data/own.json:") and json.loads(record) == records[1]
    assert "next: tuneyard data view own" in result.stderr
    for words, facts in ((["--row", "4"], ("row 4", "3 rows")), (["--source", "x"], ("--source",))):
        failed = invoke(cli, "show", "own", *words)
        with raises(RequestError, *facts):
            raise failed.exception
    listed = invoke(cli, "list")
    assert listed.stdout.index("  own  ") < listed.stdout.index("specs")
    assert "next: tuneyard data verify own" in listed.stderr


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_a_row_of_a_second_file_has_the_number_that_a_compile_gives_it(bench, suffix):
    """Rows without ids are numbered over all files of their split, dropped ones with them."""
    rows = [{"sentence1": f"one {n}", "sentence2": f"two {n}", "label": n % 2} for n in range(5)]
    rows[1]["label"] = "-"
    names = [f"train-1.{suffix}", f"train-2.{suffix}", f"dev.{suffix}"]
    parts = dict(zip(names, (rows[:3], rows[3:], rows[:1]), strict=True))
    sources = [
        str(bench.write(name, in_layout(rows_of_file, suffix))) for name, rows_of_file in parts.items()
    ]
    shown = [json.loads(trace_record(sources, number))["idx"] for number in (1, 2, 3, 4, 5)]
    bench.compile("rte", *sources)
    assert shown == [0, 2, 3, 4, 0]
    written = [bench.values(f"alpaca_rte-{split}.json", "idx") for split in ("train", "eval")]
    assert written == [[0, 2, 3, 4], [0]]


def in_layout(rows, suffix):
    if suffix == "csv":
        return "\n".join([",".join(rows[0]), *(",".join(map(str, each.values())) for each in rows)]) + "\n"
    if suffix == "json":
        return json.dumps(rows)
    return "\n".join(map(json.dumps, rows)) + "\n"


def trace_record(sources, number):
    *_, (_, record) = trace(load_spec("rte"), sources, number, None)
    return record


def test_the_list_of_datasets_is_chinese(working_folder):
    """Each line, also those inside the list."""
    assert working_folder.is_dir()
    listed = invoke(cli, "list", "--lang", "zh").stdout.splitlines()
    assert listed[0] == "dataset_info 中的数据集"
    assert listed[1].startswith("  这里没有 dataset_info/ 或 data/")
    assert listed[2] == "自带的数据规格"
