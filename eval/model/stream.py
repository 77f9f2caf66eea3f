"""Sampled answers that are shown while they are generated."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from core.errors import ContentError, RequestError

if TYPE_CHECKING:
    from eval.model.load import Model

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
class Sampling:
    """How tokens are drawn, in the words of transformers' `generate`; a temperature of 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    repetition_penalty: float
    no_repeat_ngram_size: int

    def arguments(self) -> dict[str, Any]:
        """Return what `generate` takes."""
        given = asdict(self)
        if not self.temperature:
            del given["temperature"], given["top_p"]
        return {"do_sample": bool(self.temperature), **given}


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
