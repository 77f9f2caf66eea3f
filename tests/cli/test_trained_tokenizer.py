"""An adapter is scored with the tokenizer and the end tokens of its training, the base with its own."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testing.tiny import SHAPES, make_tiny, write_adapter
from tests.cli.scoring import call, invoke, predictions
from tests.json_files import read_json, write_json, write_lines
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.llamafactory.prompt import find_chat_template
from tuneyard.eval.chat import cli as chat
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.qa.__main__ import cli as qa

pytestmark = pytest.mark.usefixtures("one_thread")
LONGEST = 24  # tokens of an answer
QUESTION = [{"role": "user", "content": "She sings."}]


def save_tokenizer(model: Path, folder: Path, **changes: object) -> Path:
    """Save the tokenizer of a model into a folder, with other special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens(changes)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model (not Instruct) whose answers end with <|endoftext|>. Its embedding has spare rows."""
    folder = make_tiny(tmp_path_factory.mktemp("bases") / "base", vocab_size=1024)
    save_tokenizer(folder, folder, eos_token="<|endoftext|>")
    for name in ("config.json", "generation_config.json"):
        fields = read_json(folder / name)
        write_json(folder / name, {**fields, "eos_token_id": 0})
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA without a tokenizer."""
    return write_adapter(tmp_path_factory.mktemp("saves") / "lora", seed=1, target_modules=sorted(SHAPES))


def trained_model(base: Path, adapter: Path) -> Any:
    """PEFT's live model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()


def prompt_of(tokenizer: Any, talk: list[dict[str, str]] = QUESTION) -> list[int]:
    text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def continuation(model: Any, prompt: list[int]) -> list[int]:
    """The greedy ids after a prompt, without an end."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([prompt])
        for _ in range(LONGEST):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[0, len(prompt) :].tolist()


@dataclass(frozen=True)
class Training:
    """What the weights answer to `QUESTION`, and a token in the answer that a training takes as its end."""

    answer: list[int]
    place: int
    end: str
    text: str
    """The answer up to the end token."""


@pytest.fixture(scope="module")
def training(base: Path, weights: Path) -> Training:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    answer = continuation(trained_model(base, weights), prompt_of(tokenizer))
    words = [token for token in answer if 260 < token < len(tokenizer)]  # of several letters
    place, token = answer.index(words[0]), words[0]
    assert 0 not in answer  # the base's end: it would run on to the limit
    return Training(answer, place, tokenizer.convert_ids_to_tokens(token), tokenizer.decode(answer[:place]))


def whole_tokenizer(base: Path, folder: Path, end: str) -> None:
    save_tokenizer(base, folder, eos_token=end)


def settings_alone(base: Path, folder: Path, end: str) -> None:
    write_json(folder / "tokenizer_config.json", {"eos_token": end})


def settings_as_object(base: Path, folder: Path, end: str) -> None:
    write_json(folder / "tokenizer_config.json", {"eos_token": {"content": end, "special": True}})


@pytest.fixture
def question(tmp_path: Path) -> Path:
    write_lines(tmp_path / "asked.jsonl", [{"instruction": QUESTION[0]["content"], "output": "x"}])
    return tmp_path / "asked.jsonl"


@pytest.mark.parametrize("save", [whole_tokenizer, settings_alone, settings_as_object])
def test_an_answer_ends_where_it_ended_in_training(
    score, base, weights, training, question, tmp_path, save
) -> None:
    adapter = tmp_path / "saved"
    shutil.copytree(weights, adapter)
    save(base, adapter, training.end)
    both = ("--adapter", f"one={adapter}", "--adapter", f"sum={adapter}:0.5+{adapter}:0.5")
    out = score(qa, "--data", question, *both, "--max-new-tokens", LONGEST, model=base)
    for model in ("one", "sum"):
        assert predictions(out / model / "asked")[0]["model_output"] == training.text
    bare = score(
        qa,
        "--data",
        question,
        "--adapter",
        f"one={weights}",
        "--max-new-tokens",
        LONGEST,
        model=base,
        out="x",
    )
    assert len(predictions(bare / "one" / "asked")[0]["model_output"]) > len(training.text)
    said = invoke(
        chat, "--model", base, "--adapter", f"one={adapter}", "--once", QUESTION[0]["content"],
        "--max-new-tokens", LONGEST, catch_exceptions=False,
    )  # fmt: skip
    assert said.stdout.strip() == training.text.strip()


def test_a_merged_adapter_ends_its_answers_as_its_parts(score, base, weights, training, question, tmp_path):
    parts = []
    for name in ("a", "b"):
        shutil.copytree(weights, tmp_path / name)
        parts.append(f"{save_tokenizer(base, tmp_path / name, eos_token=training.end)}=0.5")
    call(adapters, "merge", *parts, "--out", tmp_path / "merged")
    out = score(
        qa,
        "--data",
        question,
        "--adapter",
        f"one={tmp_path / 'merged'}",
        "--max-new-tokens",
        LONGEST,
        model=base,
    )
    assert predictions(out / "one" / "asked")[0]["model_output"] == training.text


@pytest.mark.parametrize("without", ["", "generation_config.json"])
@pytest.mark.parametrize("note", [{}, {"padding_side": "left"}])
def test_a_fused_model_ends_its_answers_by_itself(base, weights, training, tmp_path, without, note) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own_base = tmp_path / "base"
    shutil.copytree(base, own_base, ignore=shutil.ignore_patterns(without))
    parts = []
    for name in ("a", "b"):
        shutil.copytree(weights, tmp_path / name)
        parts.append(f"{save_tokenizer(base, tmp_path / name, eos_token=training.end)}=0.5")
    fields = read_json(tmp_path / "b/tokenizer_config.json")
    write_json(tmp_path / "b/tokenizer_config.json", {**fields, **note})  # which fuse does not carry then
    out = tmp_path / "fused"
    for more in ((), ("--force",)):
        call(adapters, "fuse", *parts, "--base", own_base, "--out", out, "--same-base", *more)
    model = AutoModelForCausalLM.from_pretrained(out)
    prompt = prompt_of(AutoTokenizer.from_pretrained(out))
    tensor = torch.tensor([prompt])
    options = {"attention_mask": torch.ones_like(tensor), "do_sample": False, "pad_token_id": 0}
    ids = model.generate(tensor, max_new_tokens=LONGEST, **options)[0].tolist()
    assert ids[len(prompt) :] == training.answer[: training.place + 1]
    listed = read_json(out / "generation_config.json")
    # the base's end, the training's, and <|im_end|>, which follows an answer in the chat template
    assert listed["eos_token_id"] == [0, training.answer[training.place], 2]
    before = {} if without else read_json(base / "generation_config.json")
    assert {**before, "eos_token_id": 0} == {**listed, "eos_token_id": 0}


def test_a_fused_model_has_the_chat_template_of_the_training(base, weights, tmp_path) -> None:
    adapter = tmp_path / "saved"
    shutil.copytree(weights, adapter)
    write_json(adapter / "tokenizer_config.json", {"chat_template": "trained"})  # of an older LLaMA-Factory
    assert (base / "chat_template.jinja").is_file()  # which goes before tokenizer_config.json
    call(adapters, "fuse", adapter, "--base", base, "--out", tmp_path / "fused", "--same-base")
    assert find_chat_template(tmp_path / "fused").text == "trained"


def test_labels_of_which_one_begins_another_are_scored_with_the_end_of_the_training(
    score, base, weights, training, tmp_path
) -> None:
    import torch
    from transformers import AutoTokenizer

    rows = [{"instruction": "She sings.", "output": label} for label in ("no", "no no")]
    write_lines(tmp_path / "labels.jsonl", rows)
    adapter = tmp_path / "saved"
    shutil.copytree(weights, adapter)
    save_tokenizer(base, adapter, eos_token=training.end)
    out = score(
        nli,
        "--data",
        tmp_path / "labels.jsonl",
        "--adapter",
        f"one={adapter}",
        "--variants",
        "none",
        model=base,
    )
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model, prompt = trained_model(base, adapter), prompt_of(tokenizer)
    # <|im_end|> follows an answer in the chat template, 0 is the base's own end
    ends = [0, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    for label in ("no", "no no"):
        ids = tokenizer(label, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logs = model(torch.tensor([prompt + ids])).logits[0].double().log_softmax(-1)
        expected = sum(logs[len(prompt) - 1 + place, token].item() for place, token in enumerate(ids))
        expected += logs[-1, ends].logsumexp(-1).item()
        assert predictions(out / "one" / "labels")[0]["choices"][label] == pytest.approx(expected, abs=2e-4)


def test_an_end_token_without_a_row_in_the_embedding_ends_nothing(model) -> None:
    trained = model.as_trained(model.tokenizer, (2, model.vocabulary, model.vocabulary + 7))
    assert trained.ends == [2] and trained.net is model.net


def test_added_tokens_in_spare_rows_are_read_as_in_training(score, base, weights, tmp_path) -> None:
    from transformers import AutoTokenizer

    adapter = tmp_path / "saved"
    shutil.copytree(weights, adapter)
    save_tokenizer(base, adapter, additional_special_tokens=["<call>", "<result>"])
    text = "<call>She sings.<result>"
    write_lines(tmp_path / "asked.jsonl", [{"instruction": text, "output": "x"}])
    options = ("--adapter", f"one={adapter}", "--max-new-tokens", LONGEST)
    out = score(qa, "--data", tmp_path / "asked.jsonl", *options, model=base)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    prompt = prompt_of(tokenizer, [{"role": "user", "content": text}])
    assert {len(tokenizer) - 1, len(tokenizer) - 2} <= set(prompt)  # one token each
    answer = continuation(trained_model(base, adapter), prompt)
    for end in (0, tokenizer.convert_tokens_to_ids("<|im_end|>")):
        answer = answer[: [*answer, end].index(end)]
    expected = tokenizer.decode(answer, skip_special_tokens=True)
    assert predictions(out / "one" / "asked")[0]["model_output"] == expected


def test_a_sum_of_adapters_with_other_tokens_is_refused(score, base, weights, question, refused, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(weights, tmp_path / name)
    save_tokenizer(base, tmp_path / "a", additional_special_tokens=["<call>"])
    save_tokenizer(base, tmp_path / "b", additional_special_tokens=["<result>"])
    with refused(RequestError, tmp_path / "a", tmp_path / "b", "<call>"):
        score(qa, "--data", question, "--adapter", f"c={tmp_path / 'a'}:1+{tmp_path / 'b'}:1", model=base)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("tokenizer.json", '{"model": {"type": "Other"}, "added_tokens": []}', "tokenizer.json"),
        ("tokenizer.json", "[]", "tokenizer.json"),
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer_config.json", '{"eos_token": "<|absent|>"}', "<|absent|>"),
    ],
)
def test_a_damaged_tokenizer_is_refused_with_its_place(
    score, base, weights, question, refused, tmp_path, name, content, word
) -> None:
    adapter = tmp_path / "saved"
    shutil.copytree(weights, adapter)
    (adapter / name).write_text(content)
    with refused(ContentError, adapter, word):
        score(qa, "--data", question, "--adapter", f"one={adapter}", model=base)
