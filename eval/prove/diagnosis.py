"""Name the cause of each difference between a served model and the trained one, and its fix.

Each cause has a function with its rule. A rule reads evidence: ids, texts, log-probabilities, what the server
reports of itself, and its answers to further questions, which are asked only after a difference. A difference
that fits no rule is unexplained, with the causes that were excluded.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tuneyard.core.errors import counted, show_value
from tuneyard.eval.backends.connection import TOO_LONG
from tuneyard.eval.backends.generate import STOP
from tuneyard.eval.backends.served import LLAMA_CPP, OLLAMA
from tuneyard.eval.prove.evidence import Evidence
from tuneyard.eval.prove.findings import (
    BASE,
    CHAT,
    LABELS,
    PROMPTS,
    REFUSED,
    REPEATS,
    SCALE,
    TEXTS,
    THOUGHT_AT_START,
    Findings,
    common_length,
    differing_texts,
    distance,
    rows_that_run_on,
    rows_without_end,
)
from tuneyard.eval.prove.fixes import (
    above_max_lora_rank,
    base_of,
    option_of,
    setting,
    template_option,
    thinking_option,
)
from tuneyard.eval.prove.templates import other_templates, wrote_prompt

EVERYTHING = frozenset((PROMPTS, LABELS, TEXTS, CHAT, REFUSED))
QUOTED = 50  # characters of a text that a sentence quotes in full
CONTEXT_STEP = 256  # llama.cpp rounds contexts up to it
PENALTIES = {
    "repeat_penalty": ("--repeat-penalty", 1), "presence_penalty": ("--presence-penalty", 0),
    "frequency_penalty": ("--frequency-penalty", 0), "dry_multiplier": ("--dry-multiplier", 0),
}  # fmt: skip
"""llama.cpp's penalties: the option, and the value that changes nothing."""
NO_TEMPLATE = re.compile(r"must provide a chat template|no chat template", re.I)


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of differences, in one sentence with its fix. `explains` are the kinds of differences."""

    name: str
    sentence: str
    explains: frozenset[str]


def diagnose(evidence: Evidence) -> Sequence[Cause]:
    """Name the causes of all differences, those with the strongest evidence first. None for equal models."""
    findings = Findings(evidence)
    differences = differences_of(findings)
    if not differences:
        return []
    causes = []
    for rule in RULES:
        cause = rule(findings)
        if cause:
            causes.append(cause)
    explained: set[str] = set()
    for cause in causes:
        explained |= cause.explains
    unexplained = [text for kind, text in differences.items() if kind not in explained]
    if unexplained:
        causes.append(Cause("unexplained", unexplained_sentence(findings, unexplained), EVERYTHING))
    return causes


def differences_of(findings: Findings) -> dict[str, str]:
    """Describe each kind of difference that is beyond the tolerance."""
    evidence = findings.evidence
    rows = len(evidence.expected_ids)
    differences = {}
    if findings.prompts:
        differences[PROMPTS] = f"{len(findings.prompts)} of {counted(rows, 'prompt')} have other token ids"
    if findings.labels_differ and findings.labels:
        differences[LABELS] = (
            f"labels' log-probabilities differ by up to {findings.labels.largest:.2g} nats "
            f"({counted(findings.labels.flips, 'flip')})"
        )
    unended = rows_without_end(evidence, evidence.served.texts)
    differing_rows = unended
    if findings.labels is None:
        differing_rows = sorted({*unended, *findings.texts_differ})
    if len(differing_rows) > evidence.tolerance.flips:
        differences[TEXTS] = f"{len(differing_rows)} of {counted(rows, 'greedy answer')} differ"
    if len(findings.chat_differs) > evidence.tolerance.flips:
        differences[CHAT] = (
            f"{len(findings.chat_differs)} of {counted(rows, 'answer')} to the messages alone are not the "
            "greedy ones after our ids"
        )
    if evidence.refusals:
        differences[REFUSED] = f"the server refuses requests ({show_value(evidence.refusals[0])})"
    return differences


def rank_above_maximum(findings: Findings) -> Cause | None:
    """An adapter's rank is above vLLM's --max-lora-rank."""
    for refusal in findings.evidence.refusals:
        sentence = above_max_lora_rank(refusal, findings.evidence.parts)
        if sentence:
            return Cause("rank above --max-lora-rank", sentence, frozenset((REFUSED, LABELS, TEXTS, CHAT)))
    return None


def context_cut(findings: Findings) -> Cause | None:
    """The server's context is smaller than prompt and answer: it refuses a row for its length, or an answer
    ends for its length where prompt and answer reach the context. It explains the rows that reach it."""
    evidence, facts = findings.evidence, findings.evidence.facts
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
    if too_long.issuperset(findings.texts_differ):
        explains.add(TEXTS)
    if too_long.issuperset(findings.chat_differs):
        explains.add(CHAT)
    context = "its context"
    if facts.context:
        context = f"its context of {facts.context} tokens"
    rounded = -(-need // CONTEXT_STEP) * CONTEXT_STEP
    option = option_of(
        findings,
        f"--ctx-size {rounded * (facts.slots or 1)}",
        f"--max-model-len {rounded}",
        f"PARAMETER num_ctx {rounded}",
    )
    slots = ""
    if facts.engine == LLAMA_CPP and facts.slots and facts.slots > 1:
        slots = f" ({rounded} for each of {facts.slots} slots)"
    sentence = (
        f"Prompt and answer take up to {need} tokens, more than {context}: serve it with {option}{slots}."
    )
    return Cause("context cut", sentence, frozenset(explains))


def doubled_bos(findings: Findings) -> Cause | None:
    """The server's ids begin with BOS twice, the training's do not."""
    rows = [row for row, prompt in findings.prompts.items() if prompt.doubled_bos]
    if not rows:
        return None
    evidence = findings.evidence
    bos = show_value(str(evidence.tokenizer.bos_token))
    clients = ""
    if evidence.facts.engine not in (LLAMA_CPP, OLLAMA):
        clients = ', and send "add_special_tokens": false'
    sentence = (
        f"The server's prompts begin with {bos} twice: its template writes it once more than training's; "
        f"serve with {template_option(findings)}{clients}."
    )
    return Cause("doubled BOS", sentence, frozenset((PROMPTS, CHAT)))


def thinking_on(findings: Findings) -> Cause | None:
    """The prompts differ in the thought that opens the answer, or most of the server's answers begin with a
    thought and the trained model's do not."""
    evidence = findings.evidence
    whole = [prompt for prompt in findings.prompts.values() if not prompt.rest]  # the same template
    differing = [prompt.thoughts for prompt in whole if prompt.thoughts]
    trained_texts = evidence.expected.texts or {}
    thinking = []
    for row, answer in (evidence.chat or {}).items():
        if row in trained_texts and has_thought(answer.text) and not has_thought(trained_texts[row].text):
            thinking.append(row)
    explains = frozenset((PROMPTS, TEXTS, CHAT))
    if differing:
        trained_end, served_end = differing[0]
        title, fix = thinking_fix(findings, trained_end, served_end)
        sentence = (
            f"{title}: training's prompts end with {show_value(trained_end)}, the server's with "
            f"{show_value(served_end)}; {fix}."
        )
        return Cause("thinking", sentence, explains)
    if 2 * len(thinking) > len(evidence.chat or {}):
        share = f"{len(thinking)} of {counted(len(evidence.chat or {}), 'answer')}"
        fix = thinking_option(findings, "false")
        sentence = (
            f"Thinking is on: {share} begin with a thought, the trained model's do not; serve with {fix}."
        )
        return Cause("thinking", sentence, explains)
    return None


def thinking_fix(findings: Findings, trained_end: str, served_end: str) -> tuple[str, str]:
    """What differs in the ends of two prompts (an open thought, an empty one, none), and its fix."""
    serve = f"serve with {template_option(findings)}"
    if trained_end and "</" not in trained_end:
        return "Thinking is off", f"serve with {thinking_option(findings, 'true')}"
    if trained_end:
        return "Thinking is on", f"serve with {thinking_option(findings, 'false')}"
    if "</" in served_end:
        return "The server writes an empty thought", serve
    return "Thinking is on", serve


def other_system_text(findings: Findings) -> Cause | None:
    """The prompts are equal from the first turn of the user on, and the texts before it differ."""
    for prompt in findings.prompts.values():
        if prompt.systems is None:
            continue
        trained_text, served_text = prompt.systems
        trained_quote, served_quote = quote_difference(trained_text, served_text)
        fix = f"serve with {template_option(findings)}"
        if trained_text:
            fix += ", or send training's as the system message"
        if not served_text:
            served_quote = "empty"
        if not trained_text:
            trained_quote = "empty"
        sentence = f"The server's system text is {served_quote}, training's was {trained_quote}: {fix}."
        return Cause("system text", sentence, frozenset((PROMPTS, CHAT)))
    return None


def no_chat_template(findings: Findings) -> Cause | None:
    """The server's ids are those of another template than training's: the base's own, llama.cpp's default, or
    the one that the server reports. Or vLLM refuses messages because it has none."""
    evidence = findings.evidence
    name = "chat template not given"
    fix = f"serve with {template_option(findings)}"
    for refusal in evidence.refusals:
        if NO_TEMPLATE.search(refusal):
            sentence = f"The server has no chat template and refuses messages: {fix}."
            return Cause(name, sentence, frozenset((PROMPTS, CHAT, REFUSED)))
    rows = [row for row, prompt in findings.prompts.items() if prompt.rest]
    if not rows or evidence.served_ids is None:
        return None
    for source, encode in other_templates(evidence):
        if all(wrote_prompt(evidence, encode, row) for row in rows):
            sentence = (
                f"The server writes prompts by {source}, in {len(rows)} of "
                f"{counted(len(evidence.expected_ids), 'row')} other ids than training's: {fix}."
            )
            return Cause(name, sentence, frozenset((PROMPTS, CHAT)))
    return None


def adapter_not_loaded(findings: Findings) -> Cause | None:
    """The server's log-probabilities, or its greedy texts, are the base's and not the adapter's.

    Or the log-probabilities are those of the adapter with another scale than 1, which the server lists.
    """
    evidence = findings.evidence
    if not evidence.parts:
        return None
    explains = frozenset((LABELS, TEXTS, CHAT))
    name, folder = evidence.parts[0].adapter.name, evidence.parts[0].adapter.folder
    file, module = shlex.quote(f"{name}.gguf"), shlex.quote(f"{name}={folder}")
    load = option_of(findings, f"--lora {file}", f"--enable-lora --lora-modules {module}")
    if findings.other and findings.other.name == BASE:
        listed = ""
        for offer in evidence.facts.adapters:
            if offer.scale == 0:
                listed = f" (it lists {offer.name} with scale 0)"
        part = compared_part(findings)
        sentence = (
            f"The adapter {name} is not applied{listed}: the server's {part} are the base's; serve with "
            f"{load}, or the fused model."
        )
        return Cause("adapter not loaded", sentence, explains)
    if findings.other is None and applies_scale(findings):
        (scale,) = listed_scales(evidence)
        sentence = (
            f"The server applies the adapter {name} with scale {scale:g} instead of 1: serve with {load}."
        )
        return Cause("adapter not loaded", sentence, explains)
    return None


def listed_scales(evidence: Evidence) -> list[float]:
    """Scales other than 0 and 1 with which the server lists adapters."""
    return [offer.scale for offer in evidence.facts.adapters if offer.scale not in (None, 0, 1)]


def applies_scale(findings: Findings) -> bool:
    """True if the server's log-probabilities are those of the adapter in the only scale that it lists."""
    evidence = findings.evidence
    scales, served = listed_scales(evidence), evidence.served.labels
    if len(scales) != 1 or len(evidence.parts) != 1 or not findings.labels_differ or served is None:
        return False
    (part,) = evidence.parts
    scaled = evidence.labels_of([replace(part, weight=part.weight * scales[0])])
    return scaled is not None and findings.fits(distance(scaled, served))


def scale_dropped(findings: Findings) -> Cause | None:
    """The server's log-probabilities, or its greedy texts, are the adapter's in the scale of a loader that
    drops rsLoRA or the patterns of rank and alpha."""
    other = findings.other
    if other is None or other.name == BASE:
        return None
    evidence = findings.evidence
    adapter = evidence.parts[0].adapter
    base, file = base_of(evidence.parts), f"{adapter.name}.gguf"
    words = ["tuneyard", "adapter", "export", adapter.word, "--base", base, "--to", "gguf"]
    export = shlex.join([*words, "--out", file])
    fix = option_of(
        findings,
        f"convert it with {export}, which multiplies the scale into B",
        f"serve the fused model ({adapter.fuse_command(base)})",
    )
    part = compared_part(findings)
    sentence = f"The server's {part} are those of the adapter {other.text}: {fix}."
    return Cause("rsLoRA or patterns dropped", sentence, frozenset((LABELS, TEXTS, CHAT)))


def quantised(findings: Findings) -> Cause | None:
    """The served file has fewer bits a weight than f16, and small differences are spread over the rows.

    Small: the log-probabilities are still closer to the adapter's (or to those of another cause that holds)
    than the base's are. Spread: at least half of the rows have some.
    """
    evidence = findings.evidence
    if not findings.is_quantised or not (findings.labels_differ or findings.texts_differ):
        return None
    kinds = []
    if evidence.facts.file_type:
        kinds.append(evidence.facts.file_type)
    if evidence.facts.bits:
        kinds.append(f"{evidence.facts.bits:.1f} bits a weight")
    accept = ""
    expected, served = evidence.expected.labels, evidence.served.labels
    if expected is None or served is None:
        if findings.other:
            return None
        shown = f"{len(findings.texts_differ)} of {counted(len(evidence.expected_ids), 'answer')} differ"
        accept = f", or accept it with --flips {len(findings.texts_differ)}"
    elif not findings.labels_differ:
        return None
    else:
        reference = expected
        if findings.other and findings.other.labels is not None:
            reference = findings.other.labels
        apart = distance(reference, served)
        if apart.largest <= evidence.tolerance.nats and apart.flips <= evidence.tolerance.flips:
            return None
        is_small = True
        for other in findings.others:
            if other.name == BASE and other.labels is not None:
                is_small = apart.mean < distance(expected, other.labels).mean
        if not is_small or apart.spread < 0.5:
            return None
        shown = (
            f"{apart.flips} of {counted(len(expected), 'label')} flip, and log-probabilities differ by "
            f"{apart.mean:.2g} nats on average, {apart.largest:.2g} at most"
        )
        if findings.other is None:
            accept = f", or accept it with --flips {apart.flips} --tolerance {apart.largest * 1.05:.2g}"
    sentence = (
        f"The served file is quantised ({', '.join(kinds)}): {shown}; serve an f16 file (tuneyard adapter "
        f"export DIR --to gguf --type f16 --out FILE){accept}."
    )
    return Cause("quantised file", sentence, frozenset((LABELS, TEXTS, CHAT)))


def missing_end(findings: Findings) -> Cause | None:
    """Most answers that end in training begin in the same way on the server and then go on to the longest
    length. Chat answers count only if no answer after our ids ends."""
    evidence = findings.evidence
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
        fix = "serve with " + option_of(
            findings,
            f"--override-kv tokenizer.ggml.eos_token_id=int:{evidence.ends[0]}",
            override,
            f"PARAMETER stop {show_value(str(ends[0]))}",
        )
    end = show_value(str(ends[0]))
    sentence = (
        f"The server does not stop at training's end token {end}{server_end}: {len(rows)} of "
        f"{counted(len(trained), 'answer')} go on past it; {fix}."
    )
    return Cause("missing end token", sentence, frozenset((TEXTS, CHAT)))


def repetition_penalty(findings: Findings) -> Cause | None:
    """At temperature 0 the server's answers to the messages alone change once penalties are switched off."""
    if not findings.chat_differs:
        return None
    rows = set(differing_texts(findings.without_penalties, findings.without_sampling)) - findings.unstable
    if not rows:
        return None
    settings, options, parameters = [], [], []
    values = {name: setting(findings, name) for name in PENALTIES}
    for name, (option, neutral) in PENALTIES.items():
        value = values[name]
        if value not in (None, neutral):
            settings.append(f"{name} {value:g}")
            options.append(f"{option} {neutral}")
            parameters.append(f"PARAMETER {name} {neutral}")
    if not settings and None not in values.values():  # two greedy answers of a server can differ by rounding
        return None
    named = ", ".join(settings) or "a repetition penalty"
    llama_cpp = " ".join(options) or "--repeat-penalty 1"
    fix = option_of(
        findings,
        llama_cpp,
        "--override-generation-config '{\"repetition_penalty\": 1}'",
        ", ".join(parameters),
    )
    sentence = (
        f"The server applies {named}: it changes {counted(len(rows), 'greedy answer')}; serve with {fix}, "
        "or send it with each request."
    )
    return Cause("repetition penalty", sentence, frozenset((CHAT,)))


def temperature(findings: Findings) -> Cause | None:
    """The server's answers to the messages alone change at temperature 0, and are then always the same."""
    if not findings.chat_differs or findings.evidence.chat is None:
        return None
    rows = findings.sampled
    if not rows:
        return None
    value = setting(findings, "temperature")
    if value == 0:
        return None
    named = "samples its answers"
    if value is not None:
        named = f"samples its answers at temperature {value:g}"
    option = option_of(
        findings,
        "--temp 0",
        "--override-generation-config '{\"temperature\": 0}'",
        "PARAMETER temperature 0",
    )
    sentence = (
        f"The server {named}: in {REPEATS} tries, {counted(len(rows), 'answer')} to the messages alone are "
        "not the greedy ones; "
        f"serve with {option}, or send temperature 0 with each request."
    )
    return Cause("temperature", sentence, frozenset((CHAT,)))


def stop_word(findings: Findings) -> Cause | None:
    """The server's settings have a stop word that the trained answers contain."""
    evidence = findings.evidence
    words = evidence.facts.sampling.get("stop")
    if not isinstance(words, list) or evidence.chat is None:
        return None
    rows_by_word: dict[str, list[int]] = {}
    for row in findings.chat_differs:
        trained_text = findings.greedy[row].text.strip()
        text = evidence.chat[row].text.strip()
        for word in words:
            if isinstance(word, str) and word and trained_text.partition(word)[0].strip() == text:
                rows_by_word.setdefault(word, []).append(row)
    if not rows_by_word:
        return None
    word, rows = max(rows_by_word.items(), key=lambda pair: len(pair[1]))
    fix = option_of(findings, "send requests without it", "send requests without it", "take it out")
    cut = counted(len(rows), "trained answer")
    sentence = f"The stop word {show_value(word)} is inside {cut}, which it cuts: {fix}."
    return Cause("stop word", sentence, frozenset((CHAT,)))


def answer_cut(findings: Findings) -> Cause | None:
    """A Modelfile's num_predict is shorter than trained answers."""
    evidence = findings.evidence
    longest = evidence.facts.sampling.get("n_predict")
    rows = rows_without_end(evidence, evidence.chat)
    if evidence.facts.engine != OLLAMA or not isinstance(longest, int) or not rows:
        return None
    if not 0 <= longest < evidence.max_new_tokens:
        return None
    sentence = (
        f"PARAMETER num_predict {longest} cuts {counted(len(rows), 'answer')}: take it out, or name a number "
        "above the longest answer."
    )
    return Cause("answer cut", sentence, frozenset((CHAT,)))


RULES: Sequence[Callable[[Findings], Cause | None]] = (
    rank_above_maximum, context_cut, doubled_bos, thinking_on, other_system_text, no_chat_template,
    adapter_not_loaded, scale_dropped, quantised, answer_cut, missing_end, stop_word, repetition_penalty,
    temperature,
)  # fmt: skip
"""The rules of all causes, the strongest evidence first."""


def unexplained_sentence(findings: Findings, differences: Sequence[str]) -> str:
    """Say which differences have no cause, and what was excluded."""
    excluded = []
    served = findings.evidence.served.labels
    if served is not None:
        for name, text in ((BASE, "the base without the adapter"), (SCALE, "the adapter in another scale")):
            labels = [other.labels for other in findings.others if other.name == name and other.labels]
            nats = [distance(other_labels, served).largest for other_labels in labels]
            if nats:
                excluded.append(f"{text} ({min(nats):.2g} nats apart)")
    if findings.evidence.facts.file_type and not findings.is_quantised:
        excluded.append(f"a quantised file (it is {findings.evidence.facts.file_type})")
    if findings.evidence.served_ids is None:
        excluded.append("nothing in the prompts, which the server does not show")
    elif not findings.prompts:
        excluded.append("the prompts (equal ids)")
    if findings.evidence.ask_chat and findings.unstable:
        differences = [
            *differences,
            f"at temperature 0, {counted(len(findings.unstable), 'answer')} of the server change from one "
            "request to the next",
        ]
    text = "; ".join(differences)
    return f"Unexplained: {text}. Excluded: {', '.join(excluded) or 'the causes above'}."


def quote_difference(one: str, other: str) -> tuple[str, str]:
    """Quote two texts, long ones from the word before their first difference on."""
    start = 0
    if max(len(one), len(other)) > QUOTED:
        start = one.rfind(" ", 0, common_length(one, other)) + 1
    opening = "…" if start else ""
    return show_value(opening + one[start:]), show_value(opening + other[start:])


def compared_part(findings: Findings) -> str:
    """The name of what shows which model is served."""
    return "greedy texts" if findings.labels is None else "log-probabilities"


def has_thought(text: str) -> bool:
    """True if an answer begins with a thought that is not empty."""
    return bool(THOUGHT_AT_START.match(text))
