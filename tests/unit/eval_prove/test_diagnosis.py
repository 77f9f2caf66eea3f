"""Each cause of a difference is named from evidence, and only then."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest

from tests.messages import golden_text
from tests.unit.adapters.make import factors, make
from tuneyard.adapters.model.store import Adapter, open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.eval.models.connection import Connection
from tuneyard.eval.models.generate import LENGTH, STOP, Generated
from tuneyard.eval.models.served import LLAMA_CPP, VLLM, ServedModel
from tuneyard.eval.prove.diagnosis import Cause, Evidence, diagnose
from tuneyard.eval.prove.proof import Answers, Labels, Tolerance

SPECIAL = ("<s>", "<|turn|>", "<|done|>")
SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    f"<|turn|>system\n{SYSTEM}<|done|>\n{{% endif %}}"
    "<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|done|>\n{% endfor %}<|turn|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
ROWS = range(4)
MODEL = "another model or quantisation"


class Letters:
    """A tokenizer with a token for each letter, and with special tokens."""

    bos_token, bos_token_id = SPECIAL[0], 0
    chat_template = TEMPLATE.replace("<|turn|>", "[").replace("<|done|>", "]")

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        pieces = re.findall("|".join(map(re.escape, SPECIAL)) + "|.", text, re.DOTALL)
        return {"input_ids": [SPECIAL.index(one) if one in SPECIAL else 100 + ord(one) for one in pieces]}

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return "".join(SPECIAL[one] if one < 100 else chr(one - 100) for one in ids)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.decode([one]) for one in ids]

    def apply_chat_template(self, messages: object, *, chat_template: str, **options: object) -> str:
        template = jinja2.Environment(trim_blocks=False).from_string(chat_template)
        return template.render(messages=messages, bos_token=self.bos_token, **options)


TOKENIZER = Letters()


def prompt(row: int, template: str = TEMPLATE, *, system: str = SYSTEM, think: bool = False) -> list[int]:
    """The ids of a row's prompt with another template, system text or with thinking."""
    messages = [{"role": "user", "content": f"Question {row}?"}]
    text = TOKENIZER.apply_chat_template(messages, chat_template=template, enable_thinking=think)
    return TOKENIZER(text.replace(SYSTEM, system))["input_ids"]


def labels_of(parts: Sequence[WeightedAdapter], error: float = 0.0) -> Labels:
    """Log-probabilities that follow from the adapters' scales. `error` is a quantised file's, up and down."""
    query, value = 0.0, 0.0
    for part in parts:
        query = part.weight * part.adapter.config.scale_of("model.layers.0.self_attn.q_proj")
        value = part.weight * part.adapter.config.scale_of("model.layers.0.self_attn.v_proj")
    rows = {}
    for row in ROWS:
        off = -error * (-1) ** row
        yes, no = -1 - 0.05 * query * (row + 1), -1 - value * (0.41 - 0.1 * row)
        rows[row] = {"yes": yes + off, "no": no - off}
    return rows


def answers(*texts: str, finish: str = STOP) -> dict[int, Generated]:
    return {row: Generated(text, finish) for row, text in zip(ROWS, texts * len(ROWS), strict=False)}


def texts_of(parts: Sequence[WeightedAdapter]) -> dict[int, Generated]:
    """Greedy texts that follow from the adapters: their scale, and "base" without any."""
    scales = [f"{part.adapter.config.scale_of('q_proj'):g}" for part in parts]
    return answers(*(scales or ["base"]))


def answers_of(parts: Sequence[WeightedAdapter]) -> Answers:
    """Labels and greedy texts that follow from the adapters."""
    return Answers(None, labels_of(parts), texts_of(parts))


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    """An adapter with rsLoRA and patterns, and with its chat template."""
    pairs = factors(rank=lambda module: 16 if "v_proj" in module else 4)
    folder = make(
        tmp_path / "walks", pairs, r=4, lora_alpha=8, use_rslora=True, rank_pattern={"v_proj": 16},
        alpha_pattern={"v_proj": 12}, base_model_name_or_path="models/base",
    )  # fmt: skip
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return open_adapter(folder)


@pytest.fixture
def good(adapter: Adapter) -> Evidence:
    """A server that answers as the trained model."""
    facts = ServedModel(
        Connection("http://localhost:8080/v1"), LLAMA_CPP, "m", "m", version="b1", model_path="m.gguf",
        context=4096, slots=2, sampling={"temperature": 0.8, "repeat_penalty": 1.0},
        bos="<s>", eos="<|done|>", file_type="F16", bits=16.0,
    )  # fmt: skip
    adapters = [WeightedAdapter(adapter, 1.0)]
    ids = {row: prompt(row) for row in ROWS}
    expected = Answers(None, labels_of(adapters), answers("yes", "no"))
    return Evidence(
        facts=facts, adapters=adapters, tokenizer=TOKENIZER,
        expected_ids=ids, served_ids=ids, expected=expected, served=expected,
        chat=expected.texts, ends=[2], tolerance=Tolerance(0, 0.1), answers_of=answers_of,
        max_new_tokens=8, refusals=[], ask_chat=lambda _: answers("yes", "no"),
    )  # fmt: skip


def only(evidence: Evidence, name: str, *facts: object) -> Cause:
    """The only cause; its sentence contains the facts."""
    (cause,) = diagnose(evidence)
    assert cause.name == name, cause.sentence
    golden_text(cause.sentence, *facts)
    return cause


def names(evidence: Evidence) -> list[str]:
    return [cause.name for cause in diagnose(evidence)]


def served(
    evidence: Evidence, labels: Labels | None, texts: Mapping[int, Generated] | None = None
) -> Evidence:
    """The same server with other log-probabilities or texts."""
    return replace(evidence, served=Answers(None, labels, texts or evidence.expected.texts))


def with_facts(evidence: Evidence, **facts: object) -> Evidence:
    return replace(evidence, facts=replace(evidence.facts, **facts))


def test_a_good_server_gets_no_cause_and_no_further_question(good: Evidence) -> None:
    def never(_: object) -> None:
        raise AssertionError("no difference, no question")

    assert diagnose(replace(good, answers_of=never, ask_chat=never)) == []
    within = {
        row: {name: logp + 0.09 for name, logp in one.items()} for row, one in good.expected.labels.items()
    }
    assert diagnose(served(replace(good, answers_of=never), within)) == []
    cut = replace(good.expected, texts=answers("ye", "no", finish=LENGTH))  # in training too
    assert diagnose(replace(good, expected=cut, served=cut, chat=cut.texts)) == []


def test_a_flip_within_the_nats_is_a_difference(good: Evidence) -> None:
    close = {**good.expected.labels, 0: {"yes": -1.0, "no": -1.02}}
    flipped = {**close, 0: {"yes": -1.02, "no": -1.0}}
    near = replace(good, expected=replace(good.expected, labels=close))
    assert names(served(near, flipped)) == []  # in one row: the table shows where
    all_flipped = {
        row: {"yes": labels["no"], "no": labels["yes"]} for row, labels in near.expected.labels.items()
    }
    loose = replace(near, tolerance=Tolerance(0, 9.0))
    assert names(served(loose, all_flipped)) == [MODEL]
    assert names(served(replace(loose, tolerance=Tolerance(4, 9.0)), all_flipped)) == []


def test_another_prompt_is_quoted_from_its_first_token_on(good: Evidence) -> None:
    ids = {row: prompt(row, system="You are a pirate.") for row in ROWS}
    only(
        replace(good, served_ids=ids),
        "another prompt",
        "4 of 4 prompts",
        "helpful",
        "pirate",
        "chat_template.jinja",
    )
    doubled = {row: [0, *prompt(row)] for row in ROWS}
    only(replace(good, served_ids=doubled), "another prompt", "from token 1 on", '"<s>')
    vllm = with_facts(replace(good, served_ids=doubled), engine=VLLM)
    only(vllm, "another prompt", "--chat-template")
    one = {**good.expected_ids, 2: prompt(2, TOKENIZER.chat_template)}
    only(replace(good, served_ids=one), "another prompt", "1 of 4 prompts", "row 2")


def test_vllm_without_a_template_refuses_messages(good: Evidence) -> None:
    refusal = (
        "HTTP 400 As of transformers v4.44, default chat template is no longer allowed, so you must provide "
        "a chat template if the tokenizer does not define one."
    )
    vllm = with_facts(replace(good, served_ids=None, chat=None, refusals=[refusal]), engine=VLLM)
    only(vllm, "another prompt", "--chat-template")


def test_the_base_answers_instead_of_the_adapter(good: Evidence) -> None:
    only(served(good, labels_of([])), "adapter not loaded", "walks", "--lora walks.gguf")
    assert names(served(good, labels_of([replace(good.adapters[0], weight=0.5)]))) == [MODEL]


def test_commands_quote_paths(good: Evidence) -> None:
    weighted = good.adapters[0]
    spaced = replace(
        good, adapters=[replace(weighted, adapter=replace(weighted.adapter, folder=Path("my $(id)")))]
    )
    cause = only(served(with_facts(spaced, engine=VLLM), labels_of([])), "adapter not loaded")
    assert "--lora-modules 'my $(id)=my $(id)'" in cause.sentence
    cause = only(served(spaced, labels_of([])), "adapter not loaded")
    assert "--lora 'my $(id).gguf'" in cause.sentence


def test_log_probabilities_that_differ_everywhere_are_of_another_model(good: Evidence) -> None:
    other = served(good, labels_of([replace(good.adapters[0], weight=0.3)]))
    only(other, MODEL, "another scale", "4 labels", "tuneyard adapter fuse")


def test_without_labels_greedy_texts_show_which_model_is_served(good: Evidence) -> None:
    texts = texts_of(good.adapters)
    free = replace(good, expected=Answers(None, None, texts), chat=texts, ask_chat=lambda _: texts)
    assert names(served(free, None, texts)) == []
    only(served(free, None, texts_of([])), "adapter not loaded", "walks")
    assert names(served(free, None, answers("another"))) == []


def test_a_quantised_file_with_its_flips(good: Evidence) -> None:
    labels = labels_of(good.adapters, 0.12)
    q8 = with_facts(good, file_type="Q8_0", bits=8.5)
    only(served(q8, labels), MODEL, "Q8_0", "8.5 bits", "1 of 4 labels", "--flips 1")
    half = {**good.expected.labels, 0: labels[0], 1: labels[1]}
    assert names(served(q8, half)) == [MODEL]


def test_a_missing_end_token(good: Evidence) -> None:
    endless = answers("yes", "no", finish=LENGTH)
    lost = with_facts(good, eos="<s>")
    only(
        served(lost, good.expected.labels, endless),
        "missing end token",
        "4 of 4 answers",
        "<|done|>",
        "int:2",
    )
    ignoring = with_facts(good, sampling={"ignore_eos": True})
    babbling = answers("yesss", "nooo", finish=LENGTH)
    only(served(ignoring, good.expected.labels, babbling), "missing end token", "--ignore-eos")
    one = {**good.expected.texts, 0: Generated("yes yes", LENGTH)}
    assert names(served(good, good.expected.labels, one)) == []
    chat_alone = replace(good, chat=babbling, ask_chat=lambda _: babbling)
    assert names(chat_alone) == []  # the answers after our ids end
    assert names(served(replace(good, ends=[]), good.expected.labels, endless)) == []


def test_a_server_that_samples(good: Evidence) -> None:
    odd = replace(good, chat=answers("maybe", "no"))
    only(odd, "sampling", "2 answers", "--temp 0")
    only(with_facts(odd, engine=VLLM, sampling={}), "sampling", "override-generation-config")
    assert names(replace(odd, ask_chat=lambda _: odd.chat)) == []


def test_a_context_that_is_too_small(good: Evidence) -> None:
    refusal = (
        'HTTP 400 {"error":{"code":400,"message":"request (299 tokens) exceeds the available context size '
        '(256 tokens), try increasing it","type":"exceed_context_size_error"}}'
    )
    longer = {**good.expected_ids, 1: [*good.expected_ids[1], 101]}
    good = replace(good, expected_ids=longer, served_ids=longer)
    small = with_facts(good, context=256)
    longest = len(longer[1]) + good.max_new_tokens
    only(replace(small, refusals=[refusal]), "context cut", f"{longest} tokens", "256", "--ctx-size 512")
    vllm = "This model's maximum context length is 64 tokens. However, you requested 300 tokens"
    only(
        with_facts(replace(good, refusals=[vllm]), engine=VLLM, context=64, slots=None),
        "context cut", "64", "--max-model-len 256",
    )  # fmt: skip
    half = answers("ye", "n", finish=LENGTH)
    tight = with_facts(good, context=longest - 4)
    only(served(tight, good.expected.labels, half), "context cut")
    assert names(served(good, good.expected.labels, half)) == []  # the context is large


RANK_IN_VLLM = (
    '{"error":{"message":"Call to add_lora method failed: Worker failed with error \'LoRA rank 32 is greater '
    "than max_lora_rank 16.', please check the stack trace above for the root cause\","
    '"type":"InternalServerError","param":null,"code":500}}'
)
"""vLLM 0.26's answer to POST /v1/load_lora_adapter: tests/integration/test_vllm_server.py asks for it."""


def test_a_rank_above_vllms_limit(good: Evidence) -> None:
    vllm = with_facts(good, engine=VLLM)
    only(
        replace(vllm, refusals=[RANK_IN_VLLM]),
        "adapter not loaded",
        "rank 32",
        "16",
        "--max-lora-rank 32",
    )
    huge = RANK_IN_VLLM.replace("rank 32", "rank 1024")
    only(replace(vllm, refusals=[huge]), "adapter not loaded", "tuneyard adapter fuse")


def test_two_causes_are_both_named(good: Evidence) -> None:
    ids = {row: [0, *prompt(row, system="You are a pirate.", think=True)] for row in ROWS}
    q8 = with_facts(replace(good, served_ids=ids), file_type="Q8_0", bits=8.5)
    off = {
        row: {name: logp + 0.11 * (-1) ** row for name, logp in one.items()}
        for row, one in labels_of([]).items()
    }
    endless = served(q8, off, answers("yes", "no", finish=LENGTH))
    assert names(endless) == ["another prompt", "adapter not loaded", "missing end token"]


def test_answers_that_run_on_are_not_cut_by_the_context(good) -> None:
    longest = max(map(len, good.expected_ids.values()))
    running = {n: Generated(f"{a.text}<|done|> more", LENGTH) for n, a in good.expected.texts.items()}
    tight = with_facts(replace(good, chat=running), context=longest + 4)
    assert names(served(tight, good.expected.labels, running)) == ["missing end token"]
