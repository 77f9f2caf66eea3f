"""python -m eval.chat on a tiny model: one question, whole conversations, ways out, and a full context."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from testing.tiny import write_adapter
from tests.cli import scoring
from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.json_files import read_json, write_json
from tests.messages import printed, raises
from tests.serving import answering
from tuneyard.core.errors import RequestError
from tuneyard.eval.chat import Chat, cli, local_reply
from tuneyard.eval.data.prompts import choose_prompting
from tuneyard.eval.models.generate import generate
from tuneyard.eval.scoring.request import ScoringRequest

REQUEST = ScoringRequest("model", Path(), max_new_tokens=8)


@pytest.fixture(scope="module")
def encode(model):
    return choose_prompting(model.tokenizer, (), None).encode


@pytest.fixture
def talk(tiny_model: Path):
    """`talk("hello\\nquit\\n")` types into a conversation; other arguments are options."""

    def call(typed: str | bytes, *arguments: object):
        given = ["--model", tiny_model, "--max-new-tokens", 8, *arguments]
        return invoke(cli, *given, input=typed, catch_exceptions=False)

    return call


@pytest.fixture
def talk_to_server():
    """`talk_to_server(answer, "hello\\nquit\\n")` types into a conversation with a server that answers so."""

    def call(answer, typed: str, *arguments: object, heard: list[list[dict]] | None = None):
        with answering(answer, heard) as url:
            words = ["--url", url, "--served-model", "mine", *map(str, arguments)]
            return invoke(cli, *words, input=typed, catch_exceptions=False)

    return call


def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the model gets from now on. It answers none."""
    asked = []
    monkeypatch.setattr(
        "tuneyard.eval.chat.stream", lambda model, prompt, *_: asked.append(model.tokenizer.decode(prompt))
    )
    return asked


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_once_answers_and_leaves(talk, model, encode) -> None:
    done = talk("", "--once", "A dog?")
    assert (done.exit_code, done.stdout) == (
        0,
        generate(model, [encode([user("A dog?")])], 8)[0].text.lstrip() + "\n",
    )


def test_a_preset_and_options_reach_the_model(talk, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("tuneyard.eval.chat.stream", lambda *given: asked.append(given[3]))
    talk("", "--once", "Q", "--preset", "document", "--top-p", "0.5")
    talk("", "--once", "Q", "--repetition-penalty", "1.2")
    assert asked == [
        {"temperature": 0.8, "top_p": 0.5, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
        {"repetition_penalty": 1.2},
    ]


def test_a_conversation_remembers_what_was_said(talk, model, encode) -> None:
    opening = [{"role": "system", "content": "yes"}, user("A dog?")]
    first = generate(model, [encode(opening)], 8)[0].text.strip()
    messages = [*opening, said(first), user("outside")]
    second = generate(model, [encode(messages)], 8)[0].text.strip()
    done = talk("A dog?\n\n  outside \nEXIT\nnever asked\n", "--system", "yes")
    assert done.exit_code == 0
    assert done.stdout.split("\n") == [*(f"{first}\n{second}\n".split("\n"))]


@pytest.mark.parametrize("typed", ["", "quit\n", "exit", "\n\nQuit\n"])
def test_ways_out(talk, typed) -> None:
    done = talk(typed)
    assert (done.exit_code, done.stdout) == (0, "")


def test_an_adapter_is_talked_to_alone(talk, tmp_path, tiny_model) -> None:
    adapter = write_adapter(tmp_path / "tuned")
    tuned, base = talk("", "--once", "A dog?", "--adapter", f"t={adapter}"), talk("", "--once", "A dog?")
    assert tuned.stdout != base.stdout
    config = read_json(adapter / "adapter_config.json")
    write_json(adapter / "adapter_config.json", {**config, "base_model_name_or_path": str(tiny_model)})
    own = invoke(cli, "--model", adapter, "--max-new-tokens", "8", "--once", "A dog?", catch_exceptions=False)
    assert own.stdout == tuned.stdout


def trained(folder: Path, **systems: list[str]) -> Path:
    """An adapter with the training.json of a training on one dataset for each list of system texts."""
    info, data = {}, folder / "data"
    write_adapter(folder)
    data.mkdir()
    for name, texts in systems.items():
        rows = [{"instruction": "Q", "output": "A", **({"system": text} if text else {})} for text in texts]
        write_json(data / f"{name}.json", rows)
        columns = {"prompt": "instruction", "response": "output", "system": "system"}
        info[name] = {"file_name": f"{name}.json", "columns": columns}
    write_json(data / "dataset_info.json", info)
    settings = {"dataset": ", ".join(systems), "dataset_dir": str(data), "default_system": "yes"}
    write_json(folder / "training.json", {"inputs": {"settings": settings}})
    return folder


@pytest.mark.parametrize(
    ("systems", "given", "begins", "note"),
    [
        ({"a": ["no", "no"], "b": ["no"]}, (), ["no"], '(system text of the training: "no")'),
        ({"a": ["", ""]}, (), ["yes"], '(system text of the training: "yes")'),
        ({"a": ["no"]}, ("--system", "maybe"), ["maybe"], ""),
        ({"a": ["no"]}, ("--system", ""), [], ""),
        ({"a": ["no", "maybe"]}, (), [], "the examples of a have several system texts; --system gives one"),
        ({"a": ["no", ""]}, (), [], "have several system texts"),
    ],
)
def test_an_adapter_is_told_what_its_training_told_it(
    talk, tmp_path, monkeypatch, systems, given, begins, note
):
    asked = prompts(monkeypatch)
    done = talk("", "--once", "Q", "--adapter", f"t={trained(tmp_path / 't', **systems)}", *given)
    told = [text for text in ("no", "yes", "maybe") if text in asked[0].partition("Q")[0]]
    assert told == begins and note in done.stderr


def test_adapters_are_combined_and_switched_between(talk, tmp_path, monkeypatch) -> None:
    one, two = (write_adapter(tmp_path / name) for name in ("one", "two"))
    both = f"{one}:-1+{two}:3"
    options = ("--adapter", f"one={one}", "--adapter", f"both={both}")
    alone = {
        name: talk("A dog?", "--adapter", f"{name}={path}") for name, path in (("one", one), ("both", both))
    }
    assert talk("A dog?\n", *options).stdout == alone["one"].stdout
    assert talk("/use both\nA dog?\n", *options).stdout == alone["both"].stdout
    done = talk("/use base\nA dog?\n/use\n/use three\n", *options)
    assert done.stdout == talk("A dog?").stdout
    answers = [line for line in done.stderr.splitlines() if "/use NAME" in line]
    assert len(answers) == 2
    for answer in answers:
        printed(answer, "base, one, both", "now: base")
    assert len({talk("A dog?").stdout, *(answered.stdout for answered in alone.values())}) == 3
    asked = prompts(monkeypatch)
    talk("A dog?\n/use base\noutside\n", *options)
    assert "A dog?" in asked[1] and "outside" in asked[1]


def test_ctrl_c_ends_the_answer_and_keeps_what_was_shown(model, encode, monkeypatch) -> None:
    class Interrupting(io.StringIO):
        def write(self, text: str) -> int:
            count = super().write(text)
            if self.getvalue().strip() and not fired:
                fired.append(text)
                signal.raise_signal(signal.SIGINT)
            return count

    fired = []
    screen = Interrupting()
    monkeypatch.setattr(sys, "stdout", screen)
    chat = Chat(
        local_reply(replace(REQUEST, max_new_tokens=400), model, encode, {"temperature": 5.0, "top_p": 1.0})
    )
    with pytest.raises(KeyboardInterrupt):
        chat.answer("A dog?")
    assert fired and chat.messages[0] == user("A dog?")
    assert chat.messages[1]["content"] == screen.getvalue().strip()
    assert len(model.tokenizer(chat.messages[1]["content"])["input_ids"]) < 390


def test_a_full_context_forgets_the_oldest_but_not_the_system(model, encode, capsys) -> None:
    chat = Chat(local_reply(REQUEST, model, encode, {}), messages=[{"role": "system", "content": "yes"}])
    long = "dog " * 1200  # of 2,048 ids
    chat.answer(long)
    assert len(chat.messages) == 3
    chat.answer(f"{long}?")
    assert [m["role"] for m in chat.messages] == ["system", "user", "assistant"]
    assert chat.messages[1]["content"] == f"{long}?"
    assert "the oldest question is forgotten" in capsys.readouterr().err


def test_a_text_beyond_the_context_is_refused_and_the_talk_goes_on(model, encode, talk) -> None:
    chat = Chat(local_reply(REQUEST, model, encode, {}))
    with raises(RequestError, "8", "2048"):
        chat.answer("dog " * 3000)
    assert chat.messages == []
    done = talk(f"{'dog ' * 3000}\nA dog?\n")
    assert done.exit_code == 0 and "exceed the context" in done.stderr and len(done.stdout.split("\n")) == 2


def test_ctrl_c_leaves_once_with_130_and_a_conversation_not_at_all(talk, tiny_model, monkeypatch) -> None:
    def interrupted(_model, _prompt, _longest, _sampling, show) -> None:
        show("Par")
        raise KeyboardInterrupt

    monkeypatch.setattr("tuneyard.eval.chat.stream", interrupted)
    with pytest.raises(click.Abort):  # what core.errors.run_command ends with 130
        scoring.call(cli, "--model", tiny_model, "--once", "Q")
    done = talk("Q\nR\n")
    assert (done.exit_code, done.stdout) == (0, "Par\nPar\n")
    assert done.stderr.count("(cut short)") == 2


def test_thoughts_are_hidden_or_shown_and_never_remembered(model, encode, monkeypatch, capsys) -> None:
    def thinking(_model, _prompt, _longest, _sampling, show) -> None:
        for piece in ("<thi", "nk>hm", "</think>\n\nPar", "is."):
            show(piece)

    monkeypatch.setattr("tuneyard.eval.chat.stream", thinking)
    for think, shown in ((False, "Paris.\n"), (True, "<think>hm</think>\n\nParis.\n")):
        chat = Chat(local_reply(REQUEST, model, encode, {}), think)
        chat.answer("Q")
        assert capsys.readouterr().out == shown
        assert chat.messages == [user("Q"), said("Paris.")]


@pytest.mark.parametrize("arguments", [("--once", " "), ("--adapter", "nowhere")])
def test_what_is_refused(talk, arguments) -> None:
    with pytest.raises(RequestError):
        talk("", *arguments)


@pytest.mark.parametrize("option", ["--temperature", "--top-p", "--repetition-penalty"])
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_numbers_that_are_none_are_refused(option, number) -> None:
    with raises(click.BadParameter, "Invalid value"):
        scoring.call(cli, "--model", "m", "--once", "Q", option, number)


def test_input_that_is_no_text(talk) -> None:
    with raises(RequestError, "utf-8"):
        talk(b"\xff\xfe\n")


@pytest.mark.slow
def test_a_terminal(tiny_model: Path) -> None:
    """The whole way: a prompt, an answer, Ctrl-C at the prompt."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "eval.chat", "--model", str(tiny_model), "--max-new-tokens", "8"]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    screen = wait_for(master, b"> ")
    assert b"exit or quit leaves" in screen
    os.write(master, b"hello\n")
    assert b"hello" in wait_for(master, b"\n> ")
    screen = b""
    while b"interrupted" not in screen:
        os.write(master, b"\x03")  # one that comes before readline waits is seen with the next key only
        while b"interrupted" not in screen and select.select([master], [], [], 1)[0]:
            screen += os.read(master, 1000)
    assert process.wait() == 130  # a Ctrl-C during the exit would cut it short
    os.close(master)


def wait_for(master: int, ending: bytes) -> bytes:
    screen = b""
    while not screen.replace(b"\r", b"").endswith(ending):
        assert select.select([master], [], [], 500)[0], screen
        screen += os.read(master, 1000)
    return screen


def test_a_served_model_answers_each_text_after_those_before(talk_to_server) -> None:
    heard = []
    done = talk_to_server(
        lambda text: f"<think>hm</think>{text}!\x1b[2J", "a\nb\nquit\n", "--system", "Be brief.", heard=heard
    )
    assert (done.exit_code, done.stdout) == (0, "a!\\u001b[2J\nb!\\u001b[2J\n")
    first = [{"role": "system", "content": "Be brief."}, user("a")]
    assert heard == [first, [*first, said("a!\x1b[2J"), user("b")]]
    once = talk_to_server(lambda text: f"<think>hm</think>{text}!", "", "--once", "a", "--think")
    assert once.stdout == "<think>hm</think>a!\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--repetition-penalty", "1.1"], ["--preset", "document"], ["--no-repeat-ngram-size", "3"],
        ["--adapter", "x"], ["--template", "qwen"], ["--dtype", "fp32"], ["--quantize", "4"],
        ["--bos"], ["--same-base"], ["--model", "x"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_options_that_a_server_cannot_take_are_refused_by_name(words: list[str]) -> None:
    with raises(RequestError, words[0], "--url"):
        scoring.call(cli, "--url", "http://localhost:9/v1", *words)


def test_options_of_a_server_need_one(tiny_model) -> None:
    with raises(RequestError, "--timeout", "--url"):
        scoring.call(cli, "--model", tiny_model, "--timeout", "9")
    with raises(click.UsageError, "--model", "--url"):
        scoring.call(cli, "--once", "hello")
