"""Each cause of a difference is named from evidence, and only then."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest

from tests.messages import check_facts, record
from tests.unit.adapters.make import factors, make
from tuneyard.adapters.kinds.lora import LoraConfig
from tuneyard.adapters.store import Adapter, open_adapter
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.eval.backends.endpoint import OfferedModel
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.served import LLAMA_CPP, OLLAMA, VLLM, ServerFacts
from tuneyard.eval.prove.diagnosis import Cause, diagnose
from tuneyard.eval.prove.evidence import Evidence
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
LABELS = ("yes", "no")


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
    facts = ServerFacts(
        url="http://localhost:8080/v1", engine=LLAMA_CPP, version="b1", model="m", model_path="m.gguf",
        chat_template=TEMPLATE, context=4096, slots=2, sampling={"temperature": 0.8, "repeat_penalty": 1.0},
        bos="<s>", eos="<|done|>", file_type="F16", bits=16.0,
        offers=[OfferedModel("walks", "walks.gguf", True, 1.0, 0)],
    )  # fmt: skip
    parts = [WeightedAdapter(adapter, 1.0)]
    ids = {row: prompt(row) for row in ROWS}
    expected = Answers(None, labels_of(parts), answers("yes", "no"))
    return Evidence(
        facts=facts, model="walks", dataset="walks", parts=parts, tokenizer=TOKENIZER,
        messages={row: [{"role": "user", "content": f"Question {row}?"}] for row in ROWS},
        expected_ids=ids, served_ids=ids, prompt_texts=None, expected=expected, served=expected,
        chat=expected.texts, ends=[2], tolerance=Tolerance(0, 0.1), labels_of=labels_of, texts_of=texts_of,
        max_new_tokens=8, refusals=[], ask_chat=lambda _: answers("yes", "no"),
    )  # fmt: skip


def only(evidence: Evidence, name: str, *facts: object) -> Cause:
    """The only cause; its sentence contains the facts."""
    (cause,) = diagnose(evidence)
    assert cause.name == name, cause.sentence
    check_facts(cause.sentence, facts)
    record(cause.sentence)
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


def config(evidence: Evidence, **fields: object) -> list[WeightedAdapter]:
    """The adapter in another scale."""
    (part,) = evidence.parts
    lora = part.adapter.config
    assert isinstance(lora, LoraConfig)
    return [replace(part, adapter=replace(part.adapter, config=replace(lora, **fields)))]


def test_a_good_server_gets_no_cause_and_no_further_question(good: Evidence) -> None:
    def never(_: object) -> None:
        raise AssertionError("no difference, no question")

    assert diagnose(replace(good, labels_of=never, ask_chat=never)) == []
    within = {
        row: {name: logp + 0.09 for name, logp in one.items()} for row, one in good.expected.labels.items()
    }
    assert diagnose(served(replace(good, labels_of=never), within)) == []
    cut = replace(good.expected, texts=answers("ye", "no", finish=LENGTH))  # in training too
    assert diagnose(replace(good, expected=cut, served=cut, chat=cut.texts)) == []


def test_a_flip_within_the_nats_is_a_difference(good: Evidence) -> None:
    close = {**good.expected.labels, 0: {"yes": -1.0, "no": -1.02}}
    flipped = {**close, 0: {"yes": -1.02, "no": -1.0}}
    near = replace(good, expected=replace(good.expected, labels=close))
    assert names(served(near, flipped)) == ["unexplained"]
    assert names(served(replace(near, tolerance=Tolerance(1, 0.1)), flipped)) == []


def test_another_system_text_is_quoted(good: Evidence) -> None:
    ids = {row: prompt(row, system="You are a pirate.") for row in ROWS}
    only(replace(good, served_ids=ids), "system text", "pirate", "helpful", "chat_template.jinja")
    without = TEMPLATE.replace(f"<|turn|>system\n{SYSTEM}<|done|>\n", "")
    ids = {row: prompt(row, without) for row in ROWS}
    only(replace(good, served_ids=ids), "system text", "empty", f'"{SYSTEM}"')


def test_long_system_texts_are_quoted_from_their_difference_on(good: Evidence) -> None:
    long = "You always answer in one word and never explain anything, "
    expected = {row: prompt(row, system=f"{long}not even briefly.") for row in ROWS}
    ids = {row: prompt(row, system=f"{long}but politely.") for row in ROWS}
    only(replace(good, expected_ids=expected, served_ids=ids), "system text", "…not even", "…but politely")


def test_a_doubled_bos(good: Evidence) -> None:
    ids = {row: [0, *prompt(row)] for row in ROWS}
    only(replace(good, served_ids=ids), "doubled BOS", "<s>", "twice", "chat_template.jinja")
    assert names(replace(good, expected_ids=ids)) == ["unexplained"]  # fewer than in training
    other = {row: [0, *prompt(row, system="You are a pirate.")] for row in ROWS}
    assert names(replace(good, expected_ids=ids, served_ids=other)) == ["system text"]  # training's too


@pytest.mark.parametrize(
    ("trained", "server", "facts"),
    [
        ("<think>\n\n</think>\n\n", "", "Thinking is on; false"),
        ("<think>\n\n</think>\n\n", "<think>\n", "Thinking is on; false"),
        ("", "<think>\n", "Thinking is on; chat_template.jinja"),
        ("", "<think>\n\n</think>\n\n", "empty thought; chat_template.jinja"),
        ("<think>\n", "<think>\n\n</think>\n\n", "Thinking is off; true"),
    ],
)
def test_thinking(good: Evidence, trained: str, server: str, facts: str) -> None:
    expected = {row: prompt(row, think=True) + TOKENIZER(trained)["input_ids"] for row in ROWS}
    ids = {row: prompt(row, think=True) + TOKENIZER(server)["input_ids"] for row in ROWS}
    only(replace(good, expected_ids=expected, served_ids=ids), "thinking", *facts.split("; "))


def test_thinking_is_seen_in_answers_where_prompts_are_not_shown(good: Evidence) -> None:
    thoughts = answers("<think>Well, let me see.</think>yes", "<think>Hm.</think>no")
    vllm = with_facts(replace(good, served_ids=None, chat=thoughts, ask_chat=lambda _: thoughts), engine=VLLM)
    only(vllm, "thinking", "4 of 4 answers", "--default-chat-template-kwargs")
    empty = answers("<think>\n\n</think>\n\nyes", "<think></think>no")
    assert "thinking" not in names(replace(good, served_ids=None, chat=empty))
    trained = replace(good.expected, texts=answers("<think>So.</think>yes", "<think>Oh.</think>no"))
    assert "thinking" not in names(replace(good, expected=trained, served=trained, chat=thoughts))
    one = {**good.expected.texts, 0: thoughts[0]}
    assert "thinking" not in names(replace(good, chat=one))


def test_the_bases_template_and_llama_cpps_own(good: Evidence) -> None:
    ids = {row: prompt(row, TOKENIZER.chat_template) for row in ROWS}
    only(replace(good, served_ids=ids), "chat template not given", "base's own", "4 of 4 rows")
    chatml = "<|im_start|>user\nQuestion {}?<|im_end|>\n<|im_start|>assistant\n"
    ids = {row: TOKENIZER(chatml.format(row))["input_ids"] for row in ROWS}
    cause = only(replace(good, served_ids=ids), "chat template not given", "ChatML")
    assert "--chat-template-file" in cause.sentence
    reported = "{% for m in messages %}### {{ m['content'] }}\n{% endfor %}"
    ids = {row: prompt(row, reported) for row in ROWS}
    other = with_facts(replace(good, served_ids=ids), chat_template=reported)
    only(other, "chat template not given", "reports")
    mixed = {**ids, 0: prompt(0, "{{ messages[0]['content'] }}")}
    assert names(replace(other, served_ids=mixed)) == ["unexplained"]
    assert names(replace(good, served_ids=ids)) == ["unexplained"]


def test_vllm_without_a_template_refuses_messages(good: Evidence) -> None:
    refusal = (
        "HTTP 400 As of transformers v4.44, default chat template is no longer allowed, so you must provide "
        "a chat template if the tokenizer does not define one."
    )
    vllm = with_facts(replace(good, served_ids=None, chat=None, refusals=[refusal]), engine=VLLM)
    only(vllm, "chat template not given", "--chat-template")


def test_the_base_answers_instead_of_the_adapter(good: Evidence) -> None:
    only(served(good, labels_of([])), "adapter not loaded", "walks", "--lora walks.gguf")
    listed = with_facts(good, offers=[OfferedModel("walks", "walks.gguf", True, 0.0, 0)])
    only(served(listed, labels_of([])), "adapter not loaded", "scale 0")
    halved = with_facts(good, offers=[OfferedModel("walks", "walks.gguf", True, 0.5, 0)])
    half = labels_of([replace(good.parts[0], weight=0.5)])
    only(served(halved, half), "adapter not loaded", "scale 0.5")
    assert names(served(good, half)) == ["unexplained"]
    third = labels_of([replace(good.parts[0], weight=0.3)])
    assert names(served(halved, third)) == ["unexplained"]  # not those of the scale that it lists


def test_commands_quote_paths(good: Evidence) -> None:
    part = good.parts[0]
    spaced = replace(good, parts=[replace(part, adapter=replace(part.adapter, folder=Path("my $(id)")))])
    cause = only(served(with_facts(spaced, engine=VLLM), labels_of([])), "adapter not loaded")
    assert "--lora-modules 'my $(id)=my $(id)'" in cause.sentence
    cause = only(served(spaced, labels_of([])), "adapter not loaded")
    assert "--lora 'my $(id).gguf'" in cause.sentence


def test_scales_of_loaders_that_drop_settings(good: Evidence) -> None:
    raw = good.parts[0].adapter.config.raw
    plain = {**raw, "use_rslora": False}
    for fields, facts in (
        ({"raw": plain}, ["rsLoRA dropped"]),
        ({"alphas": {}}, ["alpha_pattern dropped"]),
        ({"alphas": {}, "ranks": {}}, ["rank_pattern and alpha_pattern dropped"]),
        ({"raw": plain, "alphas": {}}, ["rsLoRA and alpha_pattern dropped"]),
    ):
        evidence = served(good, labels_of(config(good, **fields)))
        only(evidence, "rsLoRA or patterns dropped", *facts, "tuneyard adapter export")
    only(with_facts(evidence, engine=VLLM), "rsLoRA or patterns dropped", "tuneyard adapter fuse")
    listed = with_facts(evidence, offers=[OfferedModel("walks", "walks.gguf", True, 0.5, 0)])
    assert names(listed) == ["rsLoRA or patterns dropped"]


def test_a_plain_adapter_has_one_scale(good: Evidence) -> None:
    raw = {**good.parts[0].adapter.config.raw, "use_rslora": False}
    asked = []

    def ask(parts: Sequence[WeightedAdapter]) -> Labels:
        asked.append(len(parts))
        return labels_of(parts)

    plain = replace(good, parts=config(good, raw=raw, alphas={}, ranks={}), labels_of=ask)
    labels = {
        row: {name: logp * 3 for name, logp in one.items()} for row, one in good.expected.labels.items()
    }
    assert names(served(plain, labels)) == ["unexplained"] and asked == [0]  # the base alone


def test_without_labels_greedy_texts_show_which_model_is_served(good: Evidence) -> None:
    texts = texts_of(good.parts)
    free = replace(good, expected=Answers(None, None, texts), chat=texts, ask_chat=lambda _: texts)
    assert names(served(free, None, texts)) == []
    only(served(free, None, texts_of([])), "adapter not loaded", "greedy texts")
    plain = config(good, raw={**good.parts[0].adapter.config.raw, "use_rslora": False})
    only(served(free, None, texts_of(plain)), "rsLoRA or patterns dropped", "greedy texts")
    q4 = with_facts(free, file_type="Q4_0")
    assert names(served(q4, None, texts_of([]))) == ["adapter not loaded"]
    assert names(served(free, None, answers("another"))) == ["unexplained"]


def test_settings_that_are_no_numbers_are_not_named(good: Evidence) -> None:
    odd = with_facts(
        replace(good, chat=answers("maybe", "no")), sampling={"temperature": "hot", "repeat_penalty": None}
    )
    only(odd, "temperature", "samples its answers:")
    penalised = replace(odd, ask_chat=lambda more: odd.chat if len(more) <= 1 else good.chat)
    only(penalised, "repetition penalty", "a repetition penalty")


def test_a_quantised_file_with_its_flips(good: Evidence) -> None:
    labels = labels_of(good.parts, 0.12)
    q8 = with_facts(good, file_type="Q8_0", bits=8.5)
    only(served(q8, labels), "quantised file", "Q8_0", "8.5 bits", "1 of 4 labels", "--flips 1")
    assert names(served(good, labels)) == ["unexplained"]  # the file is F16
    unknown = with_facts(good, file_type=None, bits=4.6)
    only(served(unknown, labels), "quantised file", "4.6 bits")
    full = with_facts(good, file_type="F16", bits=8.0)  # of which the sizes are no proof
    assert names(served(full, labels)) == ["unexplained"]
    one_row = {**good.expected.labels, 0: {"yes": -2.0, "no": -1.2}}
    assert names(served(q8, one_row)) == ["unexplained"]  # not spread
    assert names(served(q8, labels_of(good.parts, 9.0))) == ["unexplained"]  # not small


def test_without_labels_a_quantised_file_is_named_by_its_answers(good: Evidence) -> None:
    good = replace(good, expected=Answers(None, None, good.expected.texts))
    q4 = with_facts(good, file_type="Q4_0", bits=4.6)
    only(served(q4, None, answers("yes", "no", "no", "no")), "quantised file", "1 of 4 answers")


def test_a_missing_end_token(good: Evidence) -> None:
    endless = answers("yes", "no", finish=LENGTH)
    lost = with_facts(good, eos="<s>")
    cause = only(
        served(lost, good.expected.labels, endless), "missing end token", "4 of 4 answers", "<|done|>"
    )
    assert "int:2" in cause.sentence and '"<s>"' in cause.sentence
    ignoring = with_facts(good, sampling={"ignore_eos": True})
    babbling = answers("yesss", "nooo", finish=LENGTH)
    only(served(ignoring, good.expected.labels, babbling), "missing end token", "--ignore-eos")
    one = {**good.expected.texts, 0: Generated("yes yes", LENGTH)}
    assert names(served(good, good.expected.labels, one)) == ["unexplained"]
    chat_alone = replace(good, chat=babbling, ask_chat=lambda _: babbling)
    assert names(chat_alone) == ["unexplained"]  # the answers after our ids end
    tight = with_facts(good, context=90)  # where an answer that does not end is cut at last
    assert names(served(tight, good.expected.labels, endless)) == ["missing end token"]
    assert names(served(replace(good, ends=[]), good.expected.labels, endless)) == ["unexplained"]


def test_a_repetition_penalty_and_a_temperature(good: Evidence) -> None:
    odd = answers("maybe", "no")
    penalised = replace(good, chat=odd, ask_chat=lambda more: odd if len(more) <= 1 else answers("yes", "no"))
    strict = with_facts(
        penalised, sampling={"temperature": 0.0, "repeat_penalty": 1.3, "dry_multiplier": 0.0}
    )
    only(strict, "repetition penalty", "repeat_penalty 1.3", "2 greedy answers", "--repeat-penalty 1")
    dry = with_facts(penalised, sampling={"repeat_penalty": 1.0, "dry_multiplier": 0.8})
    only(replace(dry, chat=odd), "repetition penalty", "dry_multiplier 0.8", "--dry-multiplier 0")
    neutral = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "dry_multiplier": 0}
    off = with_facts(penalised, sampling={"temperature": 0.0, **neutral})
    assert names(off) == ["unexplained"]  # the server reports that it has no penalty
    sampled = replace(good, chat=odd)
    only(sampled, "temperature", "temperature 0.8", "2 answers", "--temp 0")
    only(with_facts(sampled, engine=VLLM, sampling={}), "temperature", "override-generation-config")
    both = replace(penalised, chat=answers("perhaps", "no"))
    assert names(both) == ["repetition penalty", "temperature"]
    assert names(replace(sampled, ask_chat=None)) == ["unexplained"]
    assert names(with_facts(sampled, sampling={"temperature": 0.0})) == ["unexplained"]


def test_a_context_that_is_too_small(good: Evidence) -> None:
    refusal = (
        'HTTP 400 {"error":{"code":400,"message":"request (299 tokens) exceeds the available context size '
        '(256 tokens), try increasing it","type":"exceed_context_size_error"}}'
    )
    small = with_facts(good, context=256)
    longest = max(map(len, good.expected_ids.values())) + good.max_new_tokens
    only(replace(small, refusals=[refusal]), "context cut", f"{longest} tokens", "256", "--ctx-size 512")
    vllm = "This model's maximum context length is 64 tokens. However, you requested 300 tokens"
    only(
        with_facts(replace(good, refusals=[vllm]), engine=VLLM, context=64, slots=None),
        "context cut", "64", "--max-model-len 256",
    )  # fmt: skip
    half = answers("ye", "n", finish=LENGTH)
    tight = with_facts(good, context=longest - 4)
    only(served(tight, good.expected.labels, half), "context cut")
    assert names(served(good, good.expected.labels, half)) == ["unexplained"]  # the context is large


def test_a_context_that_cuts_one_row_explains_this_row_alone(good: Evidence) -> None:
    ids = {**good.expected_ids, 0: good.expected_ids[0] * 4}
    tight = with_facts(
        replace(good, expected_ids=ids, served_ids=ids), context=len(ids[0]), sampling={"temperature": 0.0}
    )
    cut = {**good.expected.texts, 0: Generated("y", LENGTH)}
    assert names(replace(tight, chat=cut, ask_chat=lambda _: cut)) == ["context cut"]
    refused = replace(tight, refusals=["HTTP 400 exceeds the available context size"])
    other = {row: Generated("other", STOP) for row in ROWS}
    assert names(replace(refused, chat=other, ask_chat=lambda _: other)) == ["context cut", "unexplained"]
    texts = {**cut, 1: Generated("other", STOP)}
    without_labels = replace(tight, expected=Answers(None, None, good.expected.texts))
    assert names(replace(without_labels, served=Answers(None, None, texts))) == ["context cut", "unexplained"]


def test_sampled_answers_are_asked_for_several_times(good: Evidence) -> None:
    right, odd = good.expected.texts, answers("maybe", "no")
    requests: list[object] = []

    def sometimes(more: Mapping[str, object]) -> Mapping[int, Generated]:
        requests.append(more)
        return odd if not more and requests.count({}) == 2 else right

    one = {**right, 1: Generated("maybe", STOP)}  # the first answers differ in row 1, the third in 0 and 2
    only(replace(good, chat=one, ask_chat=sometimes), "temperature", "3 answers")
    assert requests.count({}) == 2 and requests.count({"temperature": 0}) == 3

    changing = iter([right, odd] * 9)
    unstable = replace(good, chat=odd, ask_chat=lambda _: next(changing))
    only(unstable, "unexplained", "at temperature 0, 2 answers", "change")


OLLAMA_SAMPLING = {"temperature": 0.0, "repeat_penalty": 1.0, "stop": ["<|done|>"]}


@pytest.fixture
def modelfile(good: Evidence) -> Evidence:
    """The same server with a Modelfile. Its answers are compared with the server's greedy ones."""
    expected = Answers(None, None, good.expected.texts)
    none = Answers(None, None, None)
    return with_facts(
        replace(good, expected=expected, served=none),
        engine=OLLAMA,
        sampling=OLLAMA_SAMPLING,
        chat_template=None,
    )


def test_causes_in_a_modelfile_name_its_lines(modelfile: Evidence) -> None:
    odd, right = answers("maybe", "no"), modelfile.expected.texts
    assert diagnose(modelfile) == []

    def with_sampling(**sampling: object) -> Evidence:
        evidence = with_facts(modelfile, sampling={**OLLAMA_SAMPLING, **sampling})
        return replace(evidence, chat=odd, ask_chat=lambda more: right if more else odd)

    only(with_sampling(temperature=0.8), "temperature", "temperature 0.8", "PARAMETER temperature 0")
    penalised = with_sampling(repeat_penalty=1.1)
    penalised = replace(penalised, ask_chat=lambda more: odd if len(more) <= 1 else right)
    only(penalised, "repetition penalty", "repeat_penalty 1.1", "PARAMETER repeat_penalty 1")
    texts = {row: Generated(answer.text[:1], STOP) for row, answer in right.items()}
    stopped = with_facts(modelfile, sampling={**OLLAMA_SAMPLING, "stop": ["z", "es"]})
    stopped = replace(stopped, chat={**right, 0: texts[0], 2: texts[2]}, ask_chat=lambda _: stopped.chat)
    only(stopped, "stop word", '"es"', "2 trained answers", "take it out")
    endless = answers("yes yes", "no no", finish=LENGTH)
    only(
        replace(modelfile, chat=endless, ask_chat=lambda _: endless),
        "missing end token", 'PARAMETER stop "<|done|>"',
    )  # fmt: skip
    short = answers("y", "n", finish=LENGTH)
    cut = with_facts(modelfile, sampling={**OLLAMA_SAMPLING, "n_predict": 1})
    only(
        replace(cut, chat=short, ask_chat=lambda _: short),
        "answer cut",
        "PARAMETER num_predict 1",
        "4 answers",
    )
    longest = max(map(len, modelfile.expected_ids.values())) + modelfile.max_new_tokens
    tight = with_facts(modelfile, context=longest - 4)
    only(replace(tight, chat=short, ask_chat=lambda _: short), "context cut", "PARAMETER num_ctx 256")
    pirate = {row: prompt(row, system="You are a pirate.") for row in ROWS}
    only(replace(modelfile, served_ids=pirate), "system text", "pirate", "adapter export FUSED --to ollama")


RANK_IN_VLLM = (
    '{"error":{"message":"Call to add_lora method failed: Worker failed with error \'LoRA rank 32 is greater '
    "than max_lora_rank 16.', please check the stack trace above for the root cause\","
    '"type":"InternalServerError","param":null,"code":500}}'
)
"""vLLM 0.26's answer to POST /v1/load_lora_adapter: tests/integration/test_vllm_server.py asks for it."""
NOT_LOADED_IN_VLLM = (
    '{"error":{"message":"LoRA adapter \'high\' was found but could not be loaded.",'
    '"type":"BadRequestError","param":null,"code":400}}'
)
"""The answer of a LoRA resolver of vLLM 0.26, measured in the same test."""


def test_a_rank_above_vllms_limit(good: Evidence) -> None:
    vllm = with_facts(good, engine=VLLM)
    only(
        replace(vllm, refusals=[RANK_IN_VLLM]),
        "rank above --max-lora-rank",
        "rank 32",
        "16",
        "--max-lora-rank 32",
    )
    assert names(replace(vllm, refusals=[NOT_LOADED_IN_VLLM])) == ["unexplained"]  # rank 16 is not above 16
    high = replace(vllm, parts=config(vllm, rank=24), refusals=[NOT_LOADED_IN_VLLM])
    only(high, "rank above --max-lora-rank", "names no reason", "rank 24", "default", "--max-lora-rank 32")
    huge = RANK_IN_VLLM.replace("rank 32", "rank 1024")
    only(replace(vllm, refusals=[huge]), "rank above --max-lora-rank", "tuneyard adapter fuse")


def test_two_causes_are_both_named(good: Evidence) -> None:
    ids = {row: [0, *prompt(row, system="You are a pirate.", think=True)] for row in ROWS}
    q8 = with_facts(replace(good, served_ids=ids), file_type="Q8_0", bits=8.5)
    off = {
        row: {name: logp + 0.11 * (-1) ** row for name, logp in one.items()}
        for row, one in labels_of([]).items()
    }
    endless = served(q8, off, answers("yes", "no", finish=LENGTH))
    assert names(endless) == [
        "doubled BOS", "thinking", "system text", "adapter not loaded", "quantised file", "missing end token",
    ]  # fmt: skip


def test_a_cause_leaves_other_differences_unexplained(good: Evidence) -> None:
    ids = {row: prompt(row, system="You are a pirate.") for row in ROWS}
    labels = {
        row: {name: logp * 3 for name, logp in one.items()} for row, one in good.expected.labels.items()
    }
    assert names(served(replace(good, served_ids=ids), labels)) == ["system text", "unexplained"]


def test_what_stays_unexplained_names_what_was_excluded(good: Evidence) -> None:
    labels = {
        row: {name: logp * 3 for name, logp in one.items()} for row, one in good.expected.labels.items()
    }
    only(served(good, labels), "unexplained", "without the adapter", "F16", "equal ids")
