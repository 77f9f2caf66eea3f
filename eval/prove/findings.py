"""What the evidence shows: differing parts of prompts, distances of log-probabilities, texts that differ.

The rules of the diagnosis read these findings.
"""

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.scorers import Messages
from tuneyard.eval.prove.evidence import Evidence
from tuneyard.eval.prove.proof import Ids, Labels, likeliest

PROMPTS, LABELS, TEXTS, CHAT, REFUSED = "prompts", "labels", "texts", "chat", "refused"
BASE, SCALE = "base", "scale"  # what a server applies instead of the adapter
FULL_TYPES = ("F32", "F16", "BF16")
FULL_BITS = 12.0  # a weight; quantised files have fewer
CLOSER = 4.0  # times by which a cause's log-probabilities must be closer to the server's than the adapter's
NOTICEABLE = 1e-3  # nats, above the rounding of f16
REPEATS = 3  # of answers that may be sampled
LONGEST_OPENING = 200  # characters of a thought that opens an answer
NO_SAMPLING = {"temperature": 0}
NO_PENALTIES = {
    "temperature": 0, "repeat_penalty": 1, "repetition_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0, "dry_multiplier": 0,
}  # fmt: skip
THOUGHT_AT_END = re.compile(r"<(?P<tag>[^<>/]*think[^<>]*)>\s*(</(?P=tag)>\s*)?$", re.I)
THOUGHT_AT_START = re.compile(r"\s*<[^<>/]*think[^<>]*>\s*(?!\s*</)", re.I)
MARK = re.compile(r"<[^<>]*>|\[/?[A-Z_]+\]")
ROLE = re.compile(r"^\s*(system|user|human|assistant)\s*(\n|$)|(user|human):\s*$", re.I)
LOADERS = (  # text, keeps rsLoRA, keeps rank_pattern in the scale, keeps alpha_pattern
    ("in the scale alpha/r (rsLoRA dropped)", False, True, True),
    ("with one alpha for all modules (alpha_pattern dropped)", True, True, False),
    ("in one scale for all modules (rank_pattern and alpha_pattern dropped)", True, False, False),
    ("in the scale alpha/r with one alpha (rsLoRA and alpha_pattern dropped)", False, True, False),
    ("in one scale alpha/r (rsLoRA, rank_pattern and alpha_pattern dropped)", False, False, False),
)


@dataclass(frozen=True, slots=True)
class PromptDifference:
    """The parts of a row's prompt in which the server's differs from the training's.

    `thoughts` and `systems` are (training's, server's). `rest` is True if the prompts differ in more.
    """

    doubled_bos: bool
    thoughts: tuple[str, str] | None
    systems: tuple[str, str] | None
    rest: bool


@dataclass(frozen=True, slots=True)
class Distance:
    """Differences between two sets of log-probabilities, in nats. `spread` is the share of rows with any."""

    mean: float
    largest: float
    spread: float
    flips: int


@dataclass(frozen=True, slots=True)
class OtherModel:
    """What a server may serve instead of the adapter (BASE or SCALE), in words, and its log-probabilities.

    `labels` is None if the dataset has no set of labels.
    """

    name: str
    text: str
    labels: Labels | None


@dataclass(frozen=True)
class Findings:
    """Evidence with what several rules derive from it. Further questions are asked once, when first used."""

    evidence: Evidence

    @cached_property
    def prompts(self) -> Mapping[int, PromptDifference]:
        """The rows whose prompts differ."""
        served_ids = self.evidence.served_ids or {}
        differing = {}
        for row, expected in self.evidence.expected_ids.items():
            if row in served_ids and list(served_ids[row]) != list(expected):
                differing[row] = compare_prompts(self.evidence, row)
        return differing

    @cached_property
    def labels(self) -> Distance | None:
        """Distance of the server's log-probabilities from the adapter's, None if either is missing."""
        expected, served = self.evidence.expected.labels, self.evidence.served.labels
        if expected is None or served is None:
            return None
        return distance(expected, served)

    @cached_property
    def labels_differ(self) -> bool:
        """True if the log-probabilities differ by more than the tolerance."""
        if self.labels is None:
            return False
        tolerance = self.evidence.tolerance
        return self.labels.largest > tolerance.nats or self.labels.flips > tolerance.flips

    @cached_property
    def texts_differ(self) -> list[int]:
        """Rows whose greedy texts differ, although both sides follow the same ids."""
        return differing_texts(self.evidence.expected.texts, self.evidence.served.texts)

    @cached_property
    def chat_differs(self) -> list[int]:
        """Rows whose answers to the messages alone differ from the server's greedy ones after our ids.

        If it gives none, from the trained model's, as in `prove_chat`.
        """
        return differing_texts(self.greedy, self.evidence.chat)

    @cached_property
    def greedy(self) -> Mapping[int, Generated]:
        """The server's greedy answers after our ids. If it gives none, the trained model's."""
        return {**(self.evidence.expected.texts or {}), **(self.evidence.served.texts or {})}

    @cached_property
    def without_sampling(self) -> Mapping[int, Generated] | None:
        """The server's answers to the messages at temperature 0."""
        if not self.evidence.ask_chat:
            return None
        return self.evidence.ask_chat(NO_SAMPLING)

    @cached_property
    def unstable(self) -> set[int]:
        """Rows whose answers at temperature 0 change from one request to the next: rounding, or a cache."""
        rows: set[int] = set()
        if self.evidence.ask_chat and self.without_sampling is not None:
            for _ in range(REPEATS - 1):
                again = self.evidence.ask_chat(NO_SAMPLING)
                rows.update(differing_texts(self.without_sampling, again))
        return rows

    @cached_property
    def sampled(self) -> list[int]:
        """Rows with an answer, out of `REPEATS`, that is not the one at temperature 0."""
        rows = set(differing_texts(self.without_sampling, self.evidence.chat))
        if self.evidence.ask_chat:
            for _ in range(REPEATS - 1):
                rows.update(differing_texts(self.without_sampling, self.evidence.ask_chat({})))
        return sorted(rows - self.unstable)

    @cached_property
    def without_penalties(self) -> Mapping[int, Generated] | None:
        """The server's answers to the messages at temperature 0 and without penalties."""
        if not self.evidence.ask_chat:
            return None
        return self.evidence.ask_chat(NO_PENALTIES)

    @cached_property
    def is_quantised(self) -> bool:
        """True if the served file's type has fewer bits a weight than f16."""
        facts = self.evidence.facts
        if facts.file_type:
            return facts.file_type.upper() not in FULL_TYPES
        return facts.bits is not None and facts.bits < FULL_BITS

    @cached_property
    def others(self) -> list[OtherModel]:
        """The base alone, and the adapter in scales of loaders that drop settings, with log-probabilities.

        Empty unless the labels differ.
        """
        if not self.labels_differ:
            return []
        others = []
        for name, text, parts in other_parts(self.evidence.parts):
            others.append(OtherModel(name, text, self.evidence.labels_of(parts)))
        return others

    @cached_property
    def other(self) -> OtherModel | None:
        """The model that is served instead of the adapter.

        Its log-probabilities are the server's (`fits`). Without labels: all its greedy texts are.
        """
        served = self.evidence.served.labels
        if self.labels is None or served is None:
            return self._other_by_texts()
        best, best_mean = None, math.inf
        for other in self.others:
            if other.labels is None:
                continue
            apart = distance(other.labels, served)
            if self.fits(apart) and apart.mean < best_mean:
                best, best_mean = other, apart.mean
        return best

    def fits(self, apart: Distance) -> bool:
        """True if log-probabilities of another model are the server's, `apart` from them by little.

        Within the tolerance, or the file is quantised; and `CLOSER` times as close as the adapter's.
        """
        is_near = apart.largest <= self.evidence.tolerance.nats or self.is_quantised
        return self.labels is not None and is_near and apart.mean <= self.labels.mean / CLOSER

    def _other_by_texts(self) -> OtherModel | None:
        if len(self.texts_differ) <= self.evidence.tolerance.flips:
            return None
        for name, text, parts in other_parts(self.evidence.parts):
            texts = self.evidence.texts_of(parts)
            if not differing_texts(texts, self.evidence.served.texts):
                return OtherModel(name, text, None)
        return None


def compare_prompts(evidence: Evidence, row: int) -> PromptDifference:
    """Find the parts in which a row's prompts differ, by undoing one difference after the other."""
    served_ids = evidence.served_ids or {}
    expected, served = list(evidence.expected_ids[row]), list(served_ids[row])
    bos = evidence.tokenizer.bos_token_id
    is_doubled = bos is not None and served[:2] == [bos, bos] and expected[:2] != [bos, bos]
    if is_doubled:
        served = served[1:]
    expected_text, expected_thought = split_thought(decode(evidence, expected))
    served_text, served_thought = split_thought(decode(evidence, served))
    thoughts = None
    if expected_thought != served_thought:
        thoughts = expected_thought, served_thought
    systems = None
    if expected_text != served_text:
        systems = compare_systems(evidence.messages[row], expected_text, served_text)
    is_explained = expected_text == served_text or systems is not None
    return PromptDifference(is_doubled, thoughts, systems, rest=not is_explained)


def split_thought(prompt: str) -> tuple[str, str]:
    """Split a prompt's text into what comes before the thought that opens the answer, and this thought."""
    match = THOUGHT_AT_END.search(prompt, max(0, len(prompt) - LONGEST_OPENING))
    if match is None:
        return prompt, ""
    return prompt[: match.start()], match[0]


def compare_systems(messages: Messages, expected: str, served: str) -> tuple[str, str] | None:
    """System texts of two prompts that are equal from the user's first turn on. None if more differs."""
    turns = [message["content"].strip() for message in messages if message["role"] != "system"]
    common = common_length(expected[::-1], served[::-1])
    start = expected.find(turns[0], len(expected) - common)
    if not turns[0] or start < 0:
        return None
    served_start = start + len(served) - len(expected)
    texts = system_text(expected[:start]), system_text(served[:served_start])
    if texts[0] == texts[1]:
        return None
    return texts


def common_length(one: str, other: str) -> int:
    """Number of characters that two texts have in common at their beginnings."""
    for place, (character, other_character) in enumerate(zip(one, other, strict=False)):
        if character != other_character:
            return place
    return min(len(one), len(other))


def system_text(head: str) -> str:
    """The text before a prompt's first turn without special tokens and names of roles."""
    pieces = [ROLE.sub("", piece) for piece in MARK.split(head)]
    return " ".join(piece.strip() for piece in pieces if piece.strip())


def decode(evidence: Evidence, ids: Ids) -> str:
    """The text of ids, special tokens included."""
    return str(evidence.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def other_parts(parts: Sequence[WeightedAdapter]) -> Iterator[tuple[str, str, Sequence[WeightedAdapter]]]:
    """What a server may apply instead of the adapters: nothing, or them in another scale.

    llama.cpp's converter of LoRA files writes alpha alone: no rsLoRA, no alpha_pattern; ranks come from the
    tensors. vLLM reads r, lora_alpha and use_rslora, and no pattern.
    """
    if not parts:  # the base is what should be served
        return
    yield BASE, "not applied", ()
    seen = [scales_of(parts)]
    for text, keeps_rslora, keeps_ranks, keeps_alphas in LOADERS:
        changed = []
        for part in parts:
            lora = part.adapter.config
            raw = dict(lora.raw)
            if not keeps_rslora:
                raw["use_rslora"] = False
            other = replace(
                lora,
                raw=raw,
                ranks=lora.ranks if keeps_ranks else {},
                alphas=lora.alphas if keeps_alphas else {},
            )
            changed.append(replace(part, adapter=replace(part.adapter, config=other)))
        scales = scales_of(changed)
        if scales not in seen:
            seen.append(scales)
            yield SCALE, text, changed


def scales_of(parts: Sequence[WeightedAdapter]) -> list[float]:
    """The scale of every module of the adapters."""
    return [part.adapter.config.scale_of(path) for part in parts for path in part.adapter.modules]


def distance(expected: Labels, actual: Labels) -> Distance:
    """Compare log-probabilities of the same labels on the rows that both have."""
    differences, noticeable, flips = [], 0, 0
    rows = [row for row in expected if row in actual]
    for row in rows:
        nats = [abs(value - actual[row][label]) for label, value in expected[row].items()]
        differences += nats
        noticeable += max(nats) > NOTICEABLE
        flips += likeliest(expected[row]) != likeliest(actual[row])
    if not differences:
        return Distance(0.0, 0.0, 0.0, 0)
    return Distance(statistics.fmean(differences), max(differences), noticeable / len(rows), flips)


def differing_texts(
    expected: Mapping[int, Generated] | None, actual: Mapping[int, Generated] | None
) -> list[int]:
    """Rows whose texts differ, white space around them aside. None: nothing is compared."""
    if expected is None or actual is None:
        return []
    differing = []
    for row, answer in expected.items():
        if row in actual and answer.text.strip() != actual[row].text.strip():
            differing.append(row)
    return differing


def rows_without_end(evidence: Evidence, answers: Mapping[int, Generated] | None) -> list[int]:
    """Rows whose answers end in training, and on the server stop at the longest length."""
    rows = []
    for row, trained in (evidence.expected.texts or {}).items():
        answer = (answers or {}).get(row)
        if answer is not None and trained.finish == STOP and answer.finish == LENGTH:
            rows.append(row)
    return rows


def rows_that_run_on(evidence: Evidence, answers: Mapping[int, Generated] | None) -> list[int]:
    """The `rows_without_end` that the server begins like the trained model's answer."""
    rows = []
    for row in rows_without_end(evidence, answers):
        trained_text, text = (evidence.expected.texts or {})[row].text, (answers or {})[row].text
        if text.strip().startswith(trained_text.strip()):
            rows.append(row)
    return rows
