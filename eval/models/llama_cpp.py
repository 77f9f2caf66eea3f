"""llama.cpp's server.

It lists the most likely next tokens after each beginning of a spelling. It is made to take a token outside of
them, and reports that token's true log-probability.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.eval.models.batch_plan import Ids, Logs, next_tokens
from tuneyard.eval.models.connection import (
    Result,
    ServerJson,
)
from tuneyard.eval.models.generate import LENGTH, STOP, Generated
from tuneyard.eval.models.served import LLAMA_CPP, writable
from tuneyard.eval.models.server import UNDERFLOW, ReadAnswer, Server, chat_request, log_of, read_ids, text_in

LISTED = 1000  # next tokens that are listed
EVERY = 1 << 20  # the same for the whole vocabulary
FORCING = 1e6  # added to a logit
FINISHES = {"eos": STOP, "word": STOP, "limit": LENGTH}
"""llama.cpp's reasons for the end of an answer in OpenAI's words."""
NEUTRAL: Mapping[str, object] = {"temperature": 0, "samplers": ["temperature"], "mirostat": 0}
"""Greedy, without the penalties that a server may set."""


@dataclass(eq=False)
class LlamaCpp(Server):
    """llama.cpp's own interface, /completion.

    It reports no probabilities with a token that ends within a character (UTF-8 has up to four bytes).
    `whole` is a token of whole characters, which it takes in such a token's place. `checked` sets it.
    """

    ENGINE = LLAMA_CPP
    whole: int = 0

    def checked(self, sample: Ids) -> "LlamaCpp":
        """Every release since December 2024 gives log-probabilities."""
        return replace(self, whole=sample[0])

    async def greedy(self, ids: Ids, longest: int) -> Generated:
        """/completion without the server's penalties."""

        def read(answer: ServerJson) -> Generated:
            self.check_length(answer.get("tokens_evaluated", len(ids)), len(ids))
            finish = FINISHES.get(text_in(answer.get("stop_type"), "stop_type"))
            return Generated(writable(answer["content"]), finish)

        body = {"prompt": list(ids), "n_predict": longest, **NEUTRAL}
        address = f"{self.connection.root}/completion"
        return await self.post(address, body, read, _("completion"))

    async def prompt(self, talk: Messages) -> Ids:
        """/apply-template, then /tokenize, which adds BOS."""
        root = self.connection.root
        asking = chat_request(talk)
        text = await self.post(
            f"{root}/apply-template", asking, lambda answer: writable(answer["prompt"]), _("prompt")
        )
        request = {"content": text, "add_special": True, "parse_special": True}
        return await self.post(f"{root}/tokenize", request, read_ids, _("token ids"))

    def tokenizing(self, text: str) -> dict[str, object]:
        """llama.cpp names the text `content`."""
        return {"content": text, "add_special": False}

    async def logs(self, prompt: Ids, spellings: Sequence[Ids]) -> Logs:
        """One request for each beginning of a spelling, and one for each token that it does not list.

        The whole prompt is read anew. What the server reuses of another row's prompt changes its rounding by
        about 0.002 nats, so that a resumed run would have other bytes. The questions after it reuse this
        prompt.
        """
        logs: Logs = {}
        for begin, tokens in next_tokens(spellings):
            ids = [*prompt, *begin]
            listed = await self._listed(ids, LISTED, reads_anew=not logs)
            for token in tokens:
                if token not in listed:
                    listed[token] = await self._forced(ids, token)
                logs[(*begin, token)] = listed[token]
        return logs

    async def _forced(self, ids: Ids, token: int) -> float:
        """Log-probability of a token that a bias makes the server take. The bias is for sampling alone."""

        def read(answer: ServerJson) -> float | None:
            if "completion_probabilities" not in answer and "content" in answer:
                return None  # a part of a character
            step = self.read_step(answer, len(ids))
            if step["id"] != token:
                raise ValueError(
                    _("token {id} instead of {token}, which logit_bias forces", id=step["id"], token=token)
                )
            return log_of(step["logprob"])

        value = await self._step(ids, {"n_probs": 1, "logit_bias": [[token, FORCING]]}, read)
        if value is None:
            value = (await self._listed(ids, EVERY)).get(token, UNDERFLOW)
        return value

    async def _listed(self, ids: Ids, count: int, *, reads_anew: bool = False) -> dict[int, float]:
        """Log-probabilities of the most likely tokens after the ids, before any sampling."""

        def read(answer: ServerJson) -> dict[int, float]:
            tops = self.read_step(answer, len(ids))["top_logprobs"]
            return {top["id"]: log_of(top["logprob"]) for top in tops}

        bias = [[self.whole, FORCING]]
        settings = {"n_probs": count, "logit_bias": bias, "cache_prompt": not reads_anew}
        return await self._step(ids, settings, read)

    async def _step(self, ids: Ids, more: Mapping[str, object], read: ReadAnswer[Result]) -> Result:
        """Generate one token after the ids, with `more` settings."""
        body = {
            "prompt": list(ids), "n_predict": 1, "temperature": 0, "post_sampling_probs": False,
            "cache_prompt": True, **more,
        }  # fmt: skip
        return await self.post(f"{self.connection.root}/completion", body, read)

    def read_step(self, answer: ServerJson, tokens: int) -> ServerJson:
        """The probabilities of the only generated token. `RequestError` if the prompt was cut."""
        self.check_length(answer.get("tokens_evaluated", tokens), tokens)
        if answer.get("truncated"):
            self.check_length(None, tokens)
        (step,) = answer["completion_probabilities"]
        return dict(step)
