"""Results of other tools: CSV, Parquet, LLaMA-Factory, and OpenAI's evals by the plug-in of the docs."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pytest
from pyarrow import parquet

from testing.peers import installed
from tests.cli.scoring import call
from tests.fake_runs import by_dataset, read_runs
from tests.json_files import read_json, write_json, write_lines
from tests.messages import raises
from tests.plug_ins import documented, installing
from tuneyard.core import plugins
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.report.html import collect_incorrect
from tuneyard.eval.runs import logs, tables
from tuneyard.eval.runs.find import parse_source, read_scored_runs
from tuneyard.eval.runs.logs import log_readers, read_log

ROWS = [
    {"id": "b", "gold": "yes", "prediction": "yes", "cluster": "x", "question": "Is 2 even?"},
    {"id": "a", "gold": "no", "prediction": "yes", "cluster": "y", "question": "Is 1 even?"},
]


def as_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def as_tsv(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text(as_csv(path, rows).read_text(encoding="utf-8").replace(",", "\t"), encoding="utf-8")
    return path


def as_parquet(path: Path, rows: list[dict[str, str]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def as_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    write_lines(path, rows)
    return path


WRITERS = {".csv": as_csv, ".tsv": as_tsv, ".parquet": as_parquet, ".jsonl": as_lines}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_is_the_same_run_in_each_format(tmp_path: Path, suffix: str) -> None:
    rows = [{**row, "prediction": " yes", "confidence": "0.75"} for row in ROWS]
    (run,) = read_log(WRITERS[suffix](tmp_path / f"tuned{suffix}", rows))
    assert (run.model, run.dataset, run.rows) == ("tuned", "rows", ["a", "b"])
    assert (run.gold, run.predicted, run.correct) == (["no", "yes"], ["yes", "yes"], [False, True])
    assert run.groups == ["y", "x"] and run.confidence == [0.75, 0.75]
    (incorrect,) = collect_incorrect(by_dataset([run]), 10)
    assert [row["question"] for row in incorrect.rows] == ["Is 1 even?"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_is_read_without_thoughts(tmp_path: Path, suffix: str) -> None:
    outputs = ["<think>\nno?\n</think>\n\nyes", "is it?</think> no", "<think>no or no", "yes"]
    rows = [{"id": str(n), "gold": "yes", "prediction": text} for n, text in enumerate(outputs)]
    rows[3]["gold"] = "<think>\n\n</think>\n\nyes"  # as an answer of a thinking dataset is labelled
    (run,) = read_log(WRITERS[suffix](tmp_path / f"tuned{suffix}", rows))
    assert run.predicted == ["yes", "no", "", "yes"]
    assert run.correct == [True, False, False, True]
    (incorrect,) = collect_incorrect(by_dataset([run]), 10)
    assert [row["answers"][0]["output"] for row in incorrect.rows] == outputs[1:3]


def test_thoughts_in_llamafactorys_predictions_do_not_turn_the_verdict_round(tmp_path: Path) -> None:
    """The base thinks, and answers 9 of 12 right; the tuned model answers 7 of 12."""
    for model, thought, right in (("base", "<think>\nno?\n</think>\n\n", 9), ("tuned", "", 7)):
        lines = [
            {"prompt": f"q{n}", "predict": thought + ("no", "yes")[n < right], "label": "yes"}
            for n in range(12)
        ]
        (tmp_path / model).mkdir()
        write_lines(tmp_path / model / "generated_predictions.jsonl", lines)
    runs, _ = read_runs(tmp_path)
    assert {run.model: sum(run.correct) for run in runs} == {"base": 9, "tuned": 7}


def test_thoughts_in_results_of_the_guide_are_cut(tmp_path: Path) -> None:
    results = [
        {"expected": "yes", "predicted": "<think>no?</think>yes"},
        {"expected": "yes", "predicted": "<think>no?</think>yes", "is_correct": False},
    ]
    write_json(tmp_path / "evaluation_results.json", {"results": results})
    (run,) = read_log(tmp_path / "evaluation_results.json")
    assert (run.predicted, run.correct) == (["yes", "yes"], [True, False])


@pytest.mark.parametrize("value", ["high", 87, True, "nan", [0.5]])
def test_a_confidence_that_is_no_share_is_refused_at_its_line(tmp_path: Path, value: object) -> None:
    path = as_lines(tmp_path / "tuned.jsonl", [{**ROWS[0], "confidence": value}])
    with raises(ContentError, "tuned.jsonl:1", "confidence"):
        read_log(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_row_that_lacks_a_field_is_named_with_its_place(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"x{suffix}", [*ROWS, {**ROWS[0], "id": ""}])
    place = {".parquet": f"{path} row 3", ".jsonl": f"{path}:3"}
    with raises(ContentError, place.get(suffix, f"{path}:4")):
        read_log(path)


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("x.csv", b"id,gold,prediction\n1,yes\n", "x.csv:2; 2; 3"),
        ("x.csv", b"id;gold;prediction\n1;yes\n", "x.csv:2; 2; 3"),
        ("x.csv", b"id,gold,gold,prediction\n1,a,b,c\n", "gold; x.csv:1"),
        ("x.csv", b"id,gold,prediction\n1,\xff,yes\n", "x.csv:2; UTF-8; byte 2"),
        ("x.csv", b'id,gold,prediction\n1,"yes,no\n', "CSV"),
        ("x.csv", b"", ""),
        ("x.csv", b"id,gold,prediction\n", ""),
        ("x.parquet", b"PAR1 and no more", ""),
        ("x.json", b"[1, 2]", "JSON; 2"),
        ("x.json", b'{"id": 1}\n{"id": 2}\n', "x.jsonl"),
        ("x.txt", b"id", ""),
        ("generated_predictions.jsonl", b'{"predict": "a", "label": 3}\n', "jsonl:1; label; 3"),
    ],
)
def test_a_broken_or_unknown_file_is_refused_in_words(
    tmp_path: Path, name: str, content: bytes, facts: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with raises(ContentError, facts):
        read_log(tmp_path / name)


def table_with_text_that_is_no_utf8() -> pa.Table:
    offsets = pa.py_buffer(b"".join(number.to_bytes(4, "little") for number in (0, 2)))
    text = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))
    return pa.table({"id": pa.array(["1"]), "gold": pa.array(["yes"]), "prediction": text})


def table_with_a_date_beyond_python() -> pa.Table:
    date = pa.array([2**62], pa.timestamp("us"))
    return pa.table({"id": date, "gold": pa.array(["yes"]), "prediction": pa.array(["yes"])})


@pytest.mark.parametrize("table", [table_with_text_that_is_no_utf8, table_with_a_date_beyond_python])
def test_a_cell_that_python_cannot_hold_is_an_error_with_its_place(
    tmp_path: Path, table: Callable[[], pa.Table]
) -> None:
    parquet.write_table(table(), tmp_path / "x.parquet")
    with raises(ContentError, "row 0", "x.parquet"):
        read_log(tmp_path / "x.parquet")


@pytest.mark.parametrize("as_dictionary", [True, False])
def test_a_parquet_that_unpacks_beyond_its_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_dictionary: bool
) -> None:
    monkeypatch.setattr(tables, "LARGEST_TABLE", 1 << 24)
    text = pa.array(["x" * (1 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 40, pa.int32()), text)
    if not as_dictionary:
        column = column.dictionary_decode()
    table = pa.table({"id": range(40), "gold": column, "prediction": column})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 1 << 20
    with raises(ContentError, "x.parquet", "GiB"):
        read_log(tmp_path / "x.parquet")


def test_whole_numbers_equal_those_that_a_table_wrote_as_floats(tmp_path: Path) -> None:
    rows = {"id": [1.0, 2.0], "gold": [1, 0], "prediction": [1.0, None]}
    parquet.write_table(pa.table(rows), tmp_path / "x.parquet")
    (run,) = read_log(tmp_path / "x.parquet")
    assert (run.rows, run.correct) == (["1", "2"], [True, False])


def test_a_cell_may_be_as_long_as_a_prompt(tmp_path: Path) -> None:
    (run,) = read_log(as_csv(tmp_path / "x.csv", [*ROWS, {**ROWS[0], "id": "c", "question": "x" * 200_000}]))
    assert len(run.rows) == 3


def test_an_unknown_file_is_told_every_format(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"answers": 1}')
    with pytest.raises(ContentError) as refused:
        read_log(tmp_path / "x.json")
    for reader in log_readers().values():
        assert reader.about in str(refused.value)
    assert len(log_readers()) >= 4


def test_a_metric_is_not_read_from_a_table(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "x.csv", ROWS)
    with raises(RequestError, "--metric"):
        read_scored_runs([parse_source(str(path))], "loss")


def test_llamafactorys_predictions_in_the_working_folder_are_called_as_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(tmp_path / "tuned")
    as_lines(Path("generated_predictions.jsonl"), [{"prompt": "a", "predict": "b", "label": "b"}])
    (run,) = read_log(Path("generated_predictions.jsonl"))
    assert run.model == "tuned"


def test_llamafactorys_predictions_are_found_in_an_output_dir_and_paired_by_line(tmp_path: Path) -> None:
    answers = {"before": ["no", "yes\n", "maybe"], "after": ["yes", "yes", "no"]}
    for name, predictions in answers.items():
        (tmp_path / name).mkdir()
        rows = [
            {"prompt": f"user\nIs {n} even?", "predict": text, "label": "yes"}
            for n, text in enumerate(predictions)
        ]
        as_lines(tmp_path / name / "generated_predictions.jsonl", rows)
        (tmp_path / name / "all_results.json").write_text('{"predict_loss": 1}')
    runs, _ = read_runs(*(tmp_path / name for name in answers))
    assert [(run.model, run.correct) for run in runs] == [
        ("before", [False, True, False]),
        ("after", [True, True, False]),
    ]
    call(compare, tmp_path / "before", tmp_path / "after", "--out", tmp_path / "out")
    table = read_json(tmp_path / "out/table.json")
    assert table["base"] == "before" and table["datasets"]["rows"]["n"] == 3
    (incorrect,) = collect_incorrect(by_dataset(runs), 10)
    assert "Is 2 even?" in incorrect.rows[-1]["question"]
    assert incorrect.rows[-1]["answers"][0]["output"] == "maybe"


def example() -> str:
    """Under another name, so that the documented file can also be in eval/runs/logs/."""
    return documented("@log_reader").replace("openai_evals", "plugged_evals")


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install the worked example, or other code, as a package with an entry point."""
    with installing(tmp_path / "site", "tuneyard.logs", monkeypatch, log_readers) as lay:
        yield partial(lay, "plugged_evals")


def openai_log(path: Path, picked: list[str | None]) -> Path:
    """A log as OpenAI's evals writes it (evals/record.py of version 3): a line for each event."""
    spec = {"completion_fns": [path.stem], "base_eval": "even", "split": "dev", "run_id": "r"}
    lines: list[dict[str, object]] = [{"spec": spec}]
    for n, answer in enumerate(picked):
        sampled = answer or "I do not know."
        asked = {"prompt": f"Is {n} even?", "sampled": [sampled]}
        match = {"correct": answer == "yes", "expected": "yes", "picked": answer, "sampled": sampled}
        for kind, data in (("sampling", asked), ("match", match)):
            event = {"run_id": "r", "event_id": len(lines), "sample_id": f"even.dev.{n}", "type": kind}
            lines.append({**event, "data": data, "created_by": "", "created_at": ""})
    write_lines(path, [*lines, {"final_report": {"accuracy": 0.5}}])
    return path


def test_the_worked_example_reads_openai_evals(
    plug_in: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in(example())
    before = openai_log(tmp_path / "before.jsonl", ["no", "yes", None])
    after = openai_log(tmp_path / "after.jsonl", ["yes", "yes", None])
    (run,) = read_log(after)
    assert (run.model, run.dataset, run.rows) == ("after", "even", ["even.dev.0", "even.dev.1", "even.dev.2"])
    assert run.correct == [True, True, False]
    call(compare, before, after, "--out", tmp_path / "out")
    assert read_json(tmp_path / "out/table.json")["base"] == "before"
    assert "even, n = 3" in capsys.readouterr().out
    (incorrect,) = collect_incorrect(by_dataset([run]), 10)
    assert incorrect.rows[0]["answers"][0]["output"] == "I do not know."
    broken = openai_log(tmp_path / "broken.jsonl", ["yes"])
    broken.write_text(broken.read_text().replace("expected", "wanted"))
    with raises(ContentError, "broken.jsonl:3", "expected"):
        read_log(broken)


@pytest.mark.parametrize("body", ["raise KeyError('samples')", "yield 3"])
def test_a_plug_in_that_fails_is_named(plug_in: Callable[[str], None], tmp_path: Path, body: str) -> None:
    code = f"""
        from tuneyard.eval.runs.logs import log_reader

        @log_reader("plugged_evals", "logs", ".jsonl", fields=(("plugged",),))
        def plugged_evals(path):
            {body}
            yield
    """
    plug_in(dedent(code))
    write_lines(tmp_path / "x.jsonl", [{"plugged": 1}])
    with raises(plugins.PluginError, "plugged_evals", "plug_plugged_evals 1.2"):
        read_log(tmp_path / "x.jsonl")


REAL = """
import sys
import tiktoken


class Words:
    \"\"\"Counts tokens without the vocabulary that tiktoken downloads.\"\"\"

    def encode(self, text, **_):
        return text.split()


tiktoken.get_encoding = tiktoken.encoding_for_model = lambda *_: Words()
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate

samples = [Sample(id=f"q{n}", input=f"Is {n} even?", target="no" if n % 2 else "yes") for n in range(4)]
outputs = [ModelOutput.from_content("mockllm/model", "yes")] * 4
task = Task(name="even", dataset=samples, solver=generate(), scorer=match(location="exact"))
model = get_model("mockllm/model", custom_outputs=outputs)
eval(task, model=model, log_dir=sys.argv[1], log_format=sys.argv[2], display="none")
"""


@pytest.mark.peer
@pytest.mark.parametrize("form", ["eval", "json"])
def test_both_forms_of_a_log_are_read_as_inspect_ai_writes_them(tmp_path: Path, form: str) -> None:
    folder = installed("inspect", "inspect_ai==0.3.285", alone=True)
    (tmp_path / "task.py").write_text(REAL)
    done = subprocess.run(
        [sys.executable, tmp_path / "task.py", tmp_path / "logs", form],
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    (log,) = (tmp_path / "logs").glob(f"*.{form}")
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = read_log(log)
    assert (run.model, run.dataset) == ("mockllm-model", "even")
    assert run.gold == ["yes", "no", "yes", "no"] and run.correct == [True, False, True, False]


def test_a_format_is_recognised_by_the_header_whatever_the_first_row_lacks(tmp_path, monkeypatch) -> None:
    @logs.log_reader("tool", "a table", ".csv", fields=(("sample", "target", "answer"),))
    def tool(path: Path):
        for row in logs.TABLES[".csv"](path):
            yield {"id": row["sample"], "gold": row["target"], "prediction": row["answer"]}

    monkeypatch.setattr(logs, "log_readers", lambda: {"tool": tool})
    (tmp_path / "t.csv").write_text("sample,target,answer\n1,yes,\n2,no,no\n")
    (run,) = logs.read_log(tmp_path / "t.csv")
    assert run.correct == [False, True]
    assert "place" not in logs._first_fields(tmp_path / "t.csv")
