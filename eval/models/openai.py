"""OpenAI-compatible servers, such as vLLM.

They read prompt and spelling and give the log-probabilities of both (`prompt_logprobs`, `echo`).
All spellings of a row are one request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.eval.models.batch_plan import Ids, Logs
from tuneyard.eval.models.connection import (
    RefusedError,
    ServerJson,
    UnreadableError,
)
from tuneyard.eval.models.generate import Generated
from tuneyard.eval.models.served import VLLM
from tuneyard.eval.models.server import (
    NoLogProbabilitiesError,
    Server,
    chat_request,
    choices_of,
    generated,
    log_of,
    read_ids,
)


@dataclass(eq=False)
class OpenAi(Server):
    """OpenAI's /completions with what vLLM adds, `prompt_logprobs`, or with `echo`."""

    way: str = ""

    def checked(self, sample: Ids) -> "OpenAi":
        """Choose a way to get the log-probabilities of a prompt."""
        reasons = []
        asked_once = replace(self.model, connection=replace(self.connection, few_tries=1))
        for way in WAYS:
            trial = replace(self, model=asked_once, way=way)
            try:
                self.connection.once(partial(trial.logs, sample[:1], [sample[1:]] * 2))
            except (RefusedError, UnreadableError) as error:
                reasons.append(_("{way}: {problem}", way=way, problem=error.problem))
            else:
                return replace(self, way=way)
        raise NoLogProbabilitiesError(
            self.url,
            _(
                "it gives no log-probabilities of prompts, which --mode choice needs ({reasons}). "
                "llama.cpp's server and vLLM give them. For this server, add --mode generate",
                reasons=joined(reasons, _("; ")),
            ),
        )

    async def greedy(self, ids: Ids, longest: int) -> Generated:
        """/completions without penalties, which vLLM takes from generation_config.json."""

        def read(answer: ServerJson) -> Generated:
            usage = answer.get("usage")
            if isinstance(usage, dict):
                self.check_length(usage.get("prompt_tokens", len(ids)), len(ids))
            choice = choices_of(answer)[0]
            return generated(choice["text"], choice)

        body = {"prompt": list(ids), "max_tokens": longest, "temperature": 0}
        if self.model.engine == VLLM:
            body["repetition_penalty"] = 1.0
        address = f"{self.url}/completions"
        return await self.post(address, body, read, _("completion"))

    async def prompt(self, talk: Messages) -> Ids:
        """/tokenize of messages, as vLLM has it."""
        address = f"{self.connection.root}/tokenize"
        request = {**chat_request(talk), "add_generation_prompt": True}
        return await self.post(address, request, read_ids, _("token ids"))

    def tokenizing(self, text: str) -> dict[str, object]:
        """vLLM names the text `prompt`."""
        return {"prompt": text, "add_special_tokens": False}

    async def logs(self, prompt: Ids, spellings: Sequence[Ids]) -> Logs:
        """One request for all spellings, each after the prompt."""
        more, read_choice = WAYS[self.way]
        prompts = [[*prompt, *spelling] for spelling in spellings]
        after = len(prompt)

        def read(answer: ServerJson) -> Logs:
            usage, sent = answer.get("usage"), sum(map(len, prompts))
            if isinstance(usage, dict):
                self.check_length(usage.get("prompt_tokens", sent), sent)
            choices = sorted(choices_of(answer), key=lambda choice: choice.get("index", 0))
            if len(choices) != len(prompts):
                raise ValueError(
                    _(
                        "{number} of `choices`, {expected} prompts were sent",
                        number=len(choices),
                        expected=len(prompts),
                    )
                )
            logs: Logs = {}
            for choice, ids in zip(choices, prompts, strict=True):
                for place, value in enumerate(read_choice(choice, ids, after), after + 1):
                    logs[tuple(ids[after:place])] = value
            return logs

        body = {"prompt": prompts, "max_tokens": 1, "temperature": 0, **more}
        return await self.post(f"{self.url}/completions", body, read)


def _read_prompt_logprobs(choice: ServerJson, ids: Ids, after: int) -> list[float]:
    """vLLM: for each token of the prompt an object of log-probabilities by token id."""
    by_place = choice["prompt_logprobs"]
    if len(by_place) != len(ids):
        raise ValueError(
            _(
                "log-probabilities of {number} tokens, {expected} were sent",
                number=len(by_place),
                expected=len(ids),
            )
        )
    return [log_of(by_place[place][str(ids[place])]["logprob"]) for place in range(after, len(ids))]


def _read_echo(choice: ServerJson, ids: Ids, after: int) -> list[float]:
    """OpenAI's old interface: the log-probabilities of prompt and answer in one list."""
    logs = choice["logprobs"]["token_logprobs"]
    if not len(ids) <= len(logs) <= len(ids) + 1:
        raise ValueError(
            _(
                "log-probabilities of {number} tokens, {expected} were sent",
                number=len(logs),
                expected=len(ids),
            )
        )
    return [log_of(logs[place]) for place in range(after, len(ids))]


ReadChoice = Callable[[ServerJson, Ids, int], list[float]]
WAYS: Mapping[str, tuple[Mapping[str, object], ReadChoice]] = {
    "prompt_logprobs": ({"prompt_logprobs": 1}, _read_prompt_logprobs),
    "echo": ({"echo": True, "logprobs": 1}, _read_echo),
}
"""The ways to get the log-probabilities of a prompt: a part of the request, and how to read a choice."""
