"""Name the cause of each difference between a served model and the trained one, and its fix.

There are six causes, each with a rule: the adapter is not loaded, another prompt, the context cuts, a missing
end token, sampling, another model or quantisation. A rule reads evidence: ids, texts, log-probabilities, what
the server reports of itself, and its answers to further questions, which are asked only after a difference. A
difference that fits no rule is shown where it begins, without a guess.
"""

import re
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneyard.adapters.vllm import RANKS, max_rank
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import counted, show_value
from tuneyard.core.prompt import saved_chat_template
from tuneyard.eval.backends.connection import TOO_LONG
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.served import LLAMA_CPP, VLLM, ServerFacts
from tuneyard.eval.prove.proof import Answers, Ids, Tolerance, likeliest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS, LABELS, TEXTS, CHAT, REFUSED = "prompts", "labels", "texts", "chat", "refused"
WEIGHTS = frozenset((LABELS, TEXTS, CHAT))
"""Kinds of differences that other weights explain."""
QUOTED = 50  # characters of a text that a sentence quotes in full
QUOTED_TOKENS = 12
CONTEXT_STEP = 256  # llama.cpp rounds contexts up to it
FULL_TYPES = ("F32", "F16", "BF16")
FULL_BITS = 12.0  # a weight; quantised files have fewer
CLOSER = 4.0  # times by which another model's log-probabilities must be closer to the server's
NOTICEABLE = 1e-3  # nats, above the rounding of f16
NEUTRAL = {
    "temperature": 0, "repeat_penalty": 1, "repetition_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0, "dry_multiplier": 0,
}  # fmt: skip
"""Settings of a request with which a server answers greedily."""
NO_TEMPLATE = re.compile(r"must provide a chat template|no chat template", re.I)
RANK_REFUSED = re.compile(r"LoRA rank (\d+) is greater than max_lora_rank (\d+)")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A served model next to the unmerged adapter, on the rows of a dataset that fit the context.

    All mappings are by row. A part is None if the server does not offer it, and then it was not compared.
    """

    facts: ServerFacts
    """What the server reports of itself: engine, context, sampling, adapters."""
    parts: Sequence[WeightedAdapter]
    """The adapters here."""
    tokenizer: "PreTrainedTokenizerBase"
    expected_ids: Mapping[int, Ids]
    """Prompts as in training. Labels and greedy texts of both sides follow these ids."""
    served_ids: Mapping[int, Ids] | None
    expected: Answers
    """Answers of the unmerged adapter in this process."""
    served: Answers
    """Answers of the server to our ids, greedy and without penalties."""
    chat: Mapping[int, Generated] | None
    """Answers of /chat/completions to the messages alone, with the server's own sampling."""
    ends: Sequence[int]
    """Tokens that end an answer in training."""
    tolerance: Tolerance
    max_new_tokens: int
    refusals: Sequence[str]
    """Errors of the server for single rows, which its answers then lack, or for the adapter."""
    answers_of: Callable[[Sequence[WeightedAdapter]], Answers]
    """Answers with other adapters or weights; the base's for none. Slow: ask only after a difference."""
    ask_chat: Callable[[Mapping[str, object]], Mapping[int, Generated]]
    """Like `chat`, with more settings in each request. Ask only after a difference."""

    @property
    def greedy(self) -> Mapping[int, Generated]:
        """The server's greedy answers after our ids. If it gives none, the trained model's."""
        return {**(self.expected.texts or {}), **(self.served.texts or {})}

    @property
    def labels(self) -> "Distance | None":
        """Distance of the server's log-probabilities from the adapter's, None if either is missing."""
        return distance(self.expected, self.served)

    @property
    def is_quantised(self) -> bool:
        """True if the served file's type has fewer bits a weight than f16."""
        if self.facts.file_type:
            return self.facts.file_type.upper() not in FULL_TYPES
        return self.facts.bits is not None and self.facts.bits < FULL_BITS

    def differ(self, labels: "Distance") -> bool:
        """True if log-probabilities differ by more than the tolerance."""
        return labels.largest > self.tolerance.nats or labels.flips > self.tolerance.flips

    def option(self, llama_cpp: str, vllm: str) -> str:
        """The option of the server's engine, or of both servers if the engine is none of them."""
        both = f"{llama_cpp} (llama.cpp), {vllm} (vLLM)"
        return {LLAMA_CPP: llama_cpp, VLLM: vllm}.get(self.facts.engine, both)


@dataclass(frozen=True, slots=True)
class Distance:
    """Differences between two sets of log-probabilities, in nats. `spread` is the share of rows with any."""

    mean: float
    largest: float
    spread: float
    flips: int


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of differences, in one sentence with its fix. `explains` are the kinds of differences."""

    name: str
    sentence: str
    explains: frozenset[str]


def diagnose(evidence: Evidence) -> Sequence[Cause]:
    """Name the causes of all differences, those with the strongest evidence first. None for equal models."""
    differences = differences_of(evidence)
    if not differences:
        return []
    causes = list(filter(None, [rule(evidence) for rule in RULES]))
    explained = frozenset().union(*(cause.explains for cause in causes))
    unexplained = [text for kind, text in differences.items() if kind not in explained]
    if unexplained:
        sentence = f"Unexplained: {'; '.join(unexplained)}.{first_difference(evidence)}"
        causes.append(Cause("unexplained", sentence, frozenset(differences)))
    return causes


def differences_of(evidence: Evidence) -> dict[str, str]:
    """Describe each kind of difference that is beyond the tolerance."""
    rows = len(evidence.expected_ids)
    differences = {}
    prompts = differing_prompts(evidence)
    if prompts:
        differences[PROMPTS] = f"{len(prompts)} of {counted(rows, 'prompt')} have other token ids"
    labels = evidence.labels
    if labels and evidence.differ(labels):
        differences[LABELS] = (
            f"labels' log-probabilities differ by up to {labels.largest:.2g} nats "
            f"({counted(labels.flips, 'flip')})"
        )
    texts = set(rows_without_end(evidence, evidence.served.texts))
    if labels is None:
        texts.update(differing_texts(evidence.expected.texts, evidence.served.texts))
    if len(texts) > evidence.tolerance.flips:
        differences[TEXTS] = f"{len(texts)} of {counted(rows, 'greedy answer')} differ"
    chats = differing_texts(evidence.greedy, evidence.chat)
    if len(chats) > evidence.tolerance.flips:
        differences[CHAT] = (
            f"{len(chats)} of {counted(rows, 'answer')} to the messages alone are not the greedy ones after "
            "our ids"
        )
    if evidence.refusals:
        differences[REFUSED] = f"the server refuses requests ({show_value(evidence.refusals[0])})"
    return differences


def context_cut(evidence: Evidence) -> Cause | None:
    """The server's context is smaller than prompt and answer: it refuses a row for its length, or an answer
    ends for its length where prompt and answer reach the context. It explains the rows that reach it."""
    facts, served_ids = evidence.facts, evidence.served_ids or {}
    lengths = {}
    for row, ids in evidence.expected_ids.items():
        lengths[row] = max(len(ids), len(served_ids.get(row, ()))) + evidence.max_new_tokens
    too_long = {row for row, length in lengths.items() if facts.context and facts.context < length}
    is_cut = any(TOO_LONG.search(text) for text in evidence.refusals)
    for answers in (evidence.served.texts, evidence.chat):
        runs_on = rows_that_run_on(evidence, answers)
        rows = rows_without_end(evidence, answers)
        is_cut |= bool(too_long.intersection(rows) - set(runs_on))
    if not is_cut:
        return None
    explains = {REFUSED}
    if too_long.issuperset(differing_texts(evidence.expected.texts, evidence.served.texts)):
        explains.add(TEXTS)
    if too_long.issuperset(differing_texts(evidence.greedy, evidence.chat)):
        explains.add(CHAT)
    need = max(lengths.values())
    rounded, slots = -(-need // CONTEXT_STEP) * CONTEXT_STEP, facts.slots or 1
    for_slots = f" ({rounded} for each of {slots} slots)" if slots > 1 else ""
    option = evidence.option(f"--ctx-size {rounded * slots}{for_slots}", f"--max-model-len {rounded}")
    context = f"its context of {facts.context} tokens" if facts.context else "its context"
    sentence = f"Prompt and answer take up to {need} tokens, more than {context}: serve it with {option}."
    return Cause("context cut", sentence, frozenset(explains))


def another_prompt(evidence: Evidence) -> Cause | None:
    """The server's ids are not training's, or it refuses messages because it has no chat template."""
    file = "FILE with training's chat template"
    for part in evidence.parts[:1]:
        if saved_chat_template(part.adapter.folder) is not None:
            file = shlex.quote(str(part.adapter.folder / "chat_template.jinja"))
    fix = "serve with " + evidence.option(f"--jinja --chat-template-file {file}", f"--chat-template {file}")
    for refusal in evidence.refusals:
        if NO_TEMPLATE.search(refusal):
            sentence = f"The server has no chat template and refuses messages: {fix}."
            return Cause("another prompt", sentence, frozenset((PROMPTS, CHAT, REFUSED)))
    rows = differing_prompts(evidence)
    if not rows or evidence.served_ids is None:
        return None
    trained, served = evidence.expected_ids[rows[0]], evidence.served_ids[rows[0]]
    place = common_length(trained, served)
    quotes = []
    for ids in (trained, served):
        part_ids = list(ids)[place : place + QUOTED_TOKENS]
        text = evidence.tokenizer.decode(part_ids, clean_up_tokenization_spaces=False)
        quotes.append(show_value(str(text)) if part_ids else "nothing")
    if "think" in "".join(quotes):
        settings = f"""'{{"enable_thinking": {"false" if "</" in quotes[0] else "true"}}}'"""
        options = (f"--chat-template-kwargs {settings}", f"--default-chat-template-kwargs {settings}")
        fix += f", or set thinking with {evidence.option(*options)}"
    sentence = (
        f"{len(rows)} of {counted(len(evidence.expected_ids), 'prompt')} have other token ids, in row "
        f"{rows[0]} from token {place} on: training's goes on with {quotes[0]}, the server's with "
        f"{quotes[1]}; {fix}."
    )
    return Cause("another prompt", sentence, frozenset((PROMPTS, CHAT)))


def other_weights(evidence: Evidence) -> Cause | None:
    """The adapter is not loaded; otherwise the model is another one."""
    return adapter_not_loaded(evidence) or another_model(evidence)


def adapter_not_loaded(evidence: Evidence) -> Cause | None:
    """The server refuses the adapter for its rank, or answers as the base or as the adapter in the scale that
    the server lists."""
    if not evidence.parts:
        return None
    for refusal in evidence.refusals:
        sentence = above_max_lora_rank(refusal, evidence.parts)
        if sentence:
            return Cause("adapter not loaded", sentence, WEIGHTS | {REFUSED})
    name, folder = evidence.parts[0].adapter.name, evidence.parts[0].adapter.folder
    file, module = shlex.quote(f"{name}.gguf"), shlex.quote(f"{name}={folder}")
    load = evidence.option(f"--lora {file}", f"--enable-lora --lora-modules {module}")
    scales = [offer.scale for offer in evidence.facts.adapters if offer.scale not in (None, 1)]
    if answers_as(evidence, 0):
        part = "log-probabilities" if evidence.labels else "greedy texts"
        listed = " (it lists scale 0)" if 0 in scales else ""
        sentence = (
            f"The adapter {name} is not applied{listed}: the server's {part} are the base's; serve with "
            f"{load}, or the fused model."
        )
    elif scales and scales[0] and answers_as(evidence, scales[0]):
        sentence = (
            f"The server applies the adapter {name} with scale {scales[0]:g} instead of 1: serve with {load}."
        )
    else:
        return None
    return Cause("adapter not loaded", sentence, WEIGHTS)


def above_max_lora_rank(refusal: str, parts: Sequence[WeightedAdapter]) -> str:
    """Sentence about a refusal by vLLM because of a rank above --max-lora-rank, "" for other refusals."""
    match = RANK_REFUSED.search(refusal)
    if not match:
        return ""
    enough = max_rank(int(match[1]))
    fix = f"start it with --max-lora-rank {enough}"
    if enough is None:
        adapter = parts[0].adapter
        fuse = adapter.fuse_command(adapter.config.base or "BASE")
        fix = f"vLLM's largest is {RANKS[-1]}: serve the fused model ({fuse})"
    return f"The adapter has rank {match[1]}, and the server loads ranks up to {match[2]}: {fix}."


def answers_as(evidence: Evidence, scale: float) -> bool:
    """True if the server's answers are those of the adapters in this scale (0: of the base).

    Log-probabilities are near (within the tolerance, or the file is quantised) and `CLOSER` times as close as
    the adapter's. Without labels: all greedy texts are equal.
    """
    parts = [replace(part, weight=part.weight * scale) for part in evidence.parts if scale]
    labels = evidence.labels
    if labels is None:
        differing = differing_texts(evidence.expected.texts, evidence.served.texts)
        if len(differing) <= evidence.tolerance.flips:
            return False
        return not differing_texts(evidence.answers_of(parts).texts, evidence.served.texts)
    if not evidence.differ(labels):
        return False
    apart = distance(evidence.answers_of(parts), evidence.served)
    if apart is None or (apart.largest > evidence.tolerance.nats and not evidence.is_quantised):
        return False
    return apart.mean <= labels.mean / CLOSER


def another_model(evidence: Evidence) -> Cause | None:
    """Log-probabilities differ in at least half of the rows: the file is quantised, or of another model.

    Without labels: the file is quantised and answers differ.
    """
    labels = evidence.labels
    rows = len(evidence.expected_ids)
    if labels is None:
        differing = len(differing_texts(evidence.expected.texts, evidence.served.texts))
        if not evidence.is_quantised or differing <= evidence.tolerance.flips:
            return None
        difference, accept = f"{differing} of {counted(rows, 'answer')} differ", f"--flips {differing}"
    elif not evidence.differ(labels) or labels.spread < 0.5:
        return None
    else:
        difference = (
            f"{labels.flips} of {counted(rows, 'label')} flip, and log-probabilities differ by "
            f"{labels.mean:.2g} nats on average, {labels.largest:.2g} at most"
        )
        accept = f"--flips {labels.flips} --tolerance {labels.largest * 1.05:.2g}"
    sentence = (
        f"The server has another model, another adapter or an adapter in another scale: {difference}; serve "
        "the fused model (tuneyard adapter fuse), or convert the adapter with tuneyard adapter export."
    )
    if evidence.is_quantised:
        bits = f"{evidence.facts.bits:.1f} bits a weight" if evidence.facts.bits else ""
        kinds = ", ".join(filter(None, (evidence.facts.file_type, bits)))
        sentence = (
            f"The served file is quantised ({kinds}): {difference}; serve an f16 file (tuneyard adapter "
            f"export DIR --to gguf --type f16 --out FILE), or accept it with {accept}."
        )
    return Cause("another model or quantisation", sentence, WEIGHTS)


def missing_end(evidence: Evidence) -> Cause | None:
    """Most answers that end in training begin in the same way on the server and then go on to the longest
    length. Chat answers count only if no answer after our ids ends."""
    greedy = evidence.served.texts or {}
    rows = rows_that_run_on(evidence, greedy)
    if not rows and all(answer.finish != STOP for answer in greedy.values()):
        rows = rows_that_run_on(evidence, evidence.chat)
    trained = [answer for answer in (evidence.expected.texts or {}).values() if answer.finish == STOP]
    if not rows or 2 * len(rows) <= len(trained) or not evidence.ends:
        return None
    ends = evidence.tokenizer.convert_ids_to_tokens(list(evidence.ends))
    server_end = ""
    if evidence.facts.eos is not None and evidence.facts.eos not in ends:
        server_end = f" (its own is {show_value(evidence.facts.eos)})"
    llama_cpp = f"--override-kv tokenizer.ggml.eos_token_id=int:{evidence.ends[0]}"
    override = f"--override-generation-config '{{\"eos_token_id\": {list(evidence.ends)}}}'"
    fix = f"serve with {evidence.option(llama_cpp, override)}"
    if evidence.facts.sampling.get("ignore_eos"):
        fix = "start it without --ignore-eos"
    sentence = (
        f"The server does not stop at training's end token {show_value(str(ends[0]))}{server_end}: "
        f"{len(rows)} of {counted(len(trained), 'answer')} go on past it; {fix}."
    )
    return Cause("missing end token", sentence, frozenset((TEXTS, CHAT)))


def sampling(evidence: Evidence) -> Cause | None:
    """Answers to the messages alone become the greedy ones at temperature 0 without penalties."""
    differing = differing_texts(evidence.greedy, evidence.chat)
    settings = []
    for name, neutral in NEUTRAL.items():
        value = evidence.facts.sampling.get(name)
        if isinstance(value, int | float) and value != neutral:
            settings.append(f"{name} {value:g}")
    is_greedy = not settings and evidence.facts.sampling.get("temperature") == 0
    if not differing or is_greedy:
        return None
    still_differing = differing_texts(evidence.greedy, evidence.ask_chat(NEUTRAL))
    rows = set(differing).difference(still_differing)
    if not rows:
        return None
    option = evidence.option(
        "--temp 0 --repeat-penalty 1 --dry-multiplier 0",
        '--override-generation-config \'{"temperature": 0, "repetition_penalty": 1}\'',
    )
    setting_names = f" ({', '.join(settings)})" if settings else ""
    sentence = (
        f"The server samples its answers{setting_names}: {counted(len(rows), 'answer')} to the messages "
        f"alone are the greedy ones at temperature 0 without penalties; serve with {option}, or send these "
        "settings with each request."
    )
    return Cause("sampling", sentence, frozenset((CHAT,)))


RULES: Sequence[Callable[[Evidence], Cause | None]] = (
    context_cut, another_prompt, other_weights, missing_end, sampling,
)  # fmt: skip
"""The rules of all causes, the strongest evidence first."""


def first_difference(evidence: Evidence) -> str:
    """Sentence on the first row whose labels or answers differ, "" without any."""
    served_labels = evidence.served.labels or {}
    for row, labels in (evidence.expected.labels or {}).items():
        others = served_labels.get(row, labels)
        label = max(labels, key=lambda name: abs(labels[name] - others[name]))
        if abs(labels[label] - others[label]) > NOTICEABLE:
            logs = f"{labels[label]:.2f} here, {others[label]:.2f} on the server"
            return f" First in row {row}: the log-probability of {show_value(label)} is {logs}."
    pairs = ((evidence.expected.texts, evidence.served.texts), (evidence.greedy, evidence.chat))
    for expected, actual in pairs:
        rows = differing_texts(expected, actual)
        if rows and expected and actual:
            here, there = quote_difference(expected[rows[0]].text, actual[rows[0]].text)
            return f" First in row {rows[0]}: {here} here, {there} on the server."
    return ""


def differing_prompts(evidence: Evidence) -> list[int]:
    """The rows whose prompts differ."""
    served_ids = evidence.served_ids or {}
    rows = []
    for row, expected in evidence.expected_ids.items():
        if list(served_ids.get(row, expected)) != list(expected):
            rows.append(row)
    return rows


def differing_texts(
    expected: Mapping[int, Generated] | None, actual: Mapping[int, Generated] | None
) -> list[int]:
    """Rows whose texts differ, white space around them aside. None: nothing is compared."""
    actual = actual or {}
    differing = []
    for row, answer in (expected or {}).items():
        if row in actual and answer.text.strip() != actual[row].text.strip():
            differing.append(row)
    return differing


def distance(expected: Answers, actual: Answers) -> Distance | None:
    """Compare log-probabilities of the same labels on the rows that both have. None if either has none."""
    if expected.labels is None or actual.labels is None:
        return None
    differences, noticeable, flips = [0.0], 0, 0
    for row, others in actual.labels.items():
        labels = expected.labels[row]
        nats = [abs(value - others[label]) for label, value in labels.items()]
        differences += nats
        noticeable += max(nats) > NOTICEABLE
        flips += likeliest(labels) != likeliest(others)
    mean = statistics.fmean(differences[1:] or differences)
    return Distance(mean, max(differences), noticeable / max(1, len(actual.labels)), flips)


def rows_without_end(evidence: Evidence, answers: Mapping[int, Generated] | None) -> list[int]:
    """Rows whose answers end in training, and on the server stop at the longest length."""
    rows = []
    for row, answer in (answers or {}).items():
        trained = (evidence.expected.texts or {}).get(row)
        if trained is not None and trained.finish == STOP and answer.finish == LENGTH:
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


def quote_difference(one: str, other: str) -> tuple[str, str]:
    """Quote two texts, long ones from the word before their first difference on."""
    start = 0
    if max(len(one), len(other)) > QUOTED:
        start = one.rfind(" ", 0, common_length(one, other)) + 1
    opening = "…" if start else ""
    return show_value(opening + one[start:]), show_value(opening + other[start:])


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Number of equal elements at the beginnings of two sequences."""
    for place, (element, other_element) in enumerate(zip(one, other, strict=False)):
        if element != other_element:
            return place
    return min(len(one), len(other))
