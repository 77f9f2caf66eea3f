"""Log-probabilities of labels from servers: stand-ins for llama.cpp, vLLM and `echo`, and hostile ones."""

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from tests.label_server import VOCABULARY, WORDS, Answer, StandIn, next_logs, started, words_to_ids
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.messages import one_command
from tuneyard.eval import models as backends
from tuneyard.eval.models import connection as connecting
from tuneyard.eval.models import llama_cpp
from tuneyard.eval.models.batch_plan import BatchPlan
from tuneyard.eval.models.connection import Connection
from tuneyard.eval.models.open_server import open_server
from tuneyard.eval.models.openai import OpenAi
from tuneyard.eval.models.served import read_models
from tuneyard.eval.models.server import UNDERFLOW, Server

LABELS = {
    "yes": ["yes", "Yes", " yes", " Yes"],
    "no": ["no", "No", " no", " No"],
    "maybe": ["maybe", "Maybe", " maybe", " Maybe"],
}
PROMPTS = {row: [20 + row, 21, 22 + row] for row in range(40)}


def expected_score(prompt: Sequence[int], spellings: Sequence[str]) -> float:
    """Log-probability of a label, worked out token by token."""
    logs = []
    for text in spellings:
        ids, total = list(prompt), 0.0
        for token in WORDS[text]:
            total += next_logs(ids)[token]
            ids.append(token)
        logs.append(total)
    return np.logaddexp.reduce(logs)


Serve = Callable[[str], tuple[StandIn, Connection]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a stand-in of a kind; the server and a connection to it."""
    monkeypatch.setattr(connecting, "WAITS", (0.0, 0.0))
    with ExitStack() as stack:

        def start(kind: str) -> tuple[StandIn, Connection]:
            stand_in = StandIn(kind)
            return stand_in, Connection(stack.enter_context(started(stand_in)), 20.0)

        yield start


def opened(connection: Connection, name: str = "here", is_exact_name: bool = False) -> Server:
    server = open_server(read_models(connection, name), name, is_exact_name)
    return server.with_labels(words_to_ids, [0])  # type: ignore[arg-type]


def scoring(serve: Serve, kind: str) -> tuple[StandIn, BatchPlan]:
    """A stand-in of a kind, and what scores LABELS after PROMPTS by it."""
    stand_in, connection = serve(kind)
    return stand_in, opened(connection).choosing(PROMPTS, LABELS)


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "echo"])
def test_a_label_is_the_sum_of_its_spellings_of_one_token_or_several(serve, kind):
    stand_in, batch_plan = scoring(serve, kind)
    assert [len(batch) for batch in batch_plan.batches] == [32, 8]
    stand_in.plan = [(200, 0.3)] * 8  # the first ones are held until the others are there
    for batch in batch_plan.batches:
        for row, fields in zip(batch, batch_plan.score(batch), strict=True):
            for label, spellings in LABELS.items():
                assert fields["choices"][label] == pytest.approx(
                    expected_score(PROMPTS[row], spellings), abs=2e-4
                )
            assert fields["model_output"] == max(fields["choices"], key=fields["choices"].get)
            mass = math.fsum(map(math.exp, fields["choices"].values()))
            assert fields["label_mass"] == pytest.approx(mass, abs=1e-5)
    assert 2 < stand_in.most_at_once <= (4 if kind == "llama.cpp" else connecting.AT_ONCE)


def test_a_row_is_one_request_or_in_llama_cpp_one_for_each_beginning(serve):
    for kind, count in (("vllm", 1), ("echo", 1), ("llama.cpp", 4)):  # (), 9, 11 and 11 12
        stand_in, batch_plan = scoring(serve, kind)
        stand_in.requests.clear()
        batch_plan.score(range(8))
        assert len(stand_in.requests) == 8 * count


def test_tokens_that_llama_cpp_does_not_list_are_forced(serve, monkeypatch):
    stand_in, batch_plan = scoring(serve, "llama.cpp")
    listed = batch_plan.score(range(2))
    monkeypatch.setattr(llama_cpp, "LISTED", 2)
    stand_in.requests.clear()
    assert batch_plan.score(range(2)) == listed
    assert any(body["n_probs"] == 1 for body in stand_in.requests)


def test_llama_cpp_reads_each_row_anew_so_that_other_rows_do_not_change_its_rounding(serve):
    stand_in, batch_plan = scoring(serve, "llama.cpp")
    stand_in.requests.clear()
    batch_plan.score([3])
    first, *others = stand_in.requests
    assert first["prompt"] == PROMPTS[3] and not first["cache_prompt"]
    assert others and all(body["cache_prompt"] for body in others)  # they go on after the row's own prompt


def test_a_token_that_ends_within_a_character_has_no_probabilities_in_llama_cpp(serve):
    stand_in, connection = serve("llama.cpp")
    parts = {max(range(VOCABULARY), key=next_logs(PROMPTS[0]).__getitem__), 13}

    def without(answer: Answer) -> Answer:
        (step,) = answer["completion_probabilities"]
        if step["id"] in parts:
            return {"content": "\ufffd", "tokens_evaluated": answer["tokens_evaluated"]}
        return answer

    stand_in.spoil = without
    labels = {"maybe": ["Maybe"], "yes": ["Yes"]}
    (fields,) = opened(connection).choosing(PROMPTS, labels).score([0])
    for label, spellings in labels.items():
        assert fields["choices"][label] == pytest.approx(expected_score(PROMPTS[0], spellings), abs=2e-4)


@pytest.mark.parametrize("lowest", [-3.4028234663852886e38, -9999.0])
def test_a_probability_of_zero_is_bounded(serve, lowest):
    stand_in, connection = serve("llama.cpp")
    batch_plan = opened(connection).choosing(PROMPTS, {"yes": [" yes"], "no": ["no"]})

    def never_yes(answer: Answer) -> Answer:
        (step,) = answer["completion_probabilities"]
        step["top_logprobs"] = [top for top in step["top_logprobs"] if top["id"] != 3]
        if step["id"] == 3:
            step["logprob"] = lowest
        return answer

    stand_in.spoil = never_yes
    (fields,) = batch_plan.score([0])
    assert fields["choices"]["yes"] == pytest.approx(UNDERFLOW, abs=1e-5)


def test_a_server_without_log_probabilities_is_refused_with_the_reason(serve):
    stand_in, connection = serve("plain")
    with raises(RequestError, "prompt_logprobs", "echo", "--mode generate"):
        opened(connection)
    assert len(stand_in.requests) == 2  # each way once


def test_a_server_whose_weights_overflow_is_named_when_it_is_opened(serve):
    stand_in, connection = serve("vllm")
    stand_in.spoil = with_logs(None)
    with raises(ContentError, connection.url, "null"):
        opened(connection)


def test_a_reason_for_an_end_that_is_no_text_is_named(serve, monkeypatch):
    stand_in, connection = serve("llama.cpp")
    server = opened(connection)
    monkeypatch.setattr(stand_in, "llama_cpp", lambda _: {"content": "yes", "stop_type": 0})
    with raises(RequestError, connection.url, "stop_type"):
        connection.once(lambda: server.greedy([1], 1))


def test_timeouts_are_tried_again(serve):
    stand_in, connection = serve("vllm")
    batch_plan = opened(Connection(connection.url, 1.0)).choosing(PROMPTS, LABELS)
    whole = batch_plan.score(range(8))
    stand_in.plan = [(200, 1.5)]
    assert batch_plan.score(range(8)) == whole


def test_a_server_that_hangs_is_given_up(serve, monkeypatch):
    stand_in, connection = serve("vllm")
    monkeypatch.setattr(connecting, "WAITS", (0.0,) * 50)
    batch_plan = opened(Connection(connection.url, 0.2)).choosing(PROMPTS, LABELS)
    stand_in.plan = [(200, 1.0)] * 100
    # On a busy machine two tries may take three times the limit. The golden wording has one number of tries.
    with pytest.raises(RequestError, match=r"no answer in [23] tries .* 0.2 s.*--resume"):
        batch_plan.score([0])


def cut(answer: Answer) -> Answer:
    for choice in answer["choices"]:
        if "prompt_logprobs" in choice:
            choice["prompt_logprobs"].pop()
        choice["logprobs"] = None
    return answer


def test_an_echo_of_a_longer_prompt_gives_no_figure(serve):
    def shift(answer: Answer) -> Answer:
        for choice in answer["choices"]:
            choice["logprobs"]["token_logprobs"][:0] = [-1.0, -1.0]
        return answer

    stand_in, batch_plan = scoring(serve, "echo")
    stand_in.spoil = shift
    with raises(RequestError, "log-probabilities of"):
        batch_plan.score([0])


def with_logs(value: object) -> Callable[[Answer], Answer]:
    def spoil(answer: Answer) -> Answer:
        for choice in answer["choices"]:
            for place in choice["prompt_logprobs"][1:]:
                for entry in place.values():
                    entry["logprob"] = value
        return answer

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [cut, with_logs("x"), with_logs(3.0), with_logs(True), lambda _: [1], lambda _: {"choices": {}}],
)
def test_nonsense_is_tried_again_and_then_named(serve, spoil):
    stand_in, batch_plan = scoring(serve, "vllm")
    stand_in.requests.clear()
    stand_in.spoil = spoil
    with raises(RequestError, "3 tries", "--resume"):
        batch_plan.score([0])
    assert len(stand_in.requests) == 3


def test_another_tokenizer_is_refused(serve):
    stand_in, connection = serve("vllm")
    stand_in.tokenize = lambda _: [1, 2, 3]
    with raises(RequestError, "another model", [1, 2, 3]):
        opened(connection)


def test_without_a_way_to_compare_the_tokenizers_it_warns(serve, capsys):
    stand_in, connection = serve("vllm")
    stand_in.tokenize = None
    opened(connection)
    assert "/tokenize" in capsys.readouterr().err


def answering(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
    """Let a stand-in answer these addresses, and the others as before."""
    get = stand_in.get
    monkeypatch.setattr(stand_in, "get", lambda path: answers.get(path) or get(path))


@pytest.mark.parametrize("owner", ["llama.cpp", "vLLM"])
def test_who_owns_a_model_does_not_choose_how_it_is_asked(serve, monkeypatch, owner):
    stand_in, connection = serve("echo")
    answering(stand_in, monkeypatch, {"/v1/models": {"data": [{"id": "served", "owned_by": owner}]}})
    server = opened(connection)
    assert isinstance(server, OpenAi)
    assert server.model.engine == "OpenAI-compatible server"


def test_an_adapter_with_the_name_of_its_model_is_asked_for_by_its_number(serve, monkeypatch):
    stand_in, connection = serve("llama.cpp")
    adapters = [{"id": 0, "path": "a/served.gguf", "scale": 0.0}]
    answering(stand_in, monkeypatch, {"/lora-adapters": adapters})
    server = opened(connection, "served", True)
    model, adapter = server.offers
    assert (model.name, adapter.name) == ("served", "served")
    assert server.model is model
    assert adapter.settings == {"cache_prompt": False, "lora": [{"id": 0, "scale": 1.0}]}


def test_two_adapters_of_one_file_name_are_told_by_their_paths(serve, monkeypatch):
    stand_in, connection = serve("llama.cpp")
    paths = ["a/x.gguf", "b/x.gguf", "b/y.gguf"]
    adapters = [{"id": number, "path": path, "scale": 0.0} for number, path in enumerate(paths)]
    answering(stand_in, monkeypatch, {"/lora-adapters": adapters})
    _model, *offers = opened(connection).offers
    assert [offer.name for offer in offers] == ["a/x.gguf", "b/x.gguf", "y"]


@pytest.mark.parametrize("key", ["id", "scale"])
def test_a_number_of_an_adapter_that_is_none_is_named(serve, monkeypatch, key):
    stand_in, connection = serve("llama.cpp")
    huge = {"id": 0, "path": "a/b.gguf", "scale": 0.0} | {key: float("inf") if key == "id" else 10**400}
    answering(stand_in, monkeypatch, {"/lora-adapters": [huge]})
    with raises(RequestError, "/lora-adapters", "list of adapters"):
        opened(connection)


def test_a_model_that_changes_during_the_run_is_noticed(serve):
    stand_in, batch_plan = scoring(serve, "vllm")
    stand_in.size = 18
    with raises(RequestError, "changed", "meta", "--resume"):
        batch_plan.score([0])
    stand_in.size = 17
    stand_in.spoil = lambda answer: {**answer, "model": "new"}
    with raises(RequestError, "new", "served", "changed", "--resume"):
        batch_plan.score([0])


def test_a_server_that_cuts_prompts_is_refused(serve):
    stand_in, batch_plan = scoring(serve, "llama.cpp")
    stand_in.spoil = lambda answer: {**answer, "tokens_evaluated": 2}
    with raises(RequestError, "2 tokens", "3", "context"):
        batch_plan.score([0])


def test_prompts_that_exceed_the_servers_context_are_not_sent(serve):
    _, connection = serve("llama.cpp")
    batch_plan = opened(connection).choosing({0: [20] * 61, 1: [20] * 62}, LABELS)
    assert batch_plan.batches == [[0]]
    assert "64" in batch_plan.too_long[1]


def test_an_address_where_nobody_listens_is_said_at_once_and_only_once(monkeypatch, capsys):
    monkeypatch.setattr(connecting, "WAITS", (0.01, 0.01))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nobody = Connection(f"http://127.0.0.1:{port}/v1", 1.0)
    with pytest.raises(RequestError, match="no answer in 1 try .*; start the server"):
        opened(nobody)
    nobody.reached.add("GET")
    with one_command():
        for _ in range(2):
            with pytest.raises(RequestError, match="no answer in 3 tries"):
                opened(nobody)
    warned = [line for line in capsys.readouterr().err.splitlines() if f":{port}" in line]
    assert len(warned) == 1 and "Trying again" in warned[0]


def test_a_dialect_is_one_new_file(serve, tmp_path, monkeypatch):
    code = "from tuneyard.eval.models.openai import OpenAi\n\n\nclass Mine(OpenAi):\n    ENGINE = 'mine'\n"
    (tmp_path / "my_dialect.py").write_text(code)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    stand_in, connection = serve("vllm")
    stand_in.owner = "mine"
    assert type(open_server(read_models(connection, "served"), "served", True)).__name__ == "Mine"
