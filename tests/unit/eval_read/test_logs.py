"""Other tools' logs. tests/golden/compare/harness was written by lm-evaluation-harness 0.4.13 itself
(its dummy model on two tasks of our own sentences), so that its form is the real one."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.fake_runs import read_runs
from tests.json_files import write_lines
from tests.messages import printed, raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare import cli
from tuneyard.eval.judge.ask import answer_warnings, check_rows
from tuneyard.eval.read.logs import read_log
from tuneyard.eval.read.logs.harness import HARNESS as HARNESS_FIELDS
from tuneyard.eval.read.logs.plain import FIELDS as PLAIN

HARNESS = ROOT / "tests/golden/compare/harness"


def write(path: Path, *records: dict[str, object]) -> Path:
    write_lines(path, records)
    return path


def harness(row: int, **fields: object) -> dict[str, object]:
    record = {
        "doc_id": row,
        "target": "yes",
        "filtered_resps": ["yes"],
        "filter": "none",
        "metrics": ["exact_match"],
    }
    return record | {"arguments": {"gen_args_0": {"arg_0": "q", "arg_1": {}}}, "exact_match": 1.0} | fields


PLAIN_ROW: dict[str, object] = {"id": 1, "gold": "yes", "prediction": "no"}


def test_a_folder_of_the_harness_is_read_whole() -> None:
    runs, _ = read_runs(HARNESS)
    assert [(run.model, run.dataset) for run in runs] == [
        ("base", "gen2,strict"), ("tuned", "gen2,strict"),
        ("base", "gen2,loose"), ("tuned", "gen2,loose"),
        ("base", "nli3"), ("tuned", "nli3"),
    ]  # fmt: skip
    for run in runs:
        no_labels = "loose" in run.dataset  # but "lol"
        assert bool(answer_warnings(run)) == (no_labels or not any(run.correct))


def test_choices_are_read_by_their_text_and_judged_by_the_harness() -> None:
    (path,) = (HARNESS / "base").glob("samples_nli3_*")
    (run,) = read_log(path)
    assert run.rows == [str(row) for row in range(8)]
    assert run.gold == ["yes", "maybe", "no", "yes", "maybe", "no", "yes", "maybe"]
    assert sum(run.correct) == 2  # acc 0.25 in the harness's own table
    assert run.correct == [a == b for a, b in zip(run.gold, run.predicted, strict=True)]


def test_the_newest_log_of_a_task_counts(tmp_path: Path) -> None:
    write(tmp_path / "samples_t_2026-01-01T10-00-00.000001.jsonl", harness(0, exact_match=0.0))
    write(tmp_path / "samples_t_2026-01-02T10-00-00.000001.jsonl", harness(0))
    (run,) = read_runs(tmp_path)[0]
    assert run.correct == [True] and (run.model, run.dataset) == (tmp_path.name, "t")


def test_choices_that_differ_by_row_are_told_by_their_place(tmp_path: Path) -> None:
    def row(number: int, texts: list[str], scores: list[float], target: str) -> dict[str, object]:
        arguments = {f"gen_args_{i}": {"arg_0": "q", "arg_1": f" {text}"} for i, text in enumerate(texts)}
        responses = [[str(score), "False"] for score in scores]
        return harness(
            number, arguments=arguments, filtered_resps=responses, target=target, metrics=["acc"], acc=1.0
        )

    path = write(
        tmp_path / "samples_t.jsonl",
        row(0, ["sun", "moon"], [-1, -2], "0"),
        row(1, ["a", "b"], [-3, -2], "1"),
    )
    (run,) = read_log(path)
    assert (run.gold, run.predicted) == (["0", "1"], ["0", "1"])


def test_the_harness_decides_what_is_right(tmp_path: Path) -> None:
    older = harness(1, exact_match=0.0, arguments=[["q", {}]])  # as older versions log it
    path = write(tmp_path / "samples_t.jsonl", harness(0, target="Yes."), older)
    assert read_log(path)[0].correct == [True, False]


def test_other_documents_under_the_same_task_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", harness(0, doc_hash="1"))
    second = write(tmp_path / "b.jsonl", harness(0, doc_hash="2"))
    runs, _ = read_runs(f"a/t={first}", f"b/t={second}")
    with raises(RequestError, second, first, "harness"):
        check_rows(runs)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        (
            {"metrics": ["f1"], "exact_match": 0.5},
            "f1; samples_t.jsonl:1; 0; 1",
        ),
        ({"filtered_resps": []}, "filtered_resps"),
        (
            {"filtered_resps": [["x", "y"]], "arguments": {"g": {"arg_1": " yes"}}},
            "",
        ),
        (
            {"filtered_resps": [[10**400, False]], "arguments": {"g": {"arg_1": " yes"}}},
            "",
        ),
        ({"exact_match": float("nan")}, "0; 1"),
        ({"exact_match": None, "metrics": [["f1"], 3]}, "0; 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path: Path, fields: dict[str, object], facts: str) -> None:
    with raises(ContentError, facts):
        read_log(write(tmp_path / "samples_t.jsonl", harness(0, **fields), harness(1, **fields)))


def test_a_row_that_lacks_a_field_is_named(tmp_path: Path) -> None:
    second = harness(1)
    del second["target"]
    with raises(ContentError, "samples_t.jsonl:2"):
        read_log(write(tmp_path / "samples_t.jsonl", harness(0), second))


KEYS = st.sampled_from(["arg_0", "arg_1", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=5,
)
FIELDS = [
    *PLAIN,
    *HARNESS_FIELDS,
    "group",
    "type",
    "subtype",
    "filter",
    "metrics",
    "acc",
    "arguments",
    "doc_hash",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=3),
    st.sampled_from([{}, harness(9), PLAIN_ROW]),
)
def test_whatever_a_log_holds_it_is_read_or_refused_in_words(
    tmp_path: Path, changes: list[dict[str, object]], start: dict[str, object]
) -> None:
    path = write(tmp_path / "x.jsonl", *({**start, **change} for change in changes))
    try:
        for run in read_log(path):
            assert len(run.rows) == len(run.gold) == len(run.predicted) == len(run.correct) > 0
    except ContentError as error:
        assert str(path) in str(error)


def test_only_rows_that_all_have_a_hash_say_which_examples_they_are(tmp_path: Path) -> None:
    for name, last in {"hashed": harness(2, doc_hash="b"), "unhashed": harness(2)}.items():
        path = write(tmp_path / f"samples_{name}.jsonl", harness(1, doc_hash="a"), last)
        (run,) = read_log(path)
        assert ("hashes" in run.facts) == (name == "hashed")


def test_plain_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "tuned.jsonl",
        {"id": "b", "gold": 1, "prediction": 1, "group": 7, "type": "网络"},
        {"id": "a", "gold": 0, "prediction": None, "group": 7, "type": "主机"},
    )
    (run,) = read_log(path)
    assert (run.model, run.dataset, run.rows) == ("tuned", "rows", ["a", "b"])
    assert (run.gold, run.predicted, run.correct) == (["0", "1"], ["", "1"], [False, True])
    assert run.groups == run.kinds("group") == ["7", "7"] and run.kinds("type") == ["主机", "网络"]


@pytest.mark.usefixtures("unrendered")
def test_logs_without_hashes_are_paired_with_one_warning_after_the_verdict(tmp_path: Path) -> None:
    """Of 13 models on two datasets: one warning instead of 24, and at most 30 lines in all."""
    rows = [{"id": n, "gold": "yes", "prediction": "yes"} for n in range(3)]
    named = []
    for model in range(13):
        for dataset in ("s", "t"):
            path = write(tmp_path / f"{model}-{dataset}.jsonl", *rows)
            named.append(f"m{model}/{dataset}={path}")
    finished = CliRunner().invoke(cli, [*named, "--out", str(tmp_path / "out")])
    first, *lines = finished.stdout.splitlines()
    warnings = [line for line in finished.stderr.splitlines() if "warning: " in line]  # not the bar of plots
    assert first.startswith("Keep m0") and len(lines) + len(warnings) < 30
    (warning,) = [line for line in warnings if "paired by row" in line]
    printed(warning, "warning: 26 of 26 runs", "0-s.jsonl")
