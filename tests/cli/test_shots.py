"""--shots N: the base is scored also after examples of the training split, as a model of its own."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import ask, call
from tests.json_files import read_json, read_lines, write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.data.dataset import read_datasets
from tuneyard.eval.data.shots import with_shots
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.qa.__main__ import cli as qa
from tuneyard.eval.suite import read_steps

pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")
SYSTEM = {"system": "Be brief."}


def row(name: str, number: int, output: str) -> dict[str, str]:
    return {"instruction": f"Is {name} {number} odd?", "input": "", "output": output, **SYSTEM}


EVAL = [row("eval", n, "yes" if n % 2 else "no") for n in range(8)]
TRAIN = [row("train", n, "yes" if n % 7 == 0 else "no") for n in range(40)]


@pytest.fixture(autouse=True)
def odd_datasets(working_folder) -> None:
    Path("dataset_info").mkdir()
    register(odd_eval=EVAL, odd_train=[*TRAIN, *EVAL], lone=EVAL)


def register(**sets: list[dict[str, str]]) -> None:
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    entries = {}
    for name, rows in sets.items():
        write_json(Path(f"dataset_info/{name}.json"), rows)
        entries[name] = {"file_name": f"{name}.json", "columns": columns}
    write_json(Path("dataset_info/dataset_info.json"), entries)


def results(model: str, name: str = "odd_eval", out: str = "out") -> dict:
    return read_json(Path(out, model, name, "results.json"))


def predictions(model: str) -> list[dict]:
    return read_lines(Path("out", model, "odd_eval/predictions.jsonl"))


def test_the_base_with_shots_is_a_model_of_the_run_and_of_its_table(tiny_model, capsys) -> None:
    write_adapter(Path("saves/mine"))
    models = ("--model", tiny_model, "--adapter", "mine", "--dataset", "odd_eval", "--out", "out")
    call(nli, *models, "--shots", "3")
    assert list(read_json(Path("out/run.json"))["models"]) == ["base", "base (3 shots)", "mine"]
    shots = results("base (3 shots)")["shots"]
    assert (shots["from"], len(shots["rows"])) == ("odd_train", 3)
    assert "shots" not in results("base") and "shots" not in results("mine")
    one, other = ([line["choices"] for line in predictions(name)] for name in ("base", "base (3 shots)"))
    assert one != other
    assert [p["instruction"] for p in predictions("base (3 shots)")] == [r["instruction"] for r in EVAL]
    capsys.readouterr()
    call(compare, "out", "--out", "table")
    assert "base (3 shots)" in capsys.readouterr().out
    call(nli, *models, "--shots", "3", "--resume")
    call(nli, "--rescore", "out", "--out", "again")
    assert results("base (3 shots)", out="again")["shots"] == shots


def test_a_question_comes_after_the_system_text_and_the_examples_turns() -> None:
    (drawn,) = with_shots(read_datasets(("odd_eval",), ()), 2, ())
    heard: list[list[dict]] = []
    given = ("--dataset", "odd_eval", "--limit", "1", "--shots", "2", "--out", "out", "--mode", "generate")
    ask(nli, lambda _: "yes", *given, heard=heard)
    plain, shown = heard
    system, question = plain
    assert drawn.shots is not None
    assert shown == [system, *drawn.shots.turns, question]
    assert [turn["role"] for turn in shown] == ["system", *["user", "assistant"] * 2, "user"]
    assert results("m (2 shots)")["n"] == 1


def test_examples_are_drawn_by_a_seed_in_turn_and_never_from_what_is_evaluated() -> None:
    (first,), (second,) = (with_shots(read_datasets(("odd_eval",), ()), 4, ()) for _ in range(2))
    assert first.shots == second.shots
    answers = [turn["content"] for turn in first.shots.turns if turn["role"] == "assistant"]
    assert sorted(answers) == ["no", "no", "yes", "yes"]  # of 34 and 6
    assert all(row < len(TRAIN) for row in first.shots.rows)
    assert [TRAIN[row]["output"] for row in first.shots.rows] == answers
    (fewer,) = with_shots(read_datasets(("odd_eval",), ()), 2, (), {"odd_eval": ["yes", "maybe"]})
    assert {TRAIN[row]["output"] for row in fewer.shots.rows} == {"yes"}


def test_a_training_split_is_found_or_named_or_refused() -> None:
    lone = read_datasets(("lone",), ())
    with raises(RequestError, "--shots-from lone=NAME"):
        with_shots(lone, 1, ())
    for given in ("odd_train", "lone=odd_train", "dataset_info/odd_train.json"):
        (named,) = with_shots(lone, 1, (given,))
        assert named.shots.source == given.removeprefix("lone=")
    with raises(RequestError, "--shots-from other"):
        with_shots(lone, 1, ("odd_train", "other"))
    with raises(RequestError, "none"):
        with_shots(lone, 1, ("none",))
    with raises(RequestError, "0"):
        with_shots(lone, 1, ("lone",))
    register(odd_eval=EVAL)
    with raises(RequestError, "odd_train"):
        with_shots(read_datasets(("odd_eval",), ()), 1, ())


def test_shots_without_a_base_or_a_number_are_refused(tiny_model, tmp_path) -> None:
    write_adapter(Path("saves/mine"))
    given = ("--model", tiny_model, "--dataset", "odd_eval", "--out", "out")
    with raises(RequestError, "--no-base"):
        call(nli, *given, "--adapter", "mine", "--no-base", "--shots", "1")
    with raises(RequestError, "--shots"):
        call(nli, *given, "--shots-from", "odd_train")
    suite = tmp_path / "suite.yaml"
    suite.write_text("one: {command: nli, dataset: odd_eval, shots: 2}\n")
    with raises(ContentError, "shots"):
        read_steps(suite, ())
    assert not Path("out").exists()


def test_other_examples_are_not_resumed(tiny_model) -> None:
    given = ("--model", tiny_model, "--dataset", "odd_eval", "--shots", "2", "--out", "out")
    call(nli, *given)
    register(odd_eval=EVAL, odd_train=TRAIN[5:])
    with raises(RequestError, "odd_eval"):
        call(nli, *given, "--resume")


def test_free_answers_have_examples_too() -> None:
    ask(qa, str, "--dataset", "odd_eval", "--limit", "2", "--shots", "1", "--out", "out")
    assert results("m (1 shot)")["n"] == 2
    assert results("m (1 shot)")["shots"]["from"] == "odd_train"
