"""python -m eval.cmmlu on a tiny model, in this process: against a plain loop, and what it refuses."""

import csv
from functools import partial
from pathlib import Path

import pytest

from tests.cli.scoring import predictions, results
from tests.json_files import read_json
from tuneyard.core.errors import RequestError
from tuneyard.eval.cmmlu.__main__ import cli
from tuneyard.eval.cmmlu.subjects import read_subjects

SUBJECTS = ("anatomy", "chinese_history", "logical")
LETTERS = "ABCD"
pytestmark = pytest.mark.usefixtures("one_thread")


def question(number: int) -> list[str]:
    return [f"dog {number}?", f"yes {number}", "no", "maybe", 'a, "b"', LETTERS[number % 4]]


@pytest.fixture
def exams(tmp_path: Path) -> Path:
    folder = tmp_path / "cmmlu"
    for split, count in (("dev", 5), ("test", 6)):
        (folder / split).mkdir(parents=True)
        for name in SUBJECTS:
            with (folder / split / f"{name}.csv").open("w", newline="") as file:
                questions = ([n, *question(n + len(name))] for n in range(count))
                csv.writer(file).writerows([["", "Question", *LETTERS, "Answer"], *questions])
    return folder


@pytest.fixture
def cmmlu(score, exams: Path):
    return partial(score, cli, "--data", exams)


def read(out: Path, name: str) -> tuple[dict, list[dict]]:
    folder = out / "base" / name
    return results(folder), predictions(folder)


def shown(fields: list[str], answer: str) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, fields[1:5], strict=True))
    return f"题目：{fields[0]}{options}\n答案是：{answer}"


def plain(name: str, row: int, shots: int) -> str:
    """The benchmark's prompt, put together here a second time."""
    examples = [question(n + len(name)) for n in range(shots)]
    head = f"以下是关于{read_subjects()[name]}的单项选择题，请直接给出正确答案的选项。\n\n"
    return head + "".join(shown(e, f"{e[5]}\n\n") for e in examples) + shown(question(row + len(name)), "")


@pytest.mark.parametrize(
    ("options", "shots", "prompt"),
    [
        ([], 0, "the benchmark's text (no chat template)"),
        ([], 5, "the benchmark's text (no chat template)"),
        (["--chat"], 1, "chat template of the tokenizer"),
    ],
)
def test_probabilities_are_those_of_a_plain_loop(cmmlu, tiny_model, options, shots, prompt) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = cmmlu("--shots", shots, *options)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    net = AutoModelForCausalLM.from_pretrained(tiny_model)
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS]
    for name in SUBJECTS:
        results, predictions = read(out, name)
        for row, prediction in enumerate(predictions):
            text = plain(name, row, shots)
            if options:
                talk = [{"role": "user", "content": text}]
                text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
            inputs = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                logs = net(**inputs).logits[0, -1].log_softmax(-1)[letters].tolist()
            assert list(prediction["choices"].values()) == pytest.approx(logs, abs=1e-4)
            assert prediction["predicted_output"] == LETTERS[logs.index(max(logs))]
            assert prediction["expected_output"] == LETTERS[(row + len(name)) % 4]
            assert prediction["instruction"] == shown(question(row + len(name)), "")
        right = sum(p["expected_output"] == p["predicted_output"] for p in predictions)
        assert (results["accuracy"], results["n"]) == (right / 6, 6)
        assert results["prompt"] == prompt


def test_the_table_has_groups_and_both_averages(cmmlu, capsys) -> None:
    out = cmmlu("--limit", 4)
    table = read_json(out / "cmmlu.json")["base"]
    accuracy = {name: read(out, name)[0]["accuracy"] for name in SUBJECTS}
    toolkit = [name for name in table if name.startswith("toolkit: ")]
    assert list(table) == ["STEM", "Humanities", "China specific", *toolkit, "average over subjects"]
    assert table["toolkit: humanities and social sciences"] == table["Humanities"]
    assert (table["STEM"]["datasets"], table["STEM"]["n"]) == (1, 4)
    assert table["Humanities"]["accuracy"] == pytest.approx(
        (accuracy["chinese_history"] + accuracy["logical"]) / 2
    )
    assert table["China specific"]["accuracy"] == accuracy["chinese_history"]
    average = table["average over subjects"]
    assert (average["datasets"], average["n"]) == (3, 12)
    assert average["accuracy"] == pytest.approx(sum(accuracy.values()) / 3)
    printed, following = capsys.readouterr()
    assert (out / "cmmlu.md").read_text() in printed
    assert "| all questions as one" in printed
    assert "next: tuneyard eval compare" in following


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--subjects", "alchemy"), "alchemy"),
        (("--template", "qwen"), "--template; --chat"),
        (("--subjects", "virology"), "virology.csv"),
    ],
)
def test_what_is_refused_leaves_nothing(cmmlu, refused, arguments, facts) -> None:
    with refused(RequestError, facts):
        cmmlu(*arguments)
