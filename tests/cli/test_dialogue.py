"""python -m eval.dialogue on a tiny model, in this process: transcripts, figures, resuming, refusals."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.test_text import read
from tests.json_files import write_lines
from tuneyard.core.errors import ContentError
from tuneyard.eval.dialogue import cli, conversing
from tuneyard.eval.models.batch_plan import TooLong


def talk(*texts: str) -> dict[str, object]:
    roles = ["human", "gpt"] * len(texts)
    return {"conversations": [{"from": r, "value": t} for r, t in zip(roles, texts, strict=False)]}


ROWS = [
    talk("A man walks a dog.", "Outside with the animal.", "Which animal walks?", "The animal is a dog."),
    talk("one question", "one answer"),
    talk("任务是什么？", "判断网络设备。", "原因呢？", "网络设备无电。", "判断？", "网络设备。"),
]


@pytest.fixture
def dialogue(score, one_thread, tmp_path: Path):
    """`dialogue(rows, …)` runs the command on the rows into OUT with an adapter that talks; returns OUT."""

    def call(rows: list[dict[str, object]], *arguments: object, **changes: object) -> Path:
        path, adapter = tmp_path / "rows.jsonl", tmp_path / "saved"
        write_lines(path, rows)
        if not adapter.exists():
            write_adapter(adapter)
        given = ["--adapter", f"one={adapter}", "--data", path, "--max-new-tokens", 6]
        return score(cli, *given, *arguments, **changes)

    return call


def test_a_conversation_is_led_with_the_models_own_answers(dialogue, capsys) -> None:
    out = dialogue(ROWS, "--batch-tokens", "100")
    for model in ("base", "one"):
        rows = read(out, "predictions.jsonl", model)
        assert [row["row"] for row in rows] == [0, 2]
        for row in rows:
            given = [turn["value"] for turn in ROWS[row["row"]]["conversations"]]
            assert [m["role"] for m in row["transcript"]] == ["user", "assistant"] * (len(given) // 2)
            assert [m["content"] for m in row["transcript"][::2]] == given[::2]
            assert row["references"] == given[1::2]
            assert not row["cut_short"]
    assert any(m["content"] for row in rows for m in row["transcript"][1::2])
    results = read(out, "results.json", "one")
    assert (results["n"], results["answers"], results["one_question"], results["too_long"]) == (2, 5, 1, 0)
    # animal | man walks outside with the animal: 1 of 1; 网络 络设 设备 备无 无电: 3 of 5, then 3 of 3
    assert results["reference"]["carry_over"] == pytest.approx((1 + (3 / 5 + 1) / 2) / 2)
    assert "1 row with a single question: left out" in capsys.readouterr().err


USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "of the data"}
SAID = [{"role": "assistant", "content": str(n)} for n in range(5)]


class Echo:
    """A speaker that says how many messages it was shown, after a thought."""

    context = 10

    def batches(self, lengths):
        return [sorted(lengths)]

    def chat(self, talks, _encode, _longest):
        return [f"<think>hm</think> {len(t)}" for t in talks.values()]


def test_each_answer_is_given_on_all_that_was_said_before() -> None:
    system = {"role": "system", "content": "S"}
    talks = {4: [system, *[USER, ANSWER] * 2, USER], 7: [USER, ANSWER, USER]}
    one, other = conversing(Echo(), talks, list, 5).score([4, 7])
    assert one == {"transcript": [system, USER, SAID[2], USER, SAID[4]], "cut_short": True}
    assert other == {"transcript": [USER, SAID[1], USER, SAID[3]], "cut_short": False}


class SmallServer(Echo):
    """A server that refuses what has more than three messages."""

    context = 1000

    def chat(self, talks, _encode, _longest):
        return [TooLong("refused") if len(t) > 3 else f"{len(t)}" for t in talks.values()]


def test_a_server_that_finds_a_conversation_too_long_ends_it_there() -> None:
    talks = {1: [*[USER, ANSWER] * 3, USER], 2: [USER, ANSWER, USER], 3: [USER] * 4}
    long, short, refused = conversing(SmallServer(), talks, list, 5).score([1, 2, 3])
    transcript = [USER, SAID[1], USER, SAID[3]]
    assert long == {"transcript": transcript, "cut_short": True}
    assert short == {"transcript": transcript, "cut_short": False}
    assert refused == {"too_long": "refused"}


def test_a_conversation_beyond_the_context_is_left_out_and_counted(dialogue, capsys) -> None:
    out = dialogue([ROWS[0], talk("dog " * 3000, "a", "b", "c")])
    assert read(out, "results.json")["too_long"] == 1
    assert "a context of 2048" in read(out, "predictions.jsonl")[1]["too_long"]
    assert "too long for the context: left out" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [[ROWS[1]], [ROWS[1], ROWS[0]]])
def test_a_set_without_a_second_question_is_refused(dialogue, refused, rows) -> None:
    with refused(ContentError, "rows.jsonl"):
        dialogue(rows, "--limit", 1)
