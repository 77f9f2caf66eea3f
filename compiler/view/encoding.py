"""The sequences of a row as LLaMA-Factory's own processor makes them, with the state of each token.

The processor runs once. Its template and its function for cut lengths are watched, so that the tokens that
cutoff_len drops are known too: it drops them from the end of each prompt and of each answer.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tuneyard.compiler.verify.audit import Row
from tuneyard.compiler.verify.learned import PAIRED
from tuneyard.compiler.view.payload import CUT, LEARNED, MASKED
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.loader import UNPACKED, WHOLE, RecipeData, replaced
from tuneyard.core.llamafactory.processors import processor_module
from tuneyard.core.llamafactory.prompt import Ids
from tuneyard.core.llamafactory.prompt.supervision import IGNORED

TEXT = "text"
"""Role of a text for pretraining, which has no messages."""


class EncodedMessage(NamedTuple):
    """A message as a template writes it: its role, its own text, and the tokens of both with the marks."""

    role: str
    content: str
    ids: Ids


@dataclass
class Encoding:
    """One call of a template: the messages that it wrote, and the pairs of prompt and answer in tokens."""

    system: str
    messages: list[EncodedMessage]
    pairs: Sequence[tuple[Ids, Ids]] = ()


class Segment(NamedTuple):
    """Consecutive tokens of a sequence, the messages in them, and how many of them cutoff_len keeps.

    Tokens that belong to no message are added by the template: an empty thought, the end of the text.
    """

    ids: Ids
    messages: Sequence[EncodedMessage]
    kept: int
    is_answer: bool = False
    system: str | None = None


class TokenSequence(NamedTuple):
    """One sequence of a row before the cut, and the state of each token.

    `trained_ids` are the tokens that LLaMA-Factory trains on, and `labels` its labels of them.
    `name` is chosen or rejected, `mark` good or bad, "" otherwise.
    """

    segments: Sequence[Segment]
    states: Sequence[int]
    trained_ids: Ids
    labels: Sequence[int]
    name: str = ""
    mark: str = ""

    @property
    def ids(self) -> Ids:
        """All tokens before the cut."""
        return [token for segment in self.segments for token in segment.ids]


Cuts = list[tuple[int, int, int, int]]
"""The lengths of a prompt and its answer before the cut and after it, call by call."""


class RowEncoder:
    """Encodes rows that LLaMA-Factory loaded, one at a time. `data` has a template and a tokenizer."""

    def __init__(self, data: RecipeData) -> None:
        self.stage = data.stage
        self.tokenizer = data.module["tokenizer"]
        self.args = data.data_args
        self.template = data.template
        self.encodings: list[Encoding] = []
        if self.stage == "pt":
            self.whole = data.encoder(**WHOLE)
            self.cut = data.encoder(**UNPACKED)
        else:
            self.module = processor_module(self.stage)
            self.cut = replace(data, template=_watched(data.template, self.encodings)).encoder(**UNPACKED)

    @property
    def is_packed_text(self) -> bool:
        """True for pretraining texts that LLaMA-Factory joins and cuts into blocks."""
        return self.stage == "pt" and bool(self.args.packing)

    def encode(self, row: Row) -> list[TokenSequence]:
        """The sequences of a row: two of a pair, one of others.

        `ContentError` if the processor did not make the sequence of the template's tokens. Errors of
        LLaMA-Factory (`expected_errors`) on rows that it cannot write pass through.
        """
        batch: Row = {name: [value] for name, value in row.items()}
        if self.stage == "pt":
            return [self._text(batch)]
        self.encodings.clear()
        cuts: Cuts = []
        compute = self.module.infer_seqlen

        def watched(source_length: int, target_length: int, cutoff: int) -> tuple[int, int]:
            kept: tuple[int, int] = compute(source_length, target_length, cutoff)
            cuts.append((source_length, target_length, *kept))
            return kept

        with replaced(self.module, infer_seqlen=watched):
            encoded = self.cut.preprocess_dataset(batch)
        mark = ""
        if self.stage == "kto":
            mark = "good" if encoded["kto_tags"][0] else "bad"
        prefixes: tuple[str, ...] = ("",)
        if self.stage == "rm":
            prefixes = PAIRED
        sides = []
        for prefix, encoding in zip(prefixes, self.encodings, strict=False):  # kto encodes a further answer
            ids = encoded[f"{prefix}input_ids"][0]
            if self.stage == "sft":
                segments = self._conversation(encoding, cuts, ids)
            else:
                segments = self._one_answer(encoding, cuts, ids)
            sides.append(_checked(segments, ids, encoded[f"{prefix}labels"][0], prefix.rstrip("_"), mark))
        return sides

    def _text(self, batch: Row) -> TokenSequence:
        """A text for pretraining: all tokens up to the cut are learned."""
        ids = list(self.whole.preprocess_dataset(batch)["input_ids"][0])
        kept = len(ids)
        if not self.is_packed_text:
            kept = len(self.cut.preprocess_dataset(batch)["input_ids"][0])
        message = EncodedMessage(TEXT, batch["_prompt"][0][0]["content"], ids)
        states = [LEARNED] * kept + [CUT] * (len(ids) - kept)
        return TokenSequence([Segment(ids, [message], kept)], states, ids[:kept], ids[:kept])

    def _conversation(self, encoding: Encoding, cuts: Cuts, ids: Ids) -> list[Segment]:
        """A conversation of stage sft: prompt and answer of each turn are cut by themselves."""
        order = list(range(len(encoding.pairs)))
        if self.args.mask_history:
            order.reverse()  # the last turn gets its room first
        lengths = dict.fromkeys(order, (0, 0))  # a turn without room is left out
        for turn, (*_unused, kept_prompt, kept_answer) in zip(order, cuts, strict=False):
            lengths[turn] = (kept_prompt, kept_answer)
        segments = []
        for turn, (prompt, answer) in enumerate(encoding.pairs):
            kept_prompt, kept_answer = lengths[turn]
            system = encoding.system if turn == 0 else None
            messages = encoding.messages[2 * turn : 2 * turn + 2]
            segments.append(Segment(prompt, messages[:1], kept_prompt, system=system))
            segments.append(Segment(answer, messages[1:], kept_answer, is_answer=True))
        if self.template.efficient_eos:  # an end after the last answer, which is never cut
            segments.append(Segment([self.tokenizer.eos_token_id], [], 1, is_answer=True))
        kept = sum(segment.kept for segment in segments)
        return [*self._media_prefix(ids, len(ids) - kept), *segments]

    def _one_answer(self, with_answer: Encoding, cuts: Cuts, ids: Ids) -> list[Segment]:
        """Prompt and answer of stages rm and kto, of which the answer already ends with the end of text.

        Both sides of a pair have the prompt of the chosen one.
        """
        prompted = self.encodings[0]
        ((prompt, _end),) = prompted.pairs
        ((_prompt, answer),) = with_answer.pairs
        prompt_length, _answer_length, kept_prompt, kept_answer = cuts[0]
        media = self._media_prefix(ids, min(prompt_length - len(prompt), kept_prompt))
        kept_prompt -= sum(len(segment.ids) for segment in media)
        return [
            *media,
            Segment(prompt, prompted.messages[:-1], kept_prompt, system=prompted.system),
            Segment(answer, with_answer.messages[-1:], kept_answer, is_answer=True),
        ]

    def _media_prefix(self, ids: Ids, length: int) -> list[Segment]:
        """Tokens of images that some models read before everything else."""
        return [Segment(list(ids[:length]), [], length)] if length > 0 else []


def _watched(template: Any, encodings: list[Encoding]) -> Any:
    """A copy of a template that adds each of its calls to `encodings`."""
    watched = copy(template)
    kind = type(template)

    def encode(tokenizer: Any, messages: Any, system: str | None, tools: str | None) -> Any:
        message_ids = kind._encode(watched, tokenizer, messages, system, tools)
        encoded = [
            EncodedMessage(message["role"], message["content"], list(ids))
            for message, ids in zip(messages, message_ids, strict=True)
        ]
        encodings.append(Encoding(system or template.default_system, encoded))
        return message_ids

    def encode_multiturn(*arguments: Any, **options: Any) -> Any:
        pairs = kind.encode_multiturn(watched, *arguments, **options)
        encodings[-1].pairs = pairs
        return pairs

    def encode_oneturn(*arguments: Any, **options: Any) -> Any:
        pair = kind.encode_oneturn(watched, *arguments, **options)
        encodings[-1].pairs = [pair]
        return pair

    vars(watched).update(_encode=encode, encode_multiturn=encode_multiturn, encode_oneturn=encode_oneturn)
    return watched


def _checked(
    segments: Sequence[Segment], ids: Ids, labels: Sequence[int], name: str, mark: str
) -> TokenSequence:
    """The sequence with its states. `ContentError` if its kept tokens are not those of the processor.

    So for a template of another model that writes a token which the tokenizer lacks.
    """
    if any(None in segment.ids for segment in segments):
        raise ContentError(_("the template writes a token that the tokenizer lacks"))
    kept_ids: Ids = []
    states = []
    for segment in segments:
        start = len(kept_ids)
        kept_ids += segment.ids[: segment.kept]
        of_segment = labels[start : len(kept_ids)]
        states += [MASKED if label == IGNORED else LEARNED for label in of_segment]
        states += [CUT] * (len(segment.ids) - segment.kept)
    if kept_ids != list(ids):
        raise ContentError(_("LLaMA-Factory's processor makes other tokens than its template writes"))
    return TokenSequence(segments, states, kept_ids, labels, name, mark)
