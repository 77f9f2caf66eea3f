"""Each cause of a difference, made on a real llama.cpp server, is the first that eval prove --url names."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testing.llama_server import llama_server
from tests.integration.served_model import (
    BOS,
    END,
    ROWS,
    SYSTEM,
    TEMPLATE,
    Trained,
    make_trained,
    question,
)
from tests.json_files import read_json, write_json
from tests.unit.adapters.commands import call
from tuneyard.core.errors import ContentError
from tuneyard.core.text.quoting import markdown_text
from tuneyard.eval.prove.__main__ import cli

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
    (server,), (prompts,), (answers,), (chats,) = (
        proof[part] for part in ("servers", "prompts", "answers", "chats")
    )
    assert (server["engine"], server["file_type"], server["context"]) == ("llama.cpp", "F16", 256)
    assert (prompts["n"], prompts["differing"]) == (ROWS, 0)
    assert 1e-6 < answers["largest"] < 0.02 and answers["flips"] == [] and answers["differing"] == 0
    assert chats["differing"] == 0 and sum(chats["finishes"].values()) == ROWS
    assert (tmp_path / "prove.md").read_text().count("Causes") == 0


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
    assert markdown_text(sentence) in (tmp_path / "prove.md").read_text()


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
