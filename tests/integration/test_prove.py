"""Train = eval = serve on a tiny model: proved where all is equal, and every leg that is broken is found."""

import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from testing.tiny import make_tiny
from tests.integration.templates import TEMPLATES
from tests.json_files import read_json, write_json
from tests.messages import printed, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import factors, make
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.prove.__main__ import cli

pytestmark = pytest.mark.slow
WAYS = ["chat template of", "chat template and tokenizer of", "chat template and tokenizer in", "TEMPLATE of"]
SERVED = ["fused", "model.gguf"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with Qwen's prompt, a LoRA of it as training leaves it, and all that is made to serve it."""
    home = tmp_path_factory.mktemp("prove")
    base = make_tiny(home / "base")
    (base / "chat_template.jinja").write_text(TEMPLATES["qwen"])
    pairs = factors(rank=4, shapes={"q_proj": (64, 64), "v_proj": (32, 64)})
    lora = make(home / "lora", pairs, r=4, lora_alpha=2, base_model_name_or_path=str(base))
    shutil.copy(base / "chat_template.jinja", lora)
    write_json(lora / "training.json", {"inputs": {"settings": {"template": "qwen"}}})
    call("fuse", lora, "--base", base, "--out", home / "fused")
    call("export", home / "fused", "--to", "gguf", "--out", home / "model.gguf")
    call("export", base, "--to", "gguf", "--out", home / "base.gguf")
    given = ("--gguf", home / "model.gguf", "--out", home / "Modelfile")
    call("export", home / "fused", "--to", "ollama", *given)
    rows = [
        {"instruction": f'Does "{n} men walk a dog." imply that "it is so"?', "output": ["yes", "no"][n % 2]}
        for n in range(8)
    ]
    write_json(home / "rows.json", rows)
    talk = {"messages": [{"role": role, "content": "是吗？"} for role in ("system", "user", "assistant")]}
    write_json(home / "free.json", [talk, {"messages": talk["messages"][1:]}])
    return home


@pytest.fixture
def own_copy(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "home")


def prove(home: Path, *words: object, holds: bool = True) -> dict:
    """Run prove on everything in a folder; words given later win."""
    given = {
        "--model": home / "base", "--adapter": f"lora={home / 'lora'}", "--fused": home / "fused",
        "--gguf": home / "model.gguf", "--modelfile": home / "Modelfile", "--data": home / "rows.json",
        "--max-new-tokens": 4, "--out": home / "proof",
    }  # fmt: skip
    command = [str(word) for pair in given.items() for word in pair] + list(map(str, words))
    if holds:
        cli.main(command, standalone_mode=False)
    else:
        with raises(ContentError, "prove.md"):
            cli.main(command, standalone_mode=False)
    found = read_json(home / "proof" / "prove.json")
    assert found["proved"] == holds and found["verdict"] in (home / "proof" / "prove.md").read_text()
    return found


def broken(found: dict) -> tuple[list[str], list[str]]:
    """The beginnings of the ways, and the names of the models, that are not as they should be."""
    ways = [next(w for w in WAYS if one["way"].startswith(w)) for one in found["prompts"] if not one["equal"]]
    return ways, [Path(one["model"]).name for one in found["answers"] if not one["within"]]


def test_all_is_equal(own_copy):
    from gguf import GGUFReader

    with patch.object(GGUFReader, "__init__", autospec=True, side_effect=GGUFReader.__init__) as parse:
        found = prove(own_copy, "--data", own_copy / "free.json")
    parse.assert_called_once()
    assert found["reference"] == "LLaMA-Factory template qwen"
    parameters, url = found["not_checked"]
    printed(parameters, "PARAMETERs", own_copy / "Modelfile")
    assert url == "no --url"
    assert [one["way"][: len(way)] for one, way in zip(found["prompts"], WAYS * 2, strict=True)] == WAYS * 2
    assert [one["n"] for one in found["prompts"]] == [8] * 4 + [2] * 4
    assert [(Path(one["model"]).name, one["dataset"], one["flips"]) for one in found["answers"]] == [
        (name, dataset, []) for name in SERVED for dataset in ("rows", "free")
    ]
    fused, _, gguf, _ = found["answers"]
    assert fused["largest"] < 1e-5 and 1e-6 < gguf["largest"] < 0.01  # f16 rounds, fp32 does not
    assert found["answers"][1]["largest"] is None


def test_a_recipe_without_a_template_trained_with_what_llamafactory_reads_of_the_bases(own_copy):
    write_json(own_copy / "lora" / "training.json", {"inputs": {"settings": {"stage": "sft"}}})
    found = prove(own_copy, "--data", own_copy / "free.json")
    assert found["reference"].startswith("LLaMA-Factory's reading of the base's chat template")
    assert len(found["not_checked"]) == 2 and len(found["prompts"]) == 2 * len(WAYS)
    template = TEMPLATES["qwen"].replace("created by", "made by")
    (own_copy / "lora" / "chat_template.jinja").write_text(template)
    assert broken(prove(own_copy, holds=False)) == (["chat template of"], [])


def test_of_plain_texts_no_template_was_trained(own_copy, capsys) -> None:
    write_json(own_copy / "lora" / "training.json", {"inputs": {"settings": {"stage": "pt"}}})
    config = own_copy / "lora" / "adapter_config.json"
    write_json(config, {**read_json(config), "lora_dropout": 0.5})
    found = prove(own_copy)
    assert "was fused from other adapters than lora" in capsys.readouterr().err
    assert found["not_checked"][0].startswith("training's template: no recipe")
    assert found["reference"].startswith("chat template of")


def test_another_template_beside_the_adapter_is_found(own_copy):
    template = TEMPLATES["qwen"].replace("created by", "made by")
    (own_copy / "lora" / "chat_template.jinja").write_text(template)
    found = prove(own_copy, holds=False)
    assert broken(found) == (["chat template of"], [])
    first = found["prompts"][0]["first"]
    assert first["row"] == 0 and first["expected"] != first["actual"]
    assert "created"[:2] in first["expected_text"] or "by Al" in first["expected_text"]


def test_another_template_of_training_is_found(own_copy):
    found = prove(own_copy, "--template", "llama3", holds=False)
    assert broken(found) == (WAYS, []) and found["reference"] == "LLaMA-Factory template llama3"


def test_a_wrong_weight_in_the_fused_model_is_found(own_copy):
    from safetensors.numpy import load_file, save_file

    path = own_copy / "fused" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] *= 3
    save_file(tensors, path, {"format": "pt"})
    assert broken(prove(own_copy, holds=False)) == ([], ["fused"])
    assert broken(prove(own_copy, "--tolerance", 99, "--flips", 8)) == ([], [])


def test_another_tokenizer_in_the_fused_model_is_found(own_copy):
    path = own_copy / "fused" / "tokenizer.json"
    fields = read_json(path)
    fields["model"]["merges"] = fields["model"]["merges"][:50]
    write_json(path, fields)
    assert broken(prove(own_copy, holds=False)) == (["chat template and tokenizer of"], [])


def test_the_gguf_of_another_model_is_found(own_copy):
    assert broken(prove(own_copy, "--gguf", own_copy / "base.gguf", holds=False)) == ([], ["base.gguf"])


@pytest.mark.parametrize(
    ("old", "new"),
    [("You are Qwen", "You are Gwen"), ("{{ .Content }}<", "{{ .Content }} <"), ("SYSTEM", "#")],
)
def test_a_wrong_modelfile_is_found(own_copy: Path, old: str, new: str) -> None:
    path = own_copy / "Modelfile"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert broken(prove(own_copy, holds=False)) == (["TEMPLATE of"], [])


def test_prompts_alone_need_no_answers(own_copy):
    (own_copy / "lora" / "training.json").unlink()
    words = [
        "--model",
        own_copy / "lora",
        "--modelfile",
        own_copy / "Modelfile",
        "--data",
        own_copy / "rows.json",
    ]
    cli.main([*map(str, words), "--out", str(own_copy / "proof")], standalone_mode=False)
    found = read_json(own_copy / "proof" / "prove.json")
    assert found["proved"] and found["answers"] == []
    template, fused, gguf, parameters, url = found["not_checked"]
    printed(
        template,
        "--template",
    )
    printed(parameters, "PARAMETERs", own_copy / "Modelfile")
    assert [fused, gguf, url] == ["no --fused", "no --gguf", "no --url"]


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["--gguf", "{home}/rows.json"], "rows.json; GGUF"),
        (["--modelfile", "{home}/nowhere"], "nowhere"),
        (["--fused", "{home}/lora"], "an adapter; its base is"),
        (["--fused", "{home}/base"], "--fused is --model itself"),
        (["--model", "{home}/lora"], "itself; --adapter"),
        (["--template", "qwem"], "LLaMA-Factory; qwem; qwen"),
    ],
)
def test_requests_that_cannot_be_served(whole: Path, tmp_path: Path, words: list[str], facts: str) -> None:
    given = [
        "--model", whole / "base", "--adapter", f"a={whole / 'lora'}", "--data", whole / "rows.json",
        "--modelfile", whole / "Modelfile", "--out", tmp_path / "proof",
    ]  # fmt: skip
    with raises(RequestError, facts):
        cli.main([*map(str, given), *(w.format(home=whole) for w in words)], standalone_mode=False)
    assert not (tmp_path / "proof").exists()


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    with raises(RequestError, "--template", "--fused", "--gguf", "--modelfile"):
        cli.main(["--model", "m", "--data", "d", "--out", str(tmp_path / "x")], standalone_mode=False)
