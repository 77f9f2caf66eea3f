"""Commands that use a server name what is wrong with its answers, in bounded time and memory, and resume.

A server that drips does so for 500 s, and what is told of it then is another error.
"""

import random
import tracemalloc
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.scoring import call, even_rows
from tests.hostile_server import SPOILED, SPOILED_LOGS, Hostile, serving
from tests.json_files import write_json
from tests.label_server import StandIn
from tests.messages import message_of
from tuneyard.core.errors import TuneyardError
from tuneyard.eval.models import connection as connecting
from tuneyard.eval.models import server as backend
from tuneyard.eval.models.load import open_tokenizer
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.runs.results import PREDICTIONS

pytestmark = pytest.mark.slow
ROWS = even_rows(12)
TIMEOUT = 4.0
"""Seconds of a server that hangs. Any other one may take more on a busy machine."""
MOST_BYTES = 150e6
FLOODS = ("an endless body", "endless headers", "endless early answers", "a bomb")
"""Their memory is traced, which takes most of the time of a run."""
Unbroken = dict[str, tuple[bytes, int]]
Start = Callable[..., tuple[Hostile, Callable[..., None], Path]]


@pytest.fixture(scope="module")
def stand_in(tiny_model: Path) -> StandIn:
    """llama.cpp with the tokens of the tiny model and any log-probabilities."""
    tokenizer, _ = open_tokenizer(str(tiny_model))
    server = StandIn("llama.cpp")
    server.context = 2048

    @lru_cache(4096)
    def logs(ids: tuple[int, ...]) -> list[float]:
        draw = random.Random(str(ids))
        logits = [draw.gauss(0, 3) for _ in range(len(tokenizer))]
        return (logits - np.logaddexp.reduce(logits)).tolist()

    server.logs = lambda ids: logs(tuple(ids))
    server.tokenize = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    return server


@pytest.fixture
def start(
    tiny_model: Path, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """`start("choice")`: a server, the command that scores by it, and the file of its predictions."""
    monkeypatch.setattr(connecting, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(connecting, "FEW_TRIES", 1)
    monkeypatch.setattr(backend, "ROWS", 4)
    write_json(tmp_path / "even.json", ROWS)

    def proper(path: str, body: Any) -> object:
        if path.endswith("/chat/completions"):
            return {"model": "served", "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
        return stand_in.get(path) if body is None else stand_in.post(path, body)

    hostile = Hostile(proper)
    with serving(hostile) as url:

        def begin(mode: str) -> tuple[Callable[..., None], Path]:
            server = ["--model", tiny_model, "--backend", "openai", "--url", url, "--mode", mode]

            def score(out: str, *more: object) -> None:
                call(nli, *server, "--data", tmp_path / "even.json", "--out", tmp_path / out, *more)

            return score, tmp_path

        yield lambda mode: (hostile, *begin(mode))


@pytest.fixture(scope="module")
def unbroken() -> Unbroken:
    """By mode: what a run writes whose server answers properly, and how many completions it asks for."""
    return {}


def torn_and_resumed(start: Start, unbroken: Unbroken, mode: str, name: str) -> None:
    """A run whose server spoils its answers in the middle fails, and is then resumed to the same bytes."""
    hostile, score, folder = start(mode)
    if mode not in unbroken:
        score("whole")
        predictions = folder / "whole" / "model" / "even" / PREDICTIONS
        unbroken[mode] = (predictions.read_bytes(), hostile.completions)
    whole, completions = unbroken[mode]
    hostile.spoil_from = completions * 3 // 4
    hostile.completions = 0
    hostile.spoil, fact = {**SPOILED, **SPOILED_LOGS}[name]
    if name in FLOODS:
        tracemalloc.start()
    with pytest.raises(TuneyardError) as caught:
        score("torn", *(("--timeout", TIMEOUT) if fact == "--timeout" else ()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST_BYTES
    message = message_of(caught.value)
    assert fact in message and "http://127.0.0.1" in message and len(message) < 900
    assert message.isprintable() or "\n" in message
    torn = folder / "torn" / "model" / "even" / PREDICTIONS
    assert torn.read_bytes().count(b"\n") in (4, 8)
    hostile.spoil = None
    score("torn", "--resume")
    assert torn.read_bytes() == whole


@pytest.mark.parametrize("name", SPOILED)
def test_generation(start: Start, unbroken: Unbroken, name: str) -> None:
    torn_and_resumed(start, unbroken, "generate", name)


# The connection is the same as for generation: some ways suffice.
@pytest.mark.parametrize(
    "name", ["an error", "deep JSON", "a redirect", "a cut body", "a hang", *SPOILED_LOGS]
)
def test_choice(start: Start, unbroken: Unbroken, name: str) -> None:
    torn_and_resumed(start, unbroken, "choice", name)
