"""Servers with log-probabilities of labels, as llama.cpp, vLLM and `echo` state them."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tests.serving import Quiet, serving

VOCABULARY = 300
WORDS = {
    "yes": [1], "Yes": [2], " yes": [3], " Yes": [4], "no": [5], "No": [6], " no": [7], " No": [8],
    "maybe": [9, 10], "Maybe": [11, 12, 13], " maybe": [14], " Maybe": [9, 15],
}  # fmt: skip
Answer = dict[str, Any]


def words_to_ids(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
    """A tokenizer of a few words and of letters."""
    return {"input_ids": WORDS.get(text, [50 + ord(letter) % 200 for letter in text])}


@cache
def drawn_logs(ids: tuple[int, ...]) -> list[float]:
    draw = random.Random(str(ids))
    logits = [draw.gauss(0, 3) for _ in range(VOCABULARY)]
    return (logits - np.logaddexp.reduce(logits)).tolist()


def next_logs(ids: Sequence[int]) -> list[float]:
    """Log-probabilities of all tokens after the ids: any numbers, the same each time."""
    return drawn_logs(tuple(ids))


class StandIn:
    """A server of one `kind`. A test may change its settings, or each answer by `spoil`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model = "served"
        self.size = 17
        self.owner: str | None = None
        self.context = 64
        self.logs = next_logs
        self.read = self.prompt_logs
        self.tokenize: Callable[[str], list[int]] | None = lambda text: words_to_ids(text)["input_ids"]
        self.plan: list[tuple[int, float]] = []
        """Status and seconds of waiting for the next completions."""
        self.spoil: Callable[[Answer], Any] = lambda answer: answer
        self.requests: list[Answer] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def get(self, path: str) -> Answer | None:
        if path == "/v1/models":
            entry = {"id": self.model, "owned_by": self.owner, "max_model_len": self.context}
            return {"data": [{**entry, "meta": {"size": self.size}}]}
        if path == "/props" and self.kind == "llama.cpp":
            return {
                "default_generation_settings": {"n_ctx": self.context},
                "total_slots": 4,
                "model_path": "m.gguf",
            }
        return None

    def post(self, path: str, body: Answer) -> Any:
        if path == "/tokenize" and self.tokenize:
            return {"tokens": self.tokenize(body.get("content") or body["prompt"])}
        if path == "/completion" and self.kind == "llama.cpp":
            return self.spoil(self.llama_cpp(body))
        if path == "/v1/completions" and self.kind != "llama.cpp":
            return self.spoil(self.completions(body))
        return None

    def prompt_logs(self, ids: Sequence[int]) -> list[float]:
        """Log-probability of each token of a prompt after those before it, without the first."""
        return [self.logs(ids[:place])[ids[place]] for place in range(1, len(ids))]

    def llama_cpp(self, body: Answer) -> Answer:
        logs = self.logs(body["prompt"])
        order = sorted(range(len(logs)), key=lambda token: -logs[token])
        token = body["logit_bias"][0][0] if "logit_bias" in body else order[0]
        tops = [{"id": top, "logprob": logs[top]} for top in order[: body["n_probs"]]]
        return {
            "model": self.model,
            "tokens_evaluated": len(body["prompt"]),
            "truncated": False,
            "completion_probabilities": [{"id": token, "logprob": logs[token], "top_logprobs": tops}],
        }

    def completions(self, body: Answer) -> Answer:
        """All prompts of a request, in any order: a choice has the number of its prompt."""
        choices = [{"index": n, **self.choice(body, ids)} for n, ids in enumerate(body["prompt"])]
        usage = {"prompt_tokens": sum(map(len, body["prompt"]))}
        return {"model": self.model, "choices": choices[::-1], "usage": usage}

    def choice(self, body: Answer, ids: Sequence[int]) -> Answer:
        choice: Answer = {"text": "?", "logprobs": None}
        read = []
        if "prompt_logprobs" in body or "echo" in body:
            read = [None, *self.read(ids)]
        if self.kind == "vllm" and "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [
                value if value is None else {str(token): {"logprob": value}, "0": {"logprob": -1.0}}
                for token, value in zip(ids, read, strict=True)
            ]
        if self.kind == "echo" and body.get("echo"):
            choice["logprobs"] = {"token_logprobs": [*read, -0.5]}
        return choice


class Handler(Quiet, BaseHTTPRequestHandler):
    stand_in: StandIn

    def do_GET(self) -> None:
        self.answer(self.stand_in.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.body())
        stand_in = self.stand_in
        if "completion" not in self.path:
            self.answer(stand_in.post(self.path, body))
            return
        with stand_in.lock:
            stand_in.requests.append(body)
            stand_in.at_once += 1
            stand_in.most_at_once = max(stand_in.most_at_once, stand_in.at_once)
            status, wait = stand_in.plan.pop(0) if stand_in.plan else (200, 0.0)
        time.sleep(wait)
        with stand_in.lock:
            stand_in.at_once -= 1
        if status == 200:
            self.answer(stand_in.post(self.path, body))
        else:
            self.answer({"error": "busy"}, status)

    def answer(self, answer: Any, status: int = 200) -> None:
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            status = answer["error"]["code"]
        if answer is None:
            answer, status = {"error": "unknown"}, 404
        with suppress(OSError):  # the client waited long enough
            self.send(json.dumps(answer).encode(), status)


class Web(ThreadingHTTPServer):
    request_queue_size = 64  # connections that wait: more than requests are in flight


@contextmanager
def started(stand_in: StandIn) -> Iterator[str]:
    """Address of a stand-in that serves inside the block."""
    handler = type("Served", (Handler,), {"stand_in": stand_in})
    with serving(Web(("127.0.0.1", 0), handler)) as url:
        yield f"{url}/v1"
