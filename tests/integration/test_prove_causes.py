"""Each cause of a difference, made on a real llama.cpp server, is the first that eval prove --url names."""

import contextlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.served_model import (
    BOS,
    END,
    LABELS,
    ROWS,
    SYSTEM,
    TEMPLATE,
    Trained,
    make_trained,
    question,
)
from tests.json_files import read_json, write_json
from tests.llama_server import llama_server
from tests.unit.adapters.test_commands import call
from tuneyard.core.errors import ContentError
from tuneyard.eval.metrics.labels import spellings
from tuneyard.eval.prove.command import cli

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
GREEDY = {"sampling.temp": 0.0}
"""A server's temperature is 0.8 unless it is started with another one."""


@dataclass(frozen=True)
class World:
    """A trained adapter, and the folder with the GGUF files that serve it."""

    trained: Trained
    home: Path

    def lora(self, name: str = "walks") -> list[list[Any]]:
        """The setting that applies a LoRA file."""
        return [[str(self.home / f"{name}.gguf"), 1.0]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("causes")
    trained = make_trained(home)
    base = trained.base
    export(base, "--type", "f16", "--out", home / "base.gguf")
    export(trained.adapter, "--base", base, "--out", home / "walks.gguf")
    for name, change in {"no_rslora": {"use_rslora": False}, "no_pattern": {"alpha_pattern": {}}}.items():
        loaded = shutil.copytree(trained.adapter, home / name)
        config = read_json(loaded / "adapter_config.json")
        write_json(loaded / "adapter_config.json", {**config, **change})
        export(loaded, "--base", base, "--out", home / f"{name}.gguf")
    call("fuse", trained.adapter, "--base", base, "--out", home / "fused")
    export(home / "fused", "--type", "f16", "--out", home / "fused.gguf")
    export(home / "fused", "--type", "q4_0", "--out", home / "q4_0.gguf")
    export(base, "--type", "q4_0", "--out", home / "base_q4_0.gguf")
    change_field(home / "base.gguf", home / "no_end.gguf", "tokenizer.ggml.eos_token_id")
    (base / "chat_template.jinja").rename(home / "kept.jinja")
    export(base, "--type", "f16", "--out", home / "no_template.gguf")
    (home / "kept.jinja").rename(base / "chat_template.jinja")
    long = [{"instruction": question(number) * 12, "output": ("yes", "no")[number]} for number in range(2)]
    write_json(home / "long.json", long)
    free = [{"instruction": question(number), "output": "no"} for number in range(2)]
    write_json(home / "free.json", free)
    return World(trained, home)


def export(folder: Path, *words: object) -> None:
    call("export", folder, "--to", "gguf", *words)


def change_field(source: Path, target: Path, field: str) -> None:
    """Copy a GGUF with 0, the id of BOS, in a field."""
    from gguf import GGUFReader

    shutil.copy(source, target)
    reader = GGUFReader(target, "r+")
    part = reader.fields[field]
    part.parts[part.data[0]][0] = 0
    reader.data.flush()


def prove(world: World, out: Path, url: str, data: str = "walks") -> dict:
    """Run eval prove on a server and a dataset; the results as prove.json has them."""
    command = [
        "--model", world.trained.base, "--adapter", f"walks={world.trained.adapter}", "--data",
        world.home / f"{data}.json", "--max-new-tokens", 4, "--timeout", 30, "--dtype", "fp32", "--url", url,
        "--out", out,
    ]  # fmt: skip
    with contextlib.suppress(ContentError):  # not equal
        cli.main(list(map(str, command)), standalone_mode=False)
    return read_json(out / "prove.json")


def causes(
    world: World, out: Path, file: str, settings: Mapping[str, object], data: str = "walks"
) -> list[tuple[str, str]]:
    """Serve a file with some settings; names and sentences of the causes that eval prove finds."""
    with llama_server(world.home / file, 1, context=256, settings={**GREEDY, **settings}) as url:
        proof = prove(world, out, url, data)
    assert proof["proved"] == (not proof["causes"])
    return [(cause["name"], cause["sentence"]) for cause in proof["causes"]]


def test_a_server_that_serves_the_adapter_as_trained_gets_no_cause(world, tmp_path) -> None:
    settings = {"lora": world.lora(), "chat_template": TEMPLATE}
    with llama_server(world.home / "base.gguf", 1, context=256, settings={**GREEDY, **settings}) as url:
        proof = prove(world, tmp_path, url)
    assert proof["proved"] and proof["causes"] == []
    assert [one["largest"] < 0.02 for one in proof["answers"]] == [True]
    assert (tmp_path / "prove.md").read_text().count("Causes") == 0


def label_logs(distribution: Any, tokenizer: Any) -> dict[str, float]:
    """Log-probabilities of the labels by `distribution(ids after the prompt)`, token by token."""
    logs = {}
    for label in LABELS:
        total = 0.0
        for text in spellings(label):
            ids, log = [], 0.0
            for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
                log += distribution(ids)[token]
                ids.append(token)
            total += math.exp(log)
        logs[label] = math.log(total)
    return logs


def test_the_figures_of_an_equal_server_are_right(world, tmp_path) -> None:
    import httpx
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world.home / "fused")
    net = AutoModelForCausalLM.from_pretrained(world.home / "fused", dtype=torch.float32)
    settings = {**GREEDY, "chat_template": TEMPLATE}
    served = llama_server(world.home / "fused.gguf", 1, context=256, settings=settings)
    with served as url, httpx.Client(timeout=60) as client:
        proof = prove(world, tmp_path, url)
        differences = []
        for row in read_json(world.home / "walks.json"):
            talk = [{"role": "user", "content": row["instruction"]}]
            text = tokenizer.apply_chat_template(
                talk,
                chat_template=TEMPLATE,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]

            def here(ids: list[int], prompt: list[int] = prompt) -> list[float]:
                with torch.inference_mode():
                    logits = net(torch.tensor([[*prompt, *ids]])).logits[0, -1]
                return logits.double().log_softmax(-1).tolist()

            def there(ids: list[int], prompt: list[int] = prompt) -> dict[int, float]:
                body = {"prompt": [*prompt, *ids], "n_predict": 1, "n_probs": len(tokenizer)}
                body["cache_prompt"] = bool(ids)  # as scoring does: another row's prompt changes the rounding
                body["logit_bias"] = [[tokenizer("a")["input_ids"][0], 1e6]]
                answer = client.post(f"{url.removesuffix('/v1')}/completion", json=body).json()
                (step,) = answer["completion_probabilities"]
                return {top["id"]: top["logprob"] for top in step["top_logprobs"]}

            expected, found = label_logs(here, tokenizer), label_logs(there, tokenizer)
            differences += [abs(expected[label] - found[label]) for label in LABELS]
    (server,), (prompts,), (answers,), (chat,) = (
        proof[part] for part in ("servers", "prompts", "answers", "chats")
    )
    assert proof["proved"]
    assert (server["engine"], server["file_type"], server["context"]) == ("llama.cpp", "F16", 256)
    assert prompts["equal"] and (prompts["n"], prompts["differing"]) == (ROWS, 0)
    assert answers["flips"] == [] and answers["differing"] == 0
    assert answers["largest"] == pytest.approx(max(differences), abs=5e-5) and answers["largest"] > 1e-6
    assert chat["differing"] == 0 and sum(chat["finishes"].values()) == ROWS


LORA: dict[str, object] = {"chat_template": TEMPLATE, "lora": "walks"}
MERGED: dict[str, object] = {"chat_template": TEMPLATE}
DOUBLED = "{{ bos_token }}" + TEMPLATE
PIRATE = TEMPLATE.replace(SYSTEM, "You are a pirate.")
CASES = {
    "another prompt: system text": (
        "base.gguf", {**LORA, "chat_template": PIRATE}, ("helpful", "pirate", "--chat-template-file"),
    ),
    "another prompt: BOS": ("base.gguf", {**LORA, "chat_template": DOUBLED}, (BOS, "from token 1 on")),
    "another prompt: thinking": (
        "base.gguf", {**LORA, "default_template_kwargs": {"enable_thinking": "true"}},
        ("<think>", "--chat-template-file"),
    ),
    "another prompt: template": ("base.gguf", {"lora": "walks"}, ("--chat-template-file",)),
    "another prompt: ChatML": ("no_template.gguf", {"lora": "walks"}, ("--chat-template-file",)),
    "adapter not loaded": ("base.gguf", MERGED, ("walks", "--lora")),
    "another model or quantisation: rsLoRA": ("base.gguf", {**LORA, "lora": "no_rslora"}, ("another scale",)),
    "another model or quantisation: alpha": (
        "base.gguf", {**LORA, "lora": "no_pattern"}, ("another scale", "adapter export"),
    ),
    "another model or quantisation": ("q4_0.gguf", MERGED, ("Q4_0", "of 12 labels flip", "--type f16")),
    "missing end token": ("no_end.gguf", LORA, (END, "eos_token_id=int:2")),
    "missing end token: ignored": ("base.gguf", {**LORA, "sampling.ignore_eos": True}, ("--ignore-eos",)),
    "sampling: penalty": (
        "base.gguf", {**LORA, "sampling.penalty_repeat": 3.0}, ("--repeat-penalty 1",),
    ),
    "sampling": (
        "base.gguf", {**LORA, "sampling.temp": 5.0, "sampling.seed": 1}, ("temperature 0", "--temp 0"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_cause_is_the_only_one_named(world, tmp_path, case: str) -> None:
    file, settings, facts = CASES[case]
    if "lora" in settings:
        settings = {**settings, "lora": world.lora(str(settings["lora"]))}
    ((name, sentence),) = causes(world, tmp_path, file, settings)
    assert name == case.partition(":")[0], sentence
    for fact in facts:
        assert fact in sentence
    assert sentence in (tmp_path / "prove.md").read_text()


def test_a_context_that_cuts_prompts(world, tmp_path) -> None:
    settings = {"lora": world.lora(), "chat_template": TEMPLATE}
    ((name, sentence),) = causes(world, tmp_path, "base.gguf", settings, "long")
    assert name == "context cut" and "context of 256 tokens" in sentence and "--ctx-size 512" in sentence


def test_without_labels_the_texts_show_that_the_adapter_is_not_loaded(world, tmp_path) -> None:
    ((name, sentence),) = causes(world, tmp_path, "base.gguf", MERGED, "free")
    assert name == "adapter not loaded" and "walks" in sentence


def test_causes_at_once_are_all_named(world, tmp_path) -> None:
    found = causes(world, tmp_path, "base_q4_0.gguf", {"chat_template": "{{ bos_token }}" + PIRATE})
    assert [name for name, _ in found] == ["another prompt", "adapter not loaded"]
