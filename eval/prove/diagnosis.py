"""Name the cause of each difference between a served model and the trained one, and its fix.

There are six causes, each with a rule: the adapter is not loaded, another prompt, the context cuts, a missing
end token, sampling, another model or quantisation. A rule reads evidence: ids, texts, log-probabilities, what
the server reports of itself, and its answers to further questions, which are asked only after a difference.
The tables show where any other difference begins, without a guess.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tuneyard.adapters.model.lora import VLLM_RANKS, vllm_rank
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _, counted, joined, typed
from tuneyard.core.llamafactory.prompt import Tokenizer, find_chat_template
from tuneyard.eval.models.batch_plan import Prompts
from tuneyard.eval.models.connection import TOO_LONG
from tuneyard.eval.models.generate import LENGTH, STOP
from tuneyard.eval.models.served import LLAMA_CPP, VLLM, ServedModel
from tuneyard.eval.prove.proof import (
    Answers,
    Distance,
    Texts,
    Tolerance,
    compare_ids,
    distance,
    rows_that_run_on,
)

CONTEXT_STEP = 256  # llama.cpp rounds contexts up to it
CLOSER = 4.0  # times by which the base's log-probabilities must be closer to the server's
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

    facts: ServedModel
    """What the server reports of itself: engine, context, adapters."""
    adapters: Sequence[WeightedAdapter]
    """The adapters here."""
    tokenizer: Tokenizer
    expected_ids: Prompts
    """Prompts as in training. Labels and greedy texts of both sides follow these ids."""
    served_ids: Prompts | None
    expected: Answers
    """Answers of the unmerged adapter in this process."""
    served: Answers
    """Answers of the server to our ids, greedy and without penalties."""
    chat: Texts | None
    """Answers of /chat/completions to the messages alone, with the server's own sampling."""
    ends: Sequence[int]
    """Tokens that end an answer in training."""
    tolerance: Tolerance
    max_new_tokens: int
    refusals: Sequence[str]
    """Errors of the server for single rows, which its answers then lack, or for the adapter."""
    answers_of: Callable[[Sequence[WeightedAdapter]], Answers]
    """Answers with other adapters; the base's for none. Slow: ask only after a difference."""
    ask_chat: Callable[[Mapping[str, object]], Texts]
    """Like `chat`, with more settings in each request. Ask only after a difference."""

    @property
    def greedy(self) -> Texts:
        """The server's greedy answers after our ids. If it gives none, the trained model's."""
        return {**self.expected.texts, **self.served.texts}

    def option(self, llama_cpp: str, vllm: str) -> str:
        """The option of the server's engine, or of both servers if the engine is none of them."""
        both = _("{llama_cpp} (llama.cpp), {vllm} (vLLM)", llama_cpp=llama_cpp, vllm=vllm)
        return {LLAMA_CPP: llama_cpp, VLLM: vllm}.get(self.facts.engine, both)


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of differences, in one sentence with its fix."""

    name: str
    sentence: str


def diagnose(evidence: Evidence) -> Sequence[Cause]:
    """Name the causes that fit, those with the strongest evidence first. None for equal models."""
    return list(filter(None, [rule(evidence) for rule in RULES]))


def context_cut(evidence: Evidence) -> Cause | None:
    """The server refuses a row for its length, or an answer ends early where its context is full."""
    facts = evidence.facts
    served_ids = evidence.served_ids or {}
    lengths = {}
    for row, ids in evidence.expected_ids.items():
        lengths[row] = max(len(ids), len(served_ids.get(row, ()))) + evidence.max_new_tokens
    too_long = {row for row, length in lengths.items() if facts.context and facts.context < length}
    is_cut = any(TOO_LONG.search(text) for text in evidence.refusals)
    for texts in (evidence.served.texts, evidence.chat or {}):
        cut_rows = too_long.intersection(rows_without_end(evidence, texts))
        is_cut |= bool(cut_rows.difference(rows_that_run_on(evidence.expected.texts, texts)))
    if not is_cut:
        return None
    need, slots = max(lengths.values()), facts.slots or 1
    rounded = -(-need // CONTEXT_STEP) * CONTEXT_STEP
    option = evidence.option(f"--ctx-size {rounded * slots}", f"--max-model-len {rounded}")
    context = _("its context")
    if facts.context:
        context = _("its context of {number} tokens", number=facts.context)
    return Cause(
        _("context cut"),
        _(
            "Prompt and answer take up to {need} tokens, more than {context}: serve it with {option}.",
            need=need,
            context=context,
            option=option,
        ),
    )


def another_prompt(evidence: Evidence) -> Cause | None:
    """The server's ids are not training's, or it refuses messages because it has no chat template."""
    file: str = _("FILE with training's chat template")
    for weighted in evidence.adapters[:1]:
        if find_chat_template(weighted.adapter.folder):
            file = shlex.quote(str(weighted.adapter.folder / "chat_template.jinja"))
    llama_cpp = joined(["--jinja --chat-template-file", file], " ")
    option = evidence.option(llama_cpp, joined(["--chat-template", file], " "))
    fix = _("serve with {option}", option=option)
    if any(NO_TEMPLATE.search(refusal) for refusal in evidence.refusals):
        return Cause(
            _("another prompt"), _("The server has no chat template and refuses messages: {fix}.", fix=fix)
        )
    rows, first = compare_ids(evidence.expected_ids, evidence.served_ids or {}, evidence.tokenizer.decode)
    if first is None:
        return None
    trained, served = (show_value(text) for text in (first.expected_text, first.actual_text))
    return Cause(
        _("another prompt"),
        _(
            "{rows} of {prompts} have other token ids, in row {row} from token {place} on: "
            "training's goes on with {trained}, the server's with {served}; {fix}.",
            rows=len(rows),
            prompts=counted(len(evidence.expected_ids), "prompt", "prompts"),
            row=first.row,
            place=first.place,
            trained=trained,
            served=served,
            fix=fix,
        ),
    )


def other_weights(evidence: Evidence) -> Cause | None:
    """The adapter is not loaded; otherwise the model is another one."""
    for refusal in evidence.refusals:
        sentence = above_max_lora_rank(refusal, evidence.adapters)
        if sentence:
            return Cause(_("adapter not loaded"), sentence)
    labels = distance(evidence.expected, evidence.served)
    if labels is None:
        differs = (
            len(differing_texts(evidence.expected.texts, evidence.served.texts)) > evidence.tolerance.flips
        )
    else:
        differs = labels.largest > evidence.tolerance.nats or len(labels.flips) > evidence.tolerance.flips
    if not differs:
        return None
    if evidence.adapters and answers_as_base(evidence, labels):
        name, folder = evidence.adapters[0].adapter.name, evidence.adapters[0].adapter.folder
        file, module = shlex.quote(f"{name}.gguf"), shlex.quote(f"{name}={folder}")
        load = evidence.option(f"--lora {file}", f"--enable-lora --lora-modules {module}")
        return Cause(
            _("adapter not loaded"),
            _(
                "The adapter {name} is not applied: the server answers as the base; serve with "
                "{load}, or the fused model.",
                name=name,
                load=load,
            ),
        )
    if labels is None or labels.spread < 0.5:
        return None
    facts, flips = evidence.facts, len(labels.flips)
    file_type: list[str] = []
    if facts.file_type:
        file_type.append(facts.file_type)
    if facts.bits:
        file_type.append(_("{bits:.1f} bits a weight", bits=facts.bits))
    served_file = ""
    if file_type:
        served_file = _(" (its file: {type})", type=joined(file_type))
    return Cause(
        _("another model or quantisation"),
        _(
            "Log-probabilities differ by {mean:.2g} nats on average and {largest:.2g} at most, "
            "and {flips} of {labels} flip: the server has another model, another adapter, "
            "an adapter in another scale, or quantised weights{served_file}; serve the fused "
            "model (tuneyard adapter fuse) or an f16 file (tuneyard adapter export DIR --to gguf "
            "--type f16 --out FILE), or accept it with --flips {flips} --tolerance "
            "{tolerance:.2g}.",
            mean=labels.mean,
            largest=labels.largest,
            flips=flips,
            labels=counted(len(evidence.expected_ids), "label", "labels"),
            served_file=served_file,
            tolerance=labels.largest * 1.05,
        ),
    )


def answers_as_base(evidence: Evidence, labels: Distance | None) -> bool:
    """True if the server's answers are the base's: log-probabilities are `CLOSER` times as close as the
    adapter's. Without labels: all greedy texts are equal."""
    base = evidence.answers_of([])
    if labels is None:
        return not differing_texts(base.texts, evidence.served.texts)
    apart = distance(base, evidence.served)
    return apart is not None and apart.mean <= labels.mean / CLOSER


def above_max_lora_rank(refusal: str, adapters: Sequence[WeightedAdapter]) -> str:
    """Sentence about a refusal by vLLM because of a rank above --max-lora-rank, "" for other refusals."""
    match = RANK_REFUSED.search(refusal)
    if not match:
        return ""
    lora_rank = vllm_rank(int(match[1]))
    fix = _("start it with --max-lora-rank {rank}", rank=lora_rank)
    if lora_rank is None:
        adapter = adapters[0].adapter
        fuse = typed(adapter.fuse_words(adapter.config.base or "BASE"))
        fix = _(
            "vLLM's largest is {largest}: serve the fused model ({command})",
            largest=VLLM_RANKS[-1],
            command=fuse,
        )
    return _(
        "The adapter has rank {rank}, and the server loads ranks up to {largest}: {fix}.",
        rank=match[1],
        largest=match[2],
        fix=fix,
    )


def missing_end(evidence: Evidence) -> Cause | None:
    """Most answers that end in training begin in the same way on the server and then go on. Chat answers
    count only if no answer after our ids ends."""
    expected, greedy = evidence.expected.texts, evidence.served.texts
    rows = rows_that_run_on(expected, greedy)
    if not rows and all(answer.finish != STOP for answer in greedy.values()):
        rows = rows_that_run_on(expected, evidence.chat or {})
    trained = [answer for answer in expected.values() if answer.finish == STOP]
    if not rows or 2 * len(rows) <= len(trained) or not evidence.ends:
        return None
    (end, *_others) = evidence.tokenizer.convert_ids_to_tokens(list(evidence.ends))
    llama_cpp = f"--override-kv tokenizer.ggml.eos_token_id=int:{evidence.ends[0]}"
    override = f"--override-generation-config '{{\"eos_token_id\": {list(evidence.ends)}}}'"
    return Cause(
        _("missing end token"),
        _(
            "The server does not stop at training's end token {end}: {rows} of {trained} go on "
            "past it; serve with {option}, and without --ignore-eos.",
            end=show_value(str(end)),
            rows=len(rows),
            trained=counted(len(trained), "answer", "answers"),
            option=evidence.option(llama_cpp, override),
        ),
    )


def sampling(evidence: Evidence) -> Cause | None:
    """Answers to the messages alone become the greedy ones at temperature 0 without penalties."""
    differing = differing_texts(evidence.greedy, evidence.chat or {})
    if not differing:
        return None
    rows = set(differing).difference(differing_texts(evidence.greedy, evidence.ask_chat(NEUTRAL)))
    if not rows:
        return None
    option = evidence.option(
        "--temp 0 --repeat-penalty 1 --dry-multiplier 0",
        '--override-generation-config \'{"temperature": 0, "repetition_penalty": 1}\'',
    )
    return Cause(
        _("sampling"),
        _(
            "The server samples its answers: {rows} to the messages alone are the greedy ones at "
            "temperature 0 without penalties; serve with {option}, or send these settings with "
            "each request.",
            rows=counted(len(rows), "answer", "answers"),
            option=option,
        ),
    )


RULES: Sequence[Callable[[Evidence], Cause | None]] = (
    context_cut, another_prompt, other_weights, missing_end, sampling,
)  # fmt: skip
"""The rules of all causes, the strongest evidence first."""


def differing_texts(expected: Texts, actual: Texts) -> list[int]:
    """The rows of both whose texts differ, white space around them aside."""
    common = [row for row in expected if row in actual]
    return [row for row in common if expected[row].text.strip() != actual[row].text.strip()]


def rows_without_end(evidence: Evidence, answers: Texts) -> list[int]:
    """Rows whose answers end in training, and on the server stop at the longest length."""
    rows = []
    for row, answer in answers.items():
        trained = evidence.expected.texts.get(row)
        if trained is not None and trained.finish == STOP and answer.finish == LENGTH:
            rows.append(row)
    return rows
