"""Sampled answers that are shown while they are generated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import ContentError, RequestError

if TYPE_CHECKING:
    from eval.backends.load import Model

DRAWING = ("temperature", "top_p", "top_k", "min_p")
OPEN, CLOSE = "<think>", "</think>"


class ThoughtFilter:
    """Lets a text through piece by piece without its <think> part, wherever the pieces are cut."""

    def __init__(self) -> None:
        self._held, self._inside, self._begun = "", False, False

    def feed(self, piece: str) -> str:
        """Return what of the text so far can be shown now; blank space before the answer cannot."""
        self._held += piece
        shown = ""
        while True:
            tag = CLOSE if self._inside else OPEN
            before, found, after = self._held.partition(tag)
            if not found:
                break
            shown += before * (not self._inside)
            self._held, self._inside = after, not self._inside
        kept = max(n for n in range(len(tag)) if self._held.endswith(tag[:n]))
        cut = len(self._held) - kept
        shown += self._held[:cut] * (not self._inside)
        self._held = self._held[cut:]
        return self._after_blanks(shown)

    def end(self) -> str:
        """Return what was held back because it could have begun a thought."""
        return "" if self._inside else self._after_blanks(self._held)

    def _after_blanks(self, shown: str) -> str:
        shown = shown if self._begun else shown.lstrip()
        self._begun = self._begun or bool(shown)
        return shown


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings by name: the longest answer in tokens, and how a chat draws it.

    Scoring with a preset draws as the model's own generation_config says.
    """

    max_new_tokens: int
    chat: Mapping[str, float]


PRESETS = {
    "document": Preset(
        512, {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    )
}
"""`document`: the guide of the 7B QLoRA recipe for a chat, that of RTE and MNLI for scoring."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: `settings` in the words of transformers' `generate`; no temperature is greedy."""

    max_new_tokens: int
    settings: Mapping[str, float]

    def arguments(self) -> dict[str, Any]:
        """Return what `generate` takes."""
        draws = bool(self.settings.get("temperature"))
        kept = {name: value for name, value in self.settings.items() if draws or name not in DRAWING}
        return {"do_sample": draws, "max_new_tokens": self.max_new_tokens, **kept}


def choose_sampling(
    model: "Model", preset: str | None, max_new_tokens: int, given: Mapping[str, float | None]
) -> Sampling:
    """Return what is `given`, beside it a preset's settings or else those that the model ships."""
    own = PRESETS[preset].chat if preset else model.sampling
    return Sampling(max_new_tokens, {**own, **{name: x for name, x in given.items() if x is not None}})


def stream(model: "Model", prompt: Sequence[int], sampling: Sampling, show: Callable[[str], None]) -> None:
    """Generate an answer to a prompt (ids), giving its text to `show` as words get whole.

    `RequestError` if the memory does not hold it, `ContentError` if the probabilities are no numbers.
    """
    import torch
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc]  # transformers comes without types
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
            show(text)

    ids = torch.tensor([list(prompt)], device=model.device)
    try:
        with torch.inference_mode():
            model.net.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                streamer=Pieces(model.tokenizer, skip_prompt=True, skip_special_tokens=True),
                **sampling.arguments(),
            )
    except torch.OutOfMemoryError as error:
        raise RequestError(f"out of memory with a prompt of {len(prompt)} tokens") from error
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise ContentError("the model's probabilities are no numbers: try --dtype fp32") from error
