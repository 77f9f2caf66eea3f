"""Name the cause of each difference between a served model and the trained one, and its fix.

There are six causes, each with a function and its rule: the adapter is not loaded, another prompt, the
context cuts, a missing end token, sampling, another model or quantisation. A rule reads evidence: ids, texts,
log-probabilities, what the server reports of itself, and its answers to further questions, which are asked
only after a difference. A difference that fits no rule is shown where it begins, without a guess.
"""

import re
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tuneyard.core.errors import counted, show_value
from tuneyard.eval.backends.connection import TOO_LONG
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.served import LLAMA_CPP
from tuneyard.eval.prove.evidence import Evidence
from tuneyard.eval.prove.fixes import above_max_lora_rank, option_of, template_option, thinking_option
from tuneyard.eval.prove.proof import Ids, Labels, likeliest

PROMPTS, LABELS, TEXTS, CHAT, REFUSED = "prompts", "labels", "texts", "chat", "refused"
EVERYTHING = frozenset((PROMPTS, LABELS, TEXTS, CHAT, REFUSED))
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


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of differences, in one sentence with its fix. `explains` are the kinds of differences."""

    name: str
    sentence: str
    explains: frozenset[str]


@dataclass(frozen=True, slots=True)
class Distance:
    """Differences between two sets of log-probabilities, in nats. `spread` is the share of rows with any."""

    mean: float
    largest: float
    spread: float
    flips: int


def diagnose(evidence: Evidence) -> Sequence[Cause]:
    """Name the causes of all differences, those with the strongest evidence first. None for equal models."""
    differences = differences_of(evidence)
    if not differences:
        return []
    causes = []
    explained: set[str] = set()
    for rule in RULES:
        cause = rule(evidence)
        if cause:
            causes.append(cause)
            explained |= cause.explains
    unexplained = [text for kind, text in differences.items() if kind not in explained]
    if unexplained:
        sentence = f"Unexplained: {'; '.join(unexplained)}.{first_difference(evidence)}"
        causes.append(Cause("unexplained", sentence, EVERYTHING))
    return causes


def differences_of(evidence: Evidence) -> dict[str, str]:
    """Describe each kind of difference that is beyond the tolerance."""
    rows = len(evidence.expected_ids)
    differences = {}
    prompts = differing_prompts(evidence)
    if prompts:
        differences[PROMPTS] = f"{len(prompts)} of {counted(rows, 'prompt')} have other token ids"
    labels = distance_of_labels(evidence)
    if labels and differ(labels, evidence):
        differences[LABELS] = (
            f"labels' log-probabilities differ by up to {labels.largest:.2g} nats "
            f"({counted(labels.flips, 'flip')})"
        )
    differing_rows = rows_without_end(evidence, evidence.served.texts)
    if labels is None:
        differing_rows = sorted({*differing_rows, *differing_answers(evidence)})
    if len(differing_rows) > evidence.tolerance.flips:
        differences[TEXTS] = f"{len(differing_rows)} of {counted(rows, 'greedy answer')} differ"
    chats = differing_chats(evidence)
    if len(chats) > evidence.tolerance.flips:
        differences[CHAT] = (
            f"{len(chats)} of {counted(rows, 'answer')} to the messages alone are not the greedy ones after "
            "our ids"
        )
    if evidence.refusals:
        differences[REFUSED] = f"the server refuses requests ({show_value(evidence.refusals[0])})"
    return differences


def adapter_not_loaded(evidence: Evidence) -> Cause | None:
    """The server refuses the adapter for its rank, or answers as the base or as the adapter in the scale that
    the server lists."""
    for refusal in evidence.refusals:
        sentence = above_max_lora_rank(refusal, evidence.parts)
        if sentence:
            return Cause("adapter not loaded", sentence, frozenset((REFUSED, LABELS, TEXTS, CHAT)))
    if not evidence.parts:
        return None
    name, folder = evidence.parts[0].adapter.name, evidence.parts[0].adapter.folder
    file, module = shlex.quote(f"{name}.gguf"), shlex.quote(f"{name}={folder}")
    load = option_of(evidence, f"--lora {file}", f"--enable-lora --lora-modules {module}")
    scales = [offer.scale for offer in evidence.facts.adapters if offer.scale not in (None, 1)]
    part = "greedy texts"
    if evidence.served.labels is not None and evidence.expected.labels is not None:
        part = "log-probabilities"
    if answers_as(evidence, 0):
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
    return Cause("adapter not loaded", sentence, frozenset((LABELS, TEXTS, CHAT)))


def answers_as(evidence: Evidence, scale: float) -> bool:
    """True if the server's answers are those of the adapters in this scale (0: of the base).

    Log-probabilities are near (within the tolerance, or the file is quantised) and `CLOSER` times as close as
    the adapter's. Without labels: all greedy texts are equal.
    """
    parts = [replace(part, weight=part.weight * scale) for part in evidence.parts if scale]
    labels, served = distance_of_labels(evidence), evidence.served.labels
    if labels is None or served is None:
        if len(differing_answers(evidence)) <= evidence.tolerance.flips:
            return False
        return not differing_texts(evidence.texts_of(parts), evidence.served.texts)
    if not differ(labels, evidence):
        return False
    others = evidence.labels_of(parts)
    if others is None:
        return False
    apart = distance(others, served)
    is_near = apart.largest <= evidence.tolerance.nats or is_quantised(evidence)
    return is_near and apart.mean <= labels.mean / CLOSER


def another_prompt(evidence: Evidence) -> Cause | None:
    """The server's ids are not training's, or it refuses messages because it has no chat template."""
    fix = f"serve with {template_option(evidence)}"
    for refusal in evidence.refusals:
        if NO_TEMPLATE.search(refusal):
            sentence = f"The server has no chat template and refuses messages: {fix}."
            return Cause("another prompt", sentence, frozenset((PROMPTS, CHAT, REFUSED)))
    rows = differing_prompts(evidence)
    if not rows or evidence.served_ids is None:
        return None
    trained, served = evidence.expected_ids[rows[0]], evidence.served_ids[rows[0]]
    place = common_length(trained, served)
    trained_quote, served_quote = (quote_ids(evidence, ids, place) for ids in (trained, served))
    if "think" in trained_quote + served_quote:
        value = "false" if "</" in trained_quote else "true"
        fix += f", or set thinking with {thinking_option(evidence, value)}"
    sentence = (
        f"{len(rows)} of {counted(len(evidence.expected_ids), 'prompt')} have other token ids, in row "
        f"{rows[0]} from token {place} on: training's goes on with {trained_quote}, the server's with "
        f"{served_quote}; {fix}."
    )
    return Cause("another prompt", sentence, frozenset((PROMPTS, CHAT)))


def quote_ids(evidence: Evidence, ids: Ids, place: int) -> str:
    """Quote the text of a prompt from a token on."""
    part = list(ids)[place : place + QUOTED_TOKENS]
    if not part:
        return "nothing"
    return show_value(str(evidence.tokenizer.decode(part, clean_up_tokenization_spaces=False)))


def context_cut(evidence: Evidence) -> Cause | None:
    """The server's context is smaller than prompt and answer: it refuses a row for its length, or an answer
    ends for its length where prompt and answer reach the context. It explains the rows that reach it."""
    facts = evidence.facts
    lengths = {row: len(ids) + evidence.max_new_tokens for row, ids in evidence.expected_ids.items()}
    for row, ids in (evidence.served_ids or {}).items():
        lengths[row] = max(lengths[row], len(ids) + evidence.max_new_tokens)
    need = max(lengths.values(), default=0)
    refused = [text for text in evidence.refusals if TOO_LONG.search(text)]
    too_long = {row for row, length in lengths.items() if facts.context and facts.context < length}
    cut = []
    for answers in (evidence.served.texts, evidence.chat):
        runs_on = rows_that_run_on(evidence, answers)
        rows = rows_without_end(evidence, answers)
        cut += [row for row in rows if row in too_long and row not in runs_on]
    if not refused and not cut:
        return None
    explains = {REFUSED}
    if too_long.issuperset(differing_answers(evidence)):
        explains.add(TEXTS)
    if too_long.issuperset(differing_chats(evidence)):
        explains.add(CHAT)
    context = "its context"
    if facts.context:
        context = f"its context of {facts.context} tokens"
    rounded = -(-need // CONTEXT_STEP) * CONTEXT_STEP
    option = option_of(evidence, f"--ctx-size {rounded * (facts.slots or 1)}", f"--max-model-len {rounded}")
    slots = ""
    if facts.engine == LLAMA_CPP and facts.slots and facts.slots > 1:
        slots = f" ({rounded} for each of {facts.slots} slots)"
    sentence = (
        f"Prompt and answer take up to {need} tokens, more than {context}: serve it with {option}{slots}."
    )
    return Cause("context cut", sentence, frozenset(explains))


def another_model(evidence: Evidence) -> Cause | None:
    """Log-probabilities differ in at least half of the rows: the file is quantised, or of another model.

    Without labels: the file is quantised and answers differ.
    """
    labels = distance_of_labels(evidence)
    rows = len(evidence.expected_ids)
    if labels is None:
        differing = len(differing_answers(evidence))
        if not is_quantised(evidence) or differing <= evidence.tolerance.flips:
            return None
        shown, accept = f"{differing} of {counted(rows, 'answer')} differ", f"--flips {differing}"
    elif not differ(labels, evidence) or labels.spread < 0.5:
        return None
    else:
        shown = (
            f"{labels.flips} of {counted(rows, 'label')} flip, and log-probabilities differ by "
            f"{labels.mean:.2g} nats on average, {labels.largest:.2g} at most"
        )
        accept = f"--flips {labels.flips} --tolerance {labels.largest * 1.05:.2g}"
    explains = frozenset((LABELS, TEXTS, CHAT))
    if not is_quantised(evidence):
        sentence = (
            f"The server has another model, another adapter or an adapter in another scale: {shown}; serve "
            "the fused model (tuneyard adapter fuse), or convert the adapter with tuneyard adapter export."
        )
        return Cause("another model or quantisation", sentence, explains)
    kinds = []
    if evidence.facts.file_type:
        kinds.append(evidence.facts.file_type)
    if evidence.facts.bits:
        kinds.append(f"{evidence.facts.bits:.1f} bits a weight")
    sentence = (
        f"The served file is quantised ({', '.join(kinds)}): {shown}; serve an f16 file (tuneyard adapter "
        f"export DIR --to gguf --type f16 --out FILE), or accept it with {accept}."
    )
    return Cause("another model or quantisation", sentence, explains)


def is_quantised(evidence: Evidence) -> bool:
    """True if the served file's type has fewer bits a weight than f16."""
    facts = evidence.facts
    if facts.file_type:
        return facts.file_type.upper() not in FULL_TYPES
    return facts.bits is not None and facts.bits < FULL_BITS


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
    if evidence.facts.sampling.get("ignore_eos"):
        fix = "start it without --ignore-eos"
    else:
        override = f"--override-generation-config '{{\"eos_token_id\": {list(evidence.ends)}}}'"
        llama_cpp = f"--override-kv tokenizer.ggml.eos_token_id=int:{evidence.ends[0]}"
        fix = f"serve with {option_of(evidence, llama_cpp, override)}"
    sentence = (
        f"The server does not stop at training's end token {show_value(str(ends[0]))}{server_end}: "
        f"{len(rows)} of {counted(len(trained), 'answer')} go on past it; {fix}."
    )
    return Cause("missing end token", sentence, frozenset((TEXTS, CHAT)))


def sampling(evidence: Evidence) -> Cause | None:
    """Answers to the messages alone become the greedy ones at temperature 0 without penalties."""
    differing = differing_chats(evidence)
    reported = {name: evidence.facts.sampling.get(name) for name in NEUTRAL}
    settings = []
    for name, value in reported.items():
        if isinstance(value, int | float) and value != NEUTRAL[name]:
            settings.append(f"{name} {value:g}")
    is_greedy = not settings and isinstance(reported["temperature"], int | float)
    if not differing or evidence.ask_chat is None or is_greedy:
        return None
    still_differing = differing_texts(greedy_answers(evidence), evidence.ask_chat(NEUTRAL))
    rows = [row for row in differing if row not in still_differing]
    if not rows:
        return None
    option = option_of(
        evidence,
        "--temp 0 --repeat-penalty 1 --dry-multiplier 0",
        '--override-generation-config \'{"temperature": 0, "repetition_penalty": 1}\'',
    )
    named = f" ({', '.join(settings)})" if settings else ""
    sentence = (
        f"The server samples its answers{named}: {counted(len(rows), 'answer')} to the messages alone are "
        f"the greedy ones at temperature 0 without penalties; serve with {option}, or send these settings "
        "with each request."
    )
    return Cause("sampling", sentence, frozenset((CHAT,)))


def other_weights(evidence: Evidence) -> Cause | None:
    """The adapter is not loaded; otherwise the model is another one."""
    return adapter_not_loaded(evidence) or another_model(evidence)


RULES: Sequence[Callable[[Evidence], Cause | None]] = (
    context_cut, another_prompt, other_weights, missing_end, sampling,
)  # fmt: skip
"""The rules of all causes, the strongest evidence first."""


def first_difference(evidence: Evidence) -> str:
    """Sentence on the first row whose labels or answers differ, "" without any."""
    expected_labels, served_labels = evidence.expected.labels or {}, evidence.served.labels or {}
    for row, labels in expected_labels.items():
        others = served_labels.get(row, labels)
        label = max(labels, key=lambda name: abs(labels[name] - others[name]))
        if abs(labels[label] - others[label]) > NOTICEABLE:
            logs = f"{labels[label]:.2f} here, {others[label]:.2f} on the server"
            return f" First in row {row}: the log-probability of {show_value(label)} is {logs}."
    greedy = greedy_answers(evidence)
    pairs = ((evidence.expected.texts, evidence.served.texts), (greedy, evidence.chat))
    for expected, actual in pairs:
        rows = differing_texts(expected, actual)
        if rows and expected and actual:
            ours, theirs = quote_difference(expected[rows[0]].text, actual[rows[0]].text)
            return f" First in row {rows[0]}: {ours} here, {theirs} on the server."
    return ""


def differing_prompts(evidence: Evidence) -> list[int]:
    """The rows whose prompts differ."""
    served_ids = evidence.served_ids or {}
    return [
        row
        for row, expected in evidence.expected_ids.items()
        if row in served_ids and list(served_ids[row]) != list(expected)
    ]


def differing_answers(evidence: Evidence) -> list[int]:
    """Rows whose greedy texts differ, although both sides follow the same ids."""
    return differing_texts(evidence.expected.texts, evidence.served.texts)


def differing_chats(evidence: Evidence) -> list[int]:
    """Rows whose answers to the messages alone are not the greedy ones."""
    return differing_texts(greedy_answers(evidence), evidence.chat)


def greedy_answers(evidence: Evidence) -> Mapping[int, Generated]:
    """The server's greedy answers after our ids. If it gives none, the trained model's."""
    return {**(evidence.expected.texts or {}), **(evidence.served.texts or {})}


def distance_of_labels(evidence: Evidence) -> Distance | None:
    """Distance of the server's log-probabilities from the adapter's, None if either is missing."""
    if evidence.expected.labels is None or evidence.served.labels is None:
        return None
    return distance(evidence.expected.labels, evidence.served.labels)


def differ(labels: Distance, evidence: Evidence) -> bool:
    """True if log-probabilities differ by more than the tolerance."""
    return labels.largest > evidence.tolerance.nats or labels.flips > evidence.tolerance.flips


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
