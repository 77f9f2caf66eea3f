"""eval prove --url with stand-ins of llama.cpp, vLLM and a plain server that have the tiny model inside."""

import json
from typing import Any

import pytest

from tests.cli.proving import ROWS, Home
from tests.cli.scoring import call
from tests.label_server import Answer
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.core.language.reader import CHINESE, in_language
from tuneyard.eval import chat, nli
from tuneyard.eval.prove.__main__ import cli
from tuneyard.eval.runs.results import PREDICTIONS


def test_equal_servers_of_both_engines_are_proved(home: Home) -> None:
    urls = [home.serve("llama.cpp", "one"), home.serve("vllm", "one")]
    proof = home.prove("--url", urls[0], "--url", urls[1])
    assert [one["engine"] for one in proof["servers"]] == ["llama.cpp", "vLLM"]
    for part in ("prompts", "answers", "chats"):
        assert [one["n"] for one in proof[part]] == [len(ROWS)] * 2
        assert [one["differing"] for one in proof[part]] == [0, 0]
    for answers in proof["answers"]:
        assert answers["flips"] == [] and answers["largest"] < 1e-3
    assert [one["runs_on"] for one in proof["chats"]] == [[], []]
    assert proof["causes"] == []
    assert proof["not_checked"][1:] == ["no --fused", "no --gguf", "no --modelfile"]
    page = (home.folder / "proof/prove.md").read_text()
    assert "one at " + urls[1] in page and "## Causes" not in page


def test_what_a_plain_server_does_not_offer_is_listed_and_not_equal(home: Home) -> None:
    url = home.serve("plain", "one")
    proof = home.prove("--url", url, "--url", f"{url}/")  # the same one
    assert len(proof["servers"]) == 1
    assert proof["prompts"] == [] and proof["answers"] == [] and len(proof["chats"]) == 1
    page = (home.folder / "proof/prove.md").read_text()
    _, _, unchecked = page.partition("## Not checked")
    for part in ("prompts of", "labels' log-probabilities of", "greedy texts after our ids of"):
        assert f"- {part} one at {url}" in unchecked


def test_the_page_is_chinese_and_prove_json_english(home: Home) -> None:
    url = home.serve("plain", "one")
    english = home.prove("--url", url)
    with in_language(CHINESE):
        chinese = home.prove("--url", url)
    for part in ("verdict", "reference", "chats", "causes", "not_checked"):
        assert chinese[part] == english[part]
    page = (home.folder / "proof/prove.md").read_text()
    assert page.startswith("# 训练、评测与部署是否一致\n") and url in page and "## Not checked" not in page


def test_every_adapter_of_vllm_is_compared_with_the_one_of_its_name(home: Home) -> None:
    url = home.serve("vllm", "base", "one", "two")
    proof = home.prove("--url", url, names=("one", "two"))
    assert [one["model"] for one in proof["answers"]] == [
        f"{name} at {url}" for name in ("one", "two", "base")
    ]
    home.adapters["gone"] = home.adapters["two"]
    proof = home.prove("--url", url, names=("one", "gone"))
    assert [one["model"] for one in proof["chats"]] == [f"one at {url}", f"base at {url}"]
    assert f"adapter two of {url}: no --adapter has this name" in proof["not_checked"]
    assert "adapter gone: no server offers it" in proof["not_checked"]


def test_every_adapter_of_llama_cpp_is_asked_for_by_scale(home: Home) -> None:
    url = home.serve("llama.cpp", "base", "one", "two")
    home.servers[0].scales = [1.0, 0.0]
    home.prove("--url", url, names=("one", "two"))
    bodies = [body for body in home.servers[0].requests if "cache_prompt" in body]
    assert {json.dumps(body.get("lora")) for body in bodies} == {"null", '[{"id": 1, "scale": 1.0}]'}
    of_rows = [
        body for body in bodies if "messages" in body or len(body["prompt"]) > 40
    ]  # no first questions
    assert of_rows and not any(body["cache_prompt"] for body in of_rows)
    home.servers[0].scales = [0.0, 1.0]
    proof = home.prove("--url", url, code=1)  # a request without `lora` gets the other adapter
    within = {one["model"]: one["within"] for one in proof["answers"]}
    assert within == {f"base at {url} without an adapter in the request": False, f"one at {url}": True}


@pytest.mark.parametrize("kind", ["llama.cpp", pytest.param("vllm", marks=pytest.mark.slow)])
def test_the_model_next_to_adapters_is_compared_with_the_base(home: Home, kind: str) -> None:
    url = home.serve(kind, "base", "one", "two")
    title = f"base at {url}" + (" without an adapter in the request" if kind == "llama.cpp" else "")
    proof = home.prove("--url", url, names=("one", "two"))
    assert [one["largest"] < 1e-3 for one in proof["answers"] if one["model"] == title] == [True]
    assert not any("--adapter" in line for line in proof["not_checked"])
    home.servers[0].models["base"] = home.models["two"]  # a merged model in its place
    proof = home.prove("--url", url, names=("one", "two"), code=1)
    within = {one["model"]: one["within"] for one in proof["answers"]}
    assert within == {f"one at {url}": True, f"two at {url}": True, title: False}
    (cause,) = proof["causes"]
    assert (cause["model"], cause["name"]) == (title, "another model or quantisation")


def test_a_base_without_adapters_is_proved_and_its_causes_named(home: Home) -> None:
    url = home.serve("vllm", "base")
    proof = home.prove("--url", url, names=())
    assert "the model in this process" in proof["verdict"]
    home.servers[0].system = "You are a pirate."
    proof = home.prove("--url", url, names=(), code=1)
    (cause,) = proof["causes"]
    assert cause["name"] == "another prompt" and "--chat-template" in cause["sentence"]


@pytest.mark.parametrize("kind", [pytest.param("llama.cpp", marks=pytest.mark.slow), "vllm"])
def test_served_model_names_an_adapter_of_the_server(
    home: Home, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    url = home.serve(kind, "base", "one", "two")
    home.prove("--url", url, names=("two", "one"))
    (command,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("next: ")]
    words = command.removeprefix("next: tuneyard eval chat ").split()
    assert words[-2:] == ["--served-model", "two"]
    call(chat.cli, *words, "--once", ROWS[0]["instruction"], "--max-new-tokens", "3")
    assert "they differ" not in capsys.readouterr().out
    data = ["--data", home.folder / "rows.json", "--model", home.base]
    there, here = home.folder / f"there-{kind}", home.folder / f"here-{kind}"
    served = ["--backend", "openai", "--url", url, "--served-model", "two"]
    call(nli.cli, *data, *served, "--out", there)
    local = ["--adapter", f"two={home.adapters['two']}", "--no-base"]
    call(nli.cli, *data, *local, "--out", here)
    pages = [folder / "two/rows" / PREDICTIONS for folder in (there, here)]
    lines_of_server, lines_of_process = (page.read_text().splitlines() for page in pages)
    for of_server, of_process in zip(lines_of_server, lines_of_process, strict=True):
        expected = json.loads(of_process)["choices"]
        assert json.loads(of_server)["choices"] == pytest.approx(expected, abs=1e-3)
    with raises(RequestError, "three", "base", "one", "two"):
        call(nli.cli, *data, *served[:-1], "three", "--out", home.folder / "none")


def test_the_next_command_talks_to_the_model_that_was_compared(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    url = home.serve("llama.cpp", "one")
    home.prove("--url", url)
    assert capsys.readouterr().err.endswith(f" --url {url}\n")
    with raises(RequestError, "three", "--served-model"):
        home.prove("--url", url, "--served-model", "three")
    url = home.serve("llama.cpp", "base", "one")
    with raises(RequestError, "--served-model one", "leave", "--adapter"):
        home.prove("--url", url, "--served-model", "one")


def test_rows_that_the_server_refuses_are_flips(home: Home) -> None:
    url = home.serve("vllm", "one")
    home.servers[0].refused = '"1 men'
    proof = home.prove("--url", url, code=1)
    (answers,), (chat,) = proof["answers"], proof["chats"]
    assert answers["flips"] == answers["refused"] == chat["refused"] == [1]
    assert (answers["n"], answers["differing"], chat["differing"]) == (len(ROWS), 0, 1)
    assert home.prove("--url", url, "--flips", "1")["causes"] == []


def test_messages_that_the_server_refuses_are_differing_prompts(home: Home) -> None:
    url = home.serve("vllm", "one")
    server = home.servers[0]
    answer = server.post

    def refuse(path: str, body: Answer) -> Any:
        if path == "/tokenize" and '"1 men' in str(body.get("messages")):
            return None
        return answer(path, body)

    server.post = refuse  # type: ignore[method-assign]
    proof = home.prove("--url", url, code=1)
    (prompts,) = proof["prompts"]
    assert (prompts["n"], prompts["differing"], prompts["refused"]) == (len(ROWS), 1, [1])
    assert proof["answers"][0]["within"] and proof["chats"][0]["within"]
    assert "(1 refused)" in proof["verdict"]


@pytest.mark.parametrize("models", [("one",), ("base", "one")])
def test_labels_beyond_the_servers_context_are_listed_and_their_texts_compared(
    home: Home, models: tuple[str, ...]
) -> None:
    """An adapter of vLLM has the context of its base."""
    url = home.serve("vllm", *models)
    home.servers[0].context = 8
    proof = home.prove("--url", url)
    answers = proof["answers"][0]
    assert (answers["largest"], answers["differing"], answers["flips"]) == (None, 0, [])
    too_long = f"{len(ROWS)} rows of rows too long for the server's context"
    assert f"labels' log-probabilities of one at {url}: {too_long}" in proof["not_checked"]


def test_a_name_with_a_dot_is_not_the_name_before_it(home: Home) -> None:
    for name, adapter in (("v1", "one"), ("v1.5", "two")):
        home.adapters[name], home.models[name] = home.adapters[adapter], home.models[adapter]
    for kind in ("llama.cpp", "vllm"):
        url = home.serve(kind, "base", "v1.5", "v1")
        home.servers[-1].scales = [1.0, 0.0]
        proof = home.prove("--url", url, names=("v1", "v1.5"))
        named = {one["model"] for one in proof["answers"]} - {f"base at {url}"}
        assert named == {f"v1 at {url}", f"v1.5 at {url}"}


def test_a_name_with_control_characters_is_escaped_on_the_page(home: Home) -> None:
    name = "bad\x1b[2J\n# Equal"
    home.models[name] = home.models["base"]
    home.prove("--url", home.serve("llama.cpp", name), code=1)
    page = (home.folder / "proof/prove.md").read_text()
    assert "\x1b" not in page and "\n# Equal" not in page and "bad\\\\x1b[2J\\\\n# Equal at " in page


def test_no_file_of_somebody_else_is_replaced(tmp_path):
    (tmp_path / "prove.md").touch()
    with raises(RequestError, "prove.md would be replaced"):
        call(cli, "--model", "models/m", "--template", "default", "--out", tmp_path)
