"""Other tools' logs. tests/golden/compare/harness was written by lm-evaluation-harness 0.4.13 itself
(its dummy model on two tasks of our own sentences), so that its form is the real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.fake_runs import read_runs
from tests.json_files import read_lines, write_lines
from tests.messages import printed, raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli
from tuneyard.eval.judge.ask import check_rows, compare_runs, wrong_answers
from tuneyard.eval.judge.findings import DifferentSettings
from tuneyard.eval.runs.find import parse_source, read_scored_runs
from tuneyard.eval.runs.logs import log_reader, read_log
from tuneyard.eval.runs.logs.harness import HARNESS as HARNESS_FIELDS
from tuneyard.eval.runs.logs.plain import FIELDS as PLAIN

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
        assert bool(wrong_answers(run)) == (no_labels or not any(run.correct))


def test_choices_are_read_by_their_text_and_judged_by_the_harness() -> None:
    (path,) = (HARNESS / "base").glob("samples_nli3_*")
    (run,) = read_log(path)
    assert run.rows == [str(row) for row in range(8)]
    assert run.gold == ["yes", "maybe", "no", "yes", "maybe", "no", "yes", "maybe"]
    assert sum(run.correct) == 2  # acc 0.25 in the harness's own table
    assert run.correct == [a == b for a, b in zip(run.gold, run.predicted, strict=True)]


@pytest.mark.parametrize("metric", ["pass@1", "pass_at_1"])
def test_programs_that_the_harness_ran_are_compared_by_its_judgement(tmp_path: Path, metric: str) -> None:
    """HumanEval: the target is the call of the tests, and the answer a program in two lists."""
    passed = {"base": [1.0, 0.0, 0.0, 1.0], "tuned": [1.0, 1.0, 0.0, 1.0]}
    for model, scores in passed.items():
        rows = []
        for row, score in enumerate(scores):
            judged = {"metrics": [metric], metric: score, "filter": "create_test"}
            program = f"def task{row}():\n    return {score}\n"
            rows.append(harness(row, target=f"check(task{row})", filtered_resps=[[program]], **judged))
            del rows[-1]["exact_match"]
        (tmp_path / model).mkdir()
        write(tmp_path / model / "samples_humaneval_2026-01-01T10-00-00.000001.jsonl", *rows)
    runs, _ = read_runs(tmp_path)
    assert {run.model: [float(answer) for answer in run.correct] for run in runs} == passed
    done = CliRunner().invoke(cli, [str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    table = (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert "75.0 %" in table and "50.0 %" in table


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


@pytest.mark.parametrize("as_lists", [True, False])
def test_arguments_of_old_versions_are_lists(tmp_path: Path, as_lists: bool) -> None:
    """Older versions log [prompt, choice]: 9 rows, 3 labels, `no` is always chosen."""
    labels = ["yes", "maybe", "no"]
    rows = []
    for row in range(9):
        arguments: object = [["q", f" {label}"] for label in labels]
        if not as_lists:
            arguments = {
                f"gen_args_{n}": {"arg_0": "q", "arg_1": f" {text}"} for n, text in enumerate(labels)
            }
        scores = [["-2.5", "False"], ["-3.0", "False"], ["-0.5", "True"]]
        right = float(row % 3 == 2)
        rows.append(
            harness(row, target=str(row % 3), arguments=arguments, filtered_resps=scores, acc=right)
            | {"metrics": ["acc"]}
        )
    (run,) = read_log(write(tmp_path / "samples_t.jsonl", *rows))
    assert run.gold == labels * 3
    assert run.predicted == ["no"] * 9
    assert sum(run.correct) == 3
    assert run.confidence is not None


def test_lists_of_arguments_give_the_f1_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    target, chosen = [0, 1, 2, 0, 1, 2], [0, 1, 1, 2, 1, 0]
    for model, choice in (("base", [0, 0, 0, 0, 0, 0]), ("tuned", chosen)):
        rows = []
        for row, (expected, place) in enumerate(zip(target, choice, strict=True)):
            scores = [["-9.0", "False"]] * 3
            scores[place] = ["-0.1", "True"]
            row_of = harness(row, target=expected, filtered_resps=scores, acc=float(expected == place))
            rows.append(row_of | {"arguments": [["q", " a"], ["q", " b"], ["q", " c"]], "metrics": ["acc"]})
        (tmp_path / model).mkdir()
        write(tmp_path / model / "samples_t_2026-01-01T10-00-00.1.jsonl", *rows)
    compared = compare_runs(read_scored_runs([parse_source(str(tmp_path))])[0])
    macro_f1 = compared.comparison.sections[0].figures["tuned"].macro_f1
    assert macro_f1 is not None
    assert macro_f1[0] == pytest.approx(f1_score(target, chosen, average="macro"))


def test_a_metric_of_logs_of_one_name_keeps_both_models(tmp_path: Path) -> None:
    for model, value in (("base", 0.25), ("tuned", 0.75)):
        (tmp_path / model).mkdir()
        for task in ("s", "t"):
            rows = [harness(row, f1=value, metrics=["f1"]) for row in range(3)]
            write(tmp_path / model / f"samples_{task}_2026-01-01T10-00-00.1.jsonl", *rows)
    runs, _ = read_scored_runs([parse_source(str(tmp_path))], "f1")
    assert {dataset: list(by_model) for dataset, by_model in runs.items()} == {
        "s": ["base", "tuned"], "t": ["base", "tuned"],
    }  # fmt: skip
    assert runs["t"]["tuned"].column("f1") == [0.75] * 3


def test_a_metric_of_a_harness_log_with_two_filters_is_two_datasets(tmp_path: Path) -> None:
    rows = [harness(row, f1=0.5, filter=name) for row in range(2) for name in ("strict", "loose")]
    path = write(tmp_path / "samples_t.jsonl", *rows)
    runs, _ = read_scored_runs([parse_source(str(path))], "f1")
    assert list(runs) == ["t,strict", "t,loose"]


def test_other_files_of_one_name_with_other_values_are_not_dropped(tmp_path: Path) -> None:
    paths = []
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        paths.append(write(tmp_path / folder / "rows.jsonl", {"id": 1, "loss": value}))
    with raises(RequestError, "first=", "second="):
        read_scored_runs([parse_source(str(path)) for path in paths], "loss")
    runs, _ = read_scored_runs([parse_source(f"m{n}={path}") for n, path in enumerate(paths)], "loss")
    assert list(runs["rows"]) == ["m0", "m1"]


@pytest.mark.parametrize(
    ("gold", "prediction", "correct"),
    [
        (True, "true", True),
        ("true", True, True),
        (False, "False.", True),
        (1, "1.0", True),
        ("1.0", 1, True),
        ("-2", "-2.0", True),
        ("1.1", "1.10", False),
        ("1.5", "1.50", False),
        ("10", "1.0", False),
        ("yes", "Yes.", True),
        ("是", " 是。", True),
        ("yes", "yes!", False),
        ("yes", "yes..", False),
        ("caf\u00e9", "cafe\u0301", True),
        ("STRASSE", "straße", True),
        (".", "", False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], '["a", "b"]', True),
        (["a", "b"], ["b", "a"], False),
        ({"b": 1, "a": [True, None]}, {"a": [True, None], "b": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1, "b": 2}, ' {"b":2,"a":1.0}', True),
        ([1.0, "x"], '[1,"x"]', True),
        ([1], ["1"], False),
        ("[yes", "[yes.", True),
        (["a"], "a", False),
    ],
)
def test_one_rule_says_which_answers_are_equal(
    tmp_path: Path, gold: object, prediction: object, correct: bool
) -> None:
    rows = [{"id": 1, "gold": gold, "prediction": prediction}, {"id": 2, "gold": "z", "prediction": "z"}]
    (run,) = read_log(write(tmp_path / "x.jsonl", *rows))
    assert run.correct == [correct, True]
    assert (run.gold[0] == run.predicted[0]) == correct  # macro-F1 is that of the spelling


def test_lists_and_objects_are_json_text(tmp_path: Path) -> None:
    row = {"id": 1, "gold": [{"text": "网络"}, True, None], "prediction": {"b": "x", "a": 1}}
    (run,) = read_log(write(tmp_path / "x.jsonl", row))
    assert run.gold == ['[{"text": "网络"}, true, null]']
    assert run.predicted == ['{"a": 1, "b": "x"}']
    harnesses = harness(0, target=["a", "b"], filtered_resps=[{"x": True}])
    (run,) = read_log(write(tmp_path / "samples_t.jsonl", harnesses))
    assert (run.gold, run.predicted) == (['["a", "b"]'], ['{"x": true}'])


def of_choices(
    number: int, arguments: list[list[str]], logs: list[float], **fields: object
) -> dict[str, object]:
    """A row whose choices have these log-probabilities."""
    responses = [[str(log), "False"] for log in logs]
    row = harness(number, arguments=arguments, filtered_resps=responses, metrics=["acc"], **fields)
    del row["exact_match"]
    return row


def test_choices_that_the_harness_also_asked_without_the_question_are_no_further_choices(
    tmp_path: Path,
) -> None:
    arguments = [["q", " yes"], ["q", " no"], ["", " yes"], ["", " no"]]  # acc_mutual_info
    rows = [
        of_choices(0, arguments, [-1, -2, -0.9, -0.1], target=0, acc=1.0),
        of_choices(1, arguments, [-1, -2, -0.9, -0.1], target=1, acc=0.0),
    ]
    (run,) = read_log(write(tmp_path / "samples_t.jsonl", *rows))
    assert (run.gold, run.predicted, run.correct) == (["yes", "no"], ["yes", "yes"], [True, False])


def test_the_only_continuation_of_a_row_is_its_answer_if_it_was_the_likeliest(tmp_path: Path) -> None:
    rows = [of_choices(n, [["q", f" w{n}"]], [-1], target=f"w{n}", acc=float(n)) for n in range(2)]  # LAMBADA
    (run,) = read_log(write(tmp_path / "samples_t.jsonl", *rows))
    assert (run.gold, run.predicted, run.correct) == (["w0", "w1"], ["", "w1"], [False, True])


def test_equal_expected_answers_of_two_logs_are_spelled_alike(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *({"id": n, "gold": n < 2, "prediction": "true"} for n in range(4)))
    second = write(
        tmp_path / "b.jsonl",
        *({"id": n, "gold": ["true", "false."][n >= 2], "prediction": "False"} for n in range(4)),
    )
    runs, _ = read_runs(first, second)
    assert check_rows(runs) == []
    assert runs[0].gold == runs[1].gold == ["True", "True", "False", "False"]
    assert runs[1].predicted == ["False"] * 4


def test_the_harness_decides_what_is_right(tmp_path: Path) -> None:
    older = harness(1, exact_match=0.0, arguments=[["q", {}]])  # as older versions log it
    path = write(tmp_path / "samples_t.jsonl", harness(0, target="Yes."), older)
    assert read_log(path)[0].correct == [True, False]


def test_models_that_other_metrics_judged_get_a_warning(tmp_path: Path) -> None:
    """f1 is 0 or 1 in each row of the first model by chance, and em judges the second."""
    rows = {
        "base": [{"f1": 0.0, "em": 0.0}, {"f1": 1.0, "em": 0.0}],
        "tuned": [{"f1": 0.5, "em": 0.0}, {"f1": 1.0, "em": 1.0}],
    }
    for model, scores in rows.items():
        (tmp_path / model).mkdir()
        records = [
            harness(n, metrics=["f1", "em"], exact_match=None, **figures) for n, figures in enumerate(scores)
        ]
        write(tmp_path / model / "samples_t.jsonl", *records)
    runs, _ = read_scored_runs([parse_source(str(tmp_path))])
    (finding,) = [one for one in compare_runs(runs).findings if isinstance(one, DifferentSettings)]
    assert finding.differences == (("score", "em", "f1"),)


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


def test_a_record_without_a_field_that_a_reader_needs_is_named(tmp_path: Path) -> None:
    @log_reader("needs", "a log whose records have a score", ".jsonl", fields=(("id",),))
    def records(path: Path) -> Iterator[dict[str, object]]:
        for record in read_lines(path):
            yield {"id": record["id"], "correct": record["score"] > 0}

    write(tmp_path / "log.jsonl", {"id": 1, "score": 1}, {"id": 2})
    with raises(ContentError, "log.jsonl", "score"):
        list(records.records(tmp_path / "log.jsonl"))
