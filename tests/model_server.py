"""Servers that have the tiny model inside, as llama.cpp, vLLM and others serve it."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.label_server import Answer, StandIn
from tuneyard.eval.models.load import Model

COMPUTED: dict[tuple[Any, ...], Any] = {}
"""Log-probabilities by model and ids: the tests ask the same models about the same rows again and again."""


class ServedStandIn(StandIn):
    """A server with models by name. The first one answers requests that name none."""

    def __init__(self, kind: str, models: dict[str, Model]) -> None:
        super().__init__(kind)
        self.models, self.model = models, next(iter(models))
        self.context = 2048
        self.tokenizer = models[self.model].tokenizer
        self.scales = [0.0] * (len(models) - 1)
        self.system = ""
        self.refused = ""
        """Part of the prompts that are refused."""
        self.ends: list[int] | None = None
        self.chats = 0
        self.on_chat: Callable[[], None] = lambda: None
        self.current = threading.local()
        self.forward = threading.Lock()
        self.logs, self.read = self.last_logs, self.logs_of_ids
        self.tokenize = lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def log_probabilities(self, ids: list[int]) -> Any:
        import torch

        net = self.models[self.current.name].net
        with self.forward, torch.inference_mode():
            if (net, *ids) not in COMPUTED:
                COMPUTED[net, *ids] = net(torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)
            return COMPUTED[net, *ids]

    def last_logs(self, ids: list[int]) -> list[float]:
        return self.log_probabilities(ids)[-1].tolist()

    def logs_of_ids(self, ids: list[int]) -> list[float]:
        return self.log_probabilities(ids)[range(len(ids) - 1), ids[1:]].tolist()

    def get(self, path: str) -> Any:
        names = list(self.models)
        if path == "/v1/models" and self.kind == "vllm":
            first = {"id": names[0], "owned_by": "vllm", "max_model_len": self.context, "parent": None}
            return {
                "data": [first, *({"id": one, "owned_by": "vllm", "parent": names[0]} for one in names[1:])]
            }
        if path == "/version" and self.kind == "vllm":
            return {"version": "0.26.0"}
        if path == "/lora-adapters" and self.kind == "llama.cpp":
            return [
                {"id": number, "path": f"/adapters/{name}.gguf", "scale": self.scales[number]}
                for number, name in enumerate(names[1:])
            ]
        return super().get(path)

    def post(self, path: str, body: Answer) -> Any:
        names = list(self.models)
        if self.kind == "vllm" and body.get("model") not in names:
            return None
        self.current.name = body.get("model") if body.get("model") in names else names[0]
        if self.kind == "llama.cpp":
            for adapter in body.get("lora", ()):
                self.current.name = names[1 + adapter["id"]]
            if "lora" not in body and 1.0 in self.scales:
                self.current.name = names[1 + self.scales.index(1.0)]
        if path == "/apply-template" and self.kind == "llama.cpp":
            return {"prompt": self.render(body["messages"])}
        if path == "/tokenize" and "messages" in body:
            return {"tokens": self.tokenize(self.render(body["messages"]))} if self.kind == "vllm" else None
        if self.refused and "completion" in path and self.refused in self.prompt_text(body):
            return None
        if path == "/v1/completions" and self.kind == "plain":
            return None
        if path == "/v1/chat/completions":
            self.on_chat()
            text, finish = self.greedy(self.tokenize(self.render(body["messages"])), body["max_tokens"])
            message = {"content": text}
            return {"model": body["model"], "choices": [{"message": message, "finish_reason": finish}]}
        if (
            not {"n_probs", "logprobs", "prompt_logprobs", "echo"} & body.keys()
            and self.kind != "plain"
            and "completion" in path
        ):
            text, finish = self.greedy(body["prompt"], body.get("n_predict") or body["max_tokens"])
            stop_type = {"stop": "eos", "length": "limit"}[finish]
            choices = [{"text": text, "finish_reason": finish}]
            return {"content": text, "stop_type": stop_type, "choices": choices, "model": body["model"]}
        answer = super().post(path, body)
        if isinstance(answer, dict) and "model" in answer:
            answer["model"] = body["model"]
        return answer

    def render(self, messages: list[dict[str, str]]) -> str:
        if self.system:
            messages = [{"role": "system", "content": self.system}, *messages]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def prompt_text(self, body: Answer) -> str:
        if "messages" in body:
            return self.render(body["messages"])
        first = body["prompt"][0]
        text: str = self.tokenizer.decode(first if isinstance(first, list) else body["prompt"])
        return text

    def greedy(self, ids: list[int], longest: int) -> tuple[str, str]:
        ends = self.models[self.current.name].net.generation_config.eos_token_id
        if self.ends is not None:
            ends = self.ends
        tokens: list[int] = []
        while len(tokens) < longest:
            token = int(np.argmax(self.last_logs([*ids, *tokens])))
            if token in ends:
                return self.tokenizer.decode(tokens, skip_special_tokens=True), "stop"
            tokens.append(token)
        return self.tokenizer.decode(tokens, skip_special_tokens=True), "length"
