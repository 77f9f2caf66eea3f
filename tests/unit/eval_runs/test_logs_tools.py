"""Logs that other tools wrote: tests/golden/compare/tools, by tools/logs, which names their versions.

Of six questions `base` answers yes to all and is right in the 1st, 3rd and 5th. `tuned` is wrong in the 6th.
"""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.cli.scoring import call
from tests.conftest import ROOT
from tests.fake_runs import read_runs
from tests.json_files import read_json, write_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.runs.archives import json_members, member_names
from tuneyard.eval.runs.find import parse_source, read_scored_runs
from tuneyard.eval.runs.logs import inspect_ai, read_log

TOOLS = ROOT / "tests/golden/compare/tools"
RIGHT = {"base": [True, False] * 3, "tuned": [True] * 5 + [False]}
LABELS = {"base": ["yes"] * 6, "tuned": ["yes", "no", "yes", "no", "yes", "yes"]}
DATASETS = {
    "inspect_ai/*_even_*.eval": ["even"],
    "lighteval": ["even_choices|0", "even|0"],
    "evalscope/reviews/*/general_mcq_even.jsonl": ["general_mcq_even"],
    "opencompass/results/*/even.json": ["even"],
    "opencompass/results/*/even_plain.json": ["even_plain"],
    "opencompass/results/*/even_choices.json": ["even_choices"],
    "promptfoo/even_results.json": ["even"],
    "promptfoo/even.jsonl": ["even"],
}


def logs(pattern: str) -> list[Path]:
    return sorted(TOOLS.glob(pattern))


@pytest.mark.parametrize("pattern", DATASETS)
def test_answers_are_those_that_the_tool_judged(pattern: str) -> None:
    runs, _ = read_runs(*logs(pattern))
    assert sorted({run.dataset for run in runs}) == DATASETS[pattern]
    assert len(runs) == 2 * len(DATASETS[pattern])
    for run in runs:
        model = run.model.removeprefix("mockllm-").removeprefix("made-up-")
        answers = LABELS[model]
        if "mcq" in run.dataset:
            answers = [{"yes": "A", "no": "B"}[answer] for answer in answers]
        assert run.correct == RIGHT[model]
        assert run.predicted == answers
        assert len(set(run.gold)) == 2 and run.gold[0] == answers[0]
        assert run.groups is None


def test_macro_f1_of_a_log_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    runs, _ = read_runs(*logs("inspect_ai/*_even_*.eval"))
    for run in runs:
        assert run.gold == ["yes", "no"] * 3
        model = run.model.removeprefix("mockllm-")
        assert f1_score(run.gold, run.predicted, average="macro") == pytest.approx(
            {"base": 1 / 3, "tuned": 29 / 35}[model]  # (2·3/9 + 0)/2 and (6/7 + 4/5)/2
        )


@pytest.mark.parametrize(
    ("folder", "models"),
    [
        ("inspect_ai", ["mockllm-base", "mockllm-tuned"]),
        ("lighteval", ["made-up-base", "made-up-tuned"]),
        ("opencompass", ["base", "tuned"]),
        ("opencompass/results", ["base", "tuned"]),
    ],
)
def test_a_folder_of_a_tool_is_found(folder: str, models: list[str]) -> None:
    runs, _ = read_runs(TOOLS / folder) if folder != "inspect_ai" else read_runs(*logs("inspect_ai/*_even_*"))
    assert sorted({run.model for run in runs}) == models


def test_a_folder_of_evalscope_is_found_from_outside_and_inside(tmp_path: Path) -> None:
    reviews = tmp_path / "outputs/20260101_101010/reviews"
    for model in RIGHT:
        (reviews / model).mkdir(parents=True)
        (log,) = logs(f"evalscope/reviews/{model}/general_mcq_even.jsonl")
        (reviews / model / log.name).write_bytes(log.read_bytes())
    for folder in (tmp_path / "outputs", reviews.parent, reviews, reviews / "tuned"):
        runs, _ = read_runs(folder)
        assert {run.model for run in runs} <= RIGHT.keys()
        assert len(runs) == (1 if folder.name == "tuned" else 2)


def test_of_two_runs_of_lighteval_the_newest_counts(tmp_path: Path) -> None:
    (old,) = logs("lighteval/details/made-up/base/*/details_even|0_*")
    (new,) = logs("lighteval/details/made-up/tuned/*/details_even|0_*")
    for date, log in (("2026-01-02T10-00-00.000001", new), ("2026-01-01T10-00-00.000001", old)):
        folder = tmp_path / "details/me/mine" / date
        folder.mkdir(parents=True)
        (folder / f"details_even|0_{date}.parquet").write_bytes(log.read_bytes())
    (run,) = read_runs(tmp_path)[0]
    assert (run.model, run.correct) == ("me-mine", RIGHT["tuned"])


def test_of_a_run_of_inspect_and_its_retry_the_newest_counts(tmp_path: Path) -> None:
    (log,) = logs("inspect_ai/*_graded_*")
    (tmp_path / "2026-01-01T10-00-00-00-00_even_abc.eval").write_text("broken off")
    for other in logs("inspect_ai/*_even_*"):
        (tmp_path / "2026-01-02T10-00-00-00-00_even_abc.eval").write_bytes(other.read_bytes())
    (run,) = read_runs(tmp_path)[0]
    assert run.model == "mockllm-tuned" and log not in tmp_path.iterdir()


@pytest.mark.parametrize(
    ("sources", "metric", "values"),
    [
        # letters of samples 1 to 4 in turn: I, P, N, C; the mean of 0, 0.5, 0 and 1
        (["inspect_ai/*_graded_*"], "grade", {"mockllm-tuned": [0, 0.5, 0, 1] * 2}),
        (["inspect_ai/*_graded_*"], "parts.form", {"mockllm-tuned": [1] * 8}),
        (["inspect_ai/*_graded_*"], "parts.tone", {"mockllm-tuned": [0.25] * 8}),
        (["inspect_ai/*_even_*"], "match", {"mockllm-base": RIGHT["base"], "mockllm-tuned": RIGHT["tuned"]}),
        (
            ["lighteval/details/made-up/*/*/details_even|0_*"],
            "f1",
            {"made-up-base": RIGHT["base"], "made-up-tuned": RIGHT["tuned"]},
        ),
        # yes, no, yes, no to two questions asked twice, of which the answers are yes and no
        (["evalscope/reviews/tuned/general_qa_even.jsonl"], "Rouge-1-F", {"tuned": [1, 0, 0, 1]}),
        (["opencompass/results/*/even.json"], "correct", RIGHT),
        (["promptfoo/even_results.json"], "score", RIGHT),
        (["promptfoo/even.jsonl"], "pass", RIGHT),
    ],
)
def test_scores_are_compared_by_metric(
    sources: list[str], metric: str, values: dict[str, list[float]]
) -> None:
    paths = [parse_source(str(path)) for pattern in sources for path in logs(pattern)]
    runs, _ = read_scored_runs(paths, metric)
    (by_model,) = runs.values()
    assert by_model.keys() == values.keys()
    for model, run in by_model.items():
        assert run.column(metric) == pytest.approx([float(value) for value in values[model]], abs=1e-6)


def test_rows_that_repeat_a_question_are_a_cluster() -> None:
    (graded,) = logs("inspect_ai/*_graded_*")
    runs, _ = read_scored_runs([parse_source(str(graded))], "grade")
    (run,) = runs["graded"].values()
    assert run.rows[:2] == ["1", "2"] and run.rows[-1] == "4, epoch 2"
    assert run.groups == ["1", "2", "3", "4"] * 2
    (twice,) = read_log(TOOLS / "opencompass/results/tuned/even_twice.json")
    assert len(twice.rows) == 12 and len(set(twice.groups or [])) == 6
    assert twice.correct == RIGHT["tuned"] * 2
    prompts = read_log(TOOLS / "promptfoo/prompts_results.json")
    assert [(run.model, run.dataset) for run in prompts] == [
        ("base", "prompts,prompt 1"), ("base", "prompts,prompt 2"),
        ("tuned", "prompts,prompt 1"), ("tuned", "prompts,prompt 2"),
    ]  # fmt: skip
    assert prompts[0].groups == ["0", "0", "2", "2"]
    assert prompts[0].correct == [True, True, False, False]
    (answers,) = logs("evalscope/reviews/tuned/general_qa_even.jsonl")
    runs, _ = read_scored_runs([parse_source(str(answers))], "Rouge-1-F")
    (run,) = runs["general_qa_even"].values()
    assert run.groups == ["0", "0", "1", "1"]


@pytest.mark.parametrize(
    ("pattern", "dataset", "options", "difference"),
    [
        ("inspect_ai/*_even_*", "even", [], 2 / 6),
        ("inspect_ai/*_even_*", "even", ["--metric", "match"], 2 / 6),
        ("lighteval/details/*/*/*/details_even|0_*", "even|0", [], 2 / 6),
        ("lighteval/details/*/*/*/details_even|0_*", "even|0", ["--metric", "f1"], 2 / 6),
        ("evalscope/reviews/*/general_mcq_even.jsonl", "general_mcq_even", [], 2 / 6),
        ("opencompass/results/*/even_twice.json", "even_twice", [], 2 / 6),
        ("opencompass/results/*/even.json", "even", ["--metric", "correct"], 2 / 6),
        ("promptfoo/even_results.json", "even", [], 2 / 6),
        ("promptfoo/even.jsonl", "even", ["--metric", "score"], 2 / 6),
    ],
)
def test_two_models_of_a_tool_are_compared_with_an_interval(
    tmp_path: Path, pattern: str, dataset: str, options: list[str], difference: float
) -> None:
    call(compare, *logs(pattern), *options, "--out", tmp_path / "out")
    (comparison,) = read_json(tmp_path / "out/table.json")["datasets"][dataset]["comparisons"]
    assert comparison["value"] == pytest.approx(difference)
    assert comparison["low"] < difference < comparison["high"]
    assert (comparison["better"], comparison["worse"]) in ((2, 0), (4, 0))  # twice with each question twice


def test_partial_answers_are_refused_as_accuracy_with_their_place(tmp_path: Path) -> None:
    (graded,) = logs("inspect_ai/*_graded_*")
    with raises(ContentError, "samples/2_epoch_1.json", "grade", 0.5, "--metric"):
        read_log(graded)
    (answers,) = logs("evalscope/reviews/tuned/general_qa_even.jsonl")
    with raises(ContentError, "general_qa_even.jsonl:1", "Rouge-L-R", "--metric"):
        read_log(answers)


def test_logs_that_other_scores_judged_get_a_warning(tmp_path: Path) -> None:
    from tuneyard.eval.judge.ask import compare_runs
    from tuneyard.eval.judge.findings import DifferentSettings

    rows = [{"index": n, "target": ["a"], "sample_score": {"score": {"value": {"acc": n}}}} for n in (0, 1)]
    for model, score in (("base", "acc"), ("tuned", "acc_relaxed")):
        for row in rows:
            row["sample_score"] = {"score": {"value": {score: row["index"]}}}
        folder = tmp_path / "reviews" / model
        folder.mkdir(parents=True)
        write_lines(folder / "x.jsonl", rows)
    runs, _ = read_scored_runs([parse_source(str(tmp_path))])
    (finding,) = [one for one in compare_runs(runs).findings if isinstance(one, DifferentSettings)]
    assert finding.differences == (("score", "acc_relaxed", "acc"),)


def test_results_of_promptfoo_before_it_numbered_tests_are_refused_with_their_version(tmp_path: Path) -> None:
    row = {"provider": {"id": "m"}, "prompt": {"raw": "q"}, "success": True, "response": {"output": "yes"}}
    log = {"results": {"version": 2, "results": [row]}, "config": {}, "shareableUrl": None}
    write_json(tmp_path / "x.json", log)
    with raises(ContentError, "x.json result 0", "testIdx", "promptfoo", "3"):
        read_log(tmp_path / "x.json")
    write_json(tmp_path / "x.json", {"results": {"version": 1, "results": [row], "table": {}}, "config": {}})
    with raises(ContentError, "x.json", "promptfoo", "-o NAME.json"):
        read_log(tmp_path / "x.json")


def test_the_single_score_of_the_first_versions_of_inspect_is_read(tmp_path: Path) -> None:
    rows = []
    for number, letter in enumerate("CIC"):
        row = sample(number, letter)
        row["score"] = row.pop("scores")["match"]
        rows.append(row)
    (run,) = read_log(inspect_log(tmp_path / "x.json", rows))
    assert run.correct == [True, False, True]


def inspect_log(path: Path, listed: list[dict[str, Any]], **header: Any) -> Path:
    """A log as one JSON document, of samples with a score."""
    spec = {"task": "t", "model": "org/m"}
    log = {"status": "success", "eval": spec, "plan": {}, "samples": listed}
    write_json(path, {**log, **header})
    return path


def sample(number: int, value: object, **fields: Any) -> dict[str, Any]:
    scores = {"match": {"value": value, "answer": "yes"}}
    return {"id": number, "epoch": 1, "input": "q", "target": "yes", "scores": scores} | fields


@pytest.mark.parametrize(
    ("value", "correct"), [("C", True), ("I", False), ("N", False), (1, True), (0.0, False), (True, True)]
)
@pytest.mark.parametrize("text", [None, "yes", "No", "1", "0.0"])
def test_scores_of_inspect_count_as_inspect_counts_them(
    tmp_path: Path, value: object, correct: bool, text: str | None
) -> None:
    if text is not None:
        value, correct = text, text in ("yes", "1")
    (run,) = read_log(inspect_log(tmp_path / "x.json", [sample(1, value)]))
    assert (run.model, run.correct) == ("org-m", [correct])


def test_letters_of_inspect_decide_before_numbers_whatever_the_first_sample_lacks(tmp_path: Path) -> None:
    both = {"words": {"value": 12}, "match": {"value": "C", "answer": "yes"}}
    neither = {"words": {"value": 9}, "match": {"value": float("nan")}}
    log = inspect_log(tmp_path / "x.json", [sample(1, "C", scores=neither), sample(2, "C", scores=both)])
    with raises(ContentError, "match", "x.json sample 0", "--metric"):
        read_log(log)
    runs, _ = read_scored_runs([parse_source(str(log))], "match")
    (run,) = runs["t"].values()
    assert run.column("match") == [None, 1.0]


@pytest.mark.parametrize(
    ("header", "facts"),
    [
        ({"status": "error"}, "error; success; inspect eval-retry"),
        ({"status": "started"}, "started; success"),
        ({"status": ["success"]}, "status; success"),
        ({"samples": None}, "--no-log-samples"),
        ({"samples": {}}, "samples; a list"),
        ({"samples": [3]}, "sample 0; 3"),
        ({"results": {"total_samples": 3}}, "1 of 3"),
        ({"eval": {"task": "t"}}, "eval; model"),
        ({"eval": {"task": "t", "model": None}}, "model"),
        ({"samples": [sample(1, "C", scores=None)]}, "score; sample 0"),
        ({"samples": [sample(1, "C", scores={"match": 3})]}, "match; 3; sample 0"),
        ({"samples": [sample(1, "maybe")]}, "match; sample 0"),
        ({"samples": [sample(1, {}, error={"message": "gone"})]}, "sample 0"),
        ({"samples": [sample(1, "C", target=None)]}, "gold; sample 0"),
        ({"samples": [sample(1, "C"), sample(1, "I")]}, "row 1; already"),
    ],
)
def test_a_log_of_inspect_that_is_not_whole_is_refused(
    tmp_path: Path, header: dict[str, Any], facts: str
) -> None:
    with raises(ContentError, "x.json", facts):
        read_log(inspect_log(tmp_path / "x.json", [sample(1, "C")], **header))


def test_the_reason_of_a_missing_score_is_named(tmp_path: Path) -> None:
    failed = sample(1, "C", error={"message": "the server is gone"})
    failed["scores"] = {"match": {"value": float("nan")}}
    with raises(ContentError, "x.json sample 0", "match", "the server is gone"):
        read_log(inspect_log(tmp_path / "x.json", [failed]))


THOUGHTS = [
    ("<think>\nno?\n</think>\n\nyes", "yes"),
    ("<|channel>thought\nno?<channel|>yes", "yes"),
    ("◁think▷no?◁/think▷yes", "yes"),
    ("[THINK]no?[/THINK]yes", "yes"),
    ("<seed:think>no?</seed:think>yes", "yes"),
    ("<|channel|>analysis<|message|>no?<|end|><|start|>assistant<|channel|>final<|message|>yes", "yes"),
    ("no?</think>yes", "yes"),
    ("<think></think>yes", "yes"),
    ("<think>\n\n</think>\n\nyes", "yes"),
    ("<think>no, or yes", ""),
    ("◁think▷no, or yes", ""),
    ("[THINK]no, or yes", ""),
    ("<|channel>thought\nno, or yes", ""),
]


def written_by_inspect(folder: Path, text: str) -> Path:
    output = {"completion": text}
    return inspect_log(folder / "x.json", [sample(1, "C", scores={"match": {"value": "C"}}, output=output)])


def written_by_evalscope(folder: Path, text: str) -> Path:
    score = {"value": {"acc": 1}, "prediction": text}
    write_lines(folder / "x.jsonl", [{"index": 0, "target": ["yes"], "sample_score": {"score": score}}])
    return folder / "x.jsonl"


def written_by_lighteval(folder: Path, text: str) -> Path:
    doc = {"id": "0", "query": "q", "choices": ["yes"], "gold_index": 0}
    row = {"doc": doc, "metric": {"em": 1}, "model_response": {"text": [text]}}
    parquet.write_table(pa.Table.from_pylist([row]), folder / "x.parquet")
    return folder / "x.parquet"


def written_by_opencompass(folder: Path, text: str) -> Path:
    write_json(folder / "x.json", {"details": [{"pred": text, "answer": "yes", "correct": True}]})
    return folder / "x.json"


def unjudged_by_opencompass(folder: Path, text: str) -> Path:
    write_json(folder / "x.json", {"details": [{"predictions": text, "references": "Yes."}]})
    return folder / "x.json"


def written_by_promptfoo(folder: Path, text: str) -> Path:
    assertion = {"type": "contains", "value": "yes"}
    row = {"promptIdx": 0, "testIdx": 0, "success": True, "score": 1, "provider": {"id": "m"}}
    more = {"response": {"output": text}, "testCase": {"assert": [assertion]}}
    write_lines(folder / "x.jsonl", [row | more])
    return folder / "x.jsonl"


WRITERS = [
    written_by_inspect, written_by_evalscope, written_by_lighteval, written_by_opencompass,
    unjudged_by_opencompass, written_by_promptfoo,
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), THOUGHTS)
@pytest.mark.parametrize("write", WRITERS)
def test_thoughts_are_cut_and_the_judgement_of_the_tool_stays(
    tmp_path: Path, write: Callable[[Path, str], Path], text: str, answer: str
) -> None:
    (run,) = read_log(write(tmp_path, text))
    judged = write is not unjudged_by_opencompass
    assert run.predicted == ["Yes." if answer and not judged else answer]  # spelled as the expected answer
    assert run.correct == [judged or answer == "yes"]
    assert run.records[0]["output"] == text


def test_expected_answers_of_opencompass_in_any_order_are_the_same(tmp_path: Path) -> None:
    """Its evaluator lists a set of texts, whose order changes from run to run."""
    paths = []
    for model, answers in (("base", ["b", "a"]), ("tuned", ["a", "b"])):
        details = [{"example_abbr": "x_0", "pred": ["a"], "answer": [answers], "correct": [True]}]
        (tmp_path / model).mkdir()
        write_json(tmp_path / model / "x.json", {"details": details})
        paths.append(tmp_path / model / "x.json")
    runs, _ = read_runs(*paths)
    assert runs[0].gold == runs[1].gold == ['["a", "b"]']


def test_answers_that_opencompass_did_not_judge_must_give_its_total(tmp_path: Path) -> None:
    rows = {"0": {"predictions": "a", "references": "A."}, "1": {"predictions": "1", "references": "['1']"}}
    write_json(tmp_path / "x.json", {"accuracy": 50.0, "details": {"type": "GEN", **rows}})
    assert read_log(tmp_path / "x.json")[0].correct == [True, False]
    write_json(tmp_path / "x.json", {"accuracy": 100.0, "details": {"type": "GEN", **rows}})
    with raises(ContentError, "x.json", "50.00", "100.00", "AccwithDetailsEvaluator"):
        read_log(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["correct", "is_correct", "cascade_correct"])
def test_the_names_of_evaluators_of_opencompass_are_read(tmp_path: Path, name: str) -> None:
    details = {
        "0": {"prediction": "a", "refr": "b", name: True},
        "1": {"pred": "a", "ref": "a", name: False, "score": 3},
        "2": {"pred": 4, "answer": 4.0, name: 1},
    }
    write_json(tmp_path / "x.json", {"details": details})
    (run,) = read_log(tmp_path / "x.json")
    assert (run.gold, run.correct) == (["b", "a", "4"], [True, False, True])


def test_an_answer_of_promptfoo_that_failed_is_no_wrong_answer(tmp_path: Path) -> None:
    path = written_by_promptfoo(tmp_path, "yes")
    row = json.loads(path.read_text()) | {"success": False, "failureReason": 2, "error": "HTTP 429"}
    write_lines(path, [row])
    with raises(ContentError, "x.jsonl:1", "HTTP 429", "pass"):
        read_log(path)


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("x.json", {"config_general": {}, "results": {}, "summary_tasks": {}}, "lighteval; --save-details"),
        ("x.json", {"dataset_name": "d", "model_name": "m", "metrics": []}, "EvalScope; reviews"),
        ("x.json", {"predict_runtime": 1, "predict_samples_per_second": 1}, "LLaMA-Factory"),
        ("x.json", [{"instance_id": "a", "train_trial_index": 0}], "HELM"),
        ("x.json", [{"instruction": "", "output_1": "", "output_2": "", "preference": 1}], "AlpacaEval"),
        ("x.jsonl", {"index": 0, "model_output": {}, "messages": []}, "EvalScope; reviews"),
        ("x.jsonl", {"index": 0, "choices": [{"review": {}}], "reviewed": True}, "old; EvalScope; 1.0"),
        ("results/m/x.json", {"accuracy": 50.0}, "OpenCompass; --dump-eval-details"),
        ("results/m/x.json", {"error": "of another length"}, "OpenCompass; --dump-eval-details"),
        ("x.jsonl", {"spec": {"base_eval": "x"}}, "OpenAI"),
        ("x.jsonl", {"question_id": 1, "model_id": "m", "choices": []}, "MT-Bench"),
        ("x.jsonl", {"follow_all_instructions": True, "follow_instruction_list": []}, "IFEval"),
        ("x.jsonl", {"instance_id": 1, "model_name_or_path": "m", "model_patch": ""}, "SWE-bench"),
        ("predictions/m/x.json", {"0": {"origin_prompt": "", "prediction": ""}}, "OpenCompass"),
        ("x.yaml", "evalId: eval-1\nresults: {}\n", "promptfoo; -o NAME.json"),
    ],
)
def test_a_file_of_another_tool_is_called_by_its_name(
    tmp_path: Path, name: str, content: object, facts: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for metric in ("accuracy", "f1"):
        with raises((ContentError, RequestError), name, facts):
            read_scored_runs([parse_source(str(path))], metric)


@pytest.mark.parametrize(
    ("pattern", "tool"),
    [
        ("opencompass/predictions/base/even.json", "OpenCompass"),
        ("evalscope/predictions/base/general_mcq_even.jsonl", "EvalScope"),
        ("evalscope/reports/base/general_mcq.json", "EvalScope"),
        ("promptfoo/even.csv", "promptfoo"),
    ],
)
def test_a_file_that_a_tool_wrote_beside_its_log_is_called_by_its_name(pattern: str, tool: str) -> None:
    with raises(ContentError, TOOLS / pattern, tool):
        read_log(TOOLS / pattern)


JUNK: list[Any] = [
    None, 1, -1, 0.5, "x", "", [], {}, True, float("nan"), 10**400, ["a"], {"a": 1}, [[]], [None], "\ud800",
    {"a": {"b": None}}, [{"a": 1}], "1", "C",
]  # fmt: skip
DOCUMENTS = [
    *("opencompass/results/tuned/even.json", "opencompass/results/tuned/even_twice.json"),
    *("opencompass/results/tuned/even_choices.json", "opencompass/results/tuned/even_plain.json"),
    *("promptfoo/prompts_results.json", "promptfoo/even.jsonl"),
    *("evalscope/reviews/tuned/general_mcq_even.jsonl", "inspect_ai/*_graded_*.eval"),
    "lighteval/details/made-up/tuned/*/details_even|0_*.parquet",
    "lighteval/details/made-up/tuned/*/details_even_choices|0_*.parquet",
]


def document(path: Path) -> Any:
    """The values of a log: of an archive as one JSON document, of rows as a list."""
    if path.suffix == ".eval":
        names = [name for name in member_names(path) if name.startswith("samples/")]
        values = [value for _, value in json_members(path, ["header.json", *names])]
        kept = [{name: sample[name] for name in inspect_ai.FIELDS if name in sample} for sample in values[1:]]
        return {**values[0], "samples": kept}
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()[:2]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:2]]
    return json.loads(path.read_text(encoding="utf-8"))


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values inside of a value."""
    inner = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = list(enumerate(value))
    paths = [path] if path else []
    for key, each in inner:
        paths += paths_in(each, (*path, key))
    return paths


def written(path: Path, log: Any) -> Path:
    """Write the values of a log; its form follows the suffix."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(log), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in log))
    else:
        path.write_text(json.dumps(log))
    return path


@pytest.mark.parametrize("pattern", DOCUMENTS)
def test_whatever_is_in_a_field_it_is_read_or_refused_in_words(tmp_path: Path, pattern: str) -> None:
    (source,) = logs(pattern)
    original = document(source)
    log = tmp_path / f"x{source.suffix.replace('.eval', '.json')}"
    generator = random.Random(72)
    read = refused = 0
    for _ in range(150):
        changed = copy.deepcopy(original)
        inside = [path for path in paths_in(changed) if len(path) > 1 or source.suffix != ".parquet"]
        *outer, last = generator.choice(inside)
        holder = changed
        for key in outer:
            holder = holder[key]
        if generator.random() < 0.3:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(generator.choice(JUNK))
        try:
            written(log, changed)
        except (pa.ArrowException, UnicodeError, OverflowError):
            continue  # no such Parquet can be written
        for metric in ("accuracy", "score", "grade"):
            try:
                read_scored_runs([parse_source(str(log))], metric)
                read += 1
            except (ContentError, RequestError) as error:
                assert log.name in str(error)
                refused += 1
    assert read and refused
