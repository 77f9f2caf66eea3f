"""The card and the list of files, as --dry-run shows them; nothing here reaches for a network."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.json_files import write_json
from tests.messages import printed_line
from tests.tiny import SHAPES, write_adapter
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.adapters.store import open_adapter

HUB = ("--to", "hub", "--repo", "org/rte-lora", "--dry-run")


@pytest.fixture(autouse=True)
def licensed_run(working_folder):
    """A run with a checkpoint, the record of its training, its data's manifest and a base with a licence."""
    make_base("models/base", base_tensors(), model_type="qwen2")
    Path("models/base/origin.json").write_text('{"licence": "Apache-2.0"}')
    make("saves/rte/checkpoint-50", factors(), base_model_name_or_path="models/base")
    Path("saves/rte/checkpoint-50/optimizer.pt").write_bytes(b"pickle")
    data = Path("dataset_info/rte")
    data.mkdir(parents=True)
    manifest = {"about": "GLUE RTE as yes/no", "files": {"rte.json": {"rows": 2490, "sha256": "a" * 64}}}
    manifest["made_from"] = {"sources": []}
    write_json(data / "manifest.json", manifest)
    digest = hashlib.sha256((data / "manifest.json").read_bytes()).hexdigest()
    used = {
        "dataset": "rte_train", "file": str(data / "rte.json"), "sha256": "a" * 64, "manifest_sha256": digest,
    }  # fmt: skip
    inputs = {"settings": {"learning_rate": 0.001, "lora_rank": 8}, "data": [used]}
    write_json(Path("saves/rte/training.json"), {"inputs": inputs})


HASHES = dict.fromkeys(("model", "data", "chat_template"), "0" * 64)


def result(folder, model, adapters, **more):
    """Write a results.json of python -m eval.nli."""
    Path(folder).mkdir(parents=True)
    fields = {"model": model, "set": "rte_eval", "n": 277, "accuracy": 0.7184, "ci95": [0.66, 0.768]}
    hashes = HASHES | {"adapters": adapters}
    write_json(Path(folder, "results.json"), {**fields, "majority": 0.527, "hashes": hashes, **more})


def parts(said):
    """Return (front matter, card) out of what --dry-run prints."""
    _, head, card = said.split("---\n", 2)
    return yaml.safe_load(head), card


def recipes_of(card):
    """The YAML blocks of a card by their headings."""
    blocks = re.findall(r"^## (Recipe[^\n]*)\n\n```yaml\n(.*?)```", card, re.DOTALL | re.MULTILINE)
    return {heading: yaml.safe_load(block) for heading, block in blocks}


def test_the_card_says_what_the_files_beside_it_say():
    own = open_adapter("saves/rte/checkpoint-50").digest
    result("results/base/rte", "base", {})
    result("results/rte/rte", "rte", {"rte": own})
    result("results/merged/rte", "merged", {"rte": own, "mnli": "0" * 64})
    result("results/half/rte", "half", {"rte": own}, weights={"rte": 0.5})
    said, notes = call("export", "saves/rte/checkpoint-50", *HUB, "--results", "results")
    front, card = parts(said)
    assert front == {
        "license": "apache-2.0",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "tuneyard"],
    }
    printed_line(card, "licence of the base", "apache-2.0", "origin.json")
    printed_line(card, "rank 8", "alpha 16", "q_proj", "v_proj")
    printed_line(card, "rte_train", "GLUE RTE as yes/no", "2,490 rows", "a" * 64)
    assert recipes_of(card) == {"Recipe": {"learning_rate": 0.001, "lora_rank": 8}}
    printed_line(card, "rte (this adapter)", "rte_eval", "277", "71.8%", "66.0%–76.8%", "52.7%")
    for other in ("base", "merged", "half"):
        printed_line(card, f"| {other} ", "rte_eval", "277")
    printed_line(notes, "models/base", "base_model_name_or_path")
    assert "not uploaded: optimizer.pt" in notes
    assert "nothing sent (--dry-run)" in said


def test_what_is_not_known_is_said_so():
    make("saves/plain", factors(), base_model_name_or_path="org/elsewhere")
    result("results/other", "rte", {"rte": "0" * 64})
    said, notes = call("export", "plain", *HUB, "--results", "results/other/results.json")
    front, card = parts(said)
    assert (front["license"], front["base_model"]) == ("unknown", "org/elsewhere")
    assert "unknown: look it up at the base" in card
    assert "--license ID" in notes
    for missing in ("data not recorded", "recipe not recorded", "none of the results is of this adapter"):
        assert missing in notes
    assert "(this adapter)" not in card
    assert parts(call("export", "plain", *HUB, "--license", "mit")[0])[0]["license"] == "mit"


def test_the_card_of_a_plain_training_names_its_datasets():
    """llamafactory-cli leaves no training.json; transformers' card beside the weights names the data."""
    folder = make("saves/plain", factors(), base_model_name_or_path="org/elsewhere")
    text = "It is a fine-tuned version of [base](org/base) on the faq_train and the rte_train datasets."
    Path("saves/plain/README.md").write_text(text)
    said, notes = call("export", "plain", *HUB)
    _, card = parts(said)
    assert "trained on faq_train, rte_train" in card
    printed_line(card, "| faq_train", "README.md")
    assert "data not recorded" not in notes and "recipe not recorded" in notes
    shutil.copytree(folder, "saves/plain/checkpoint-7", ignore=shutil.ignore_patterns("README.md"))
    assert "trained on faq_train" in parts(call("export", "saves/plain/checkpoint-7", *HUB)[0])[1]


def test_the_licence_that_llamafactory_writes_is_not_the_bases():
    make("saves/plain", factors(), base_model_name_or_path="org/elsewhere")
    Path("saves/plain/README.md").write_text("---\nlibrary_name: peft\nlicense: other\n---\n")
    said, notes = call("export", "plain", *HUB)
    assert parts(said)[0]["license"] == "unknown" and "--license ID" in notes


def test_a_licence_that_the_hub_has_no_id_for_keeps_its_name_and_link():
    link = "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE"
    stated = {"license": "other", "license_name": "qwen-research", "license_link": link}
    Path("models/base/README.md").write_text(f"---\n{yaml.safe_dump(stated)}---\n")
    front, card = parts(call("export", "saves/rte/checkpoint-50", *HUB)[0])
    assert {key: front[key] for key in stated} == stated
    printed_line(card, "licence of the base", "qwen-research", "README.md")


def test_a_manifest_of_a_later_compile_is_not_the_trainings():
    Path("dataset_info/rte/manifest.json").write_text("{}")
    card, _ = call("export", "saves/rte/checkpoint-50", *HUB)
    assert "2,490" not in card
    printed_line(card, "| rte_train", "manifest")


def test_a_fused_model_keeps_the_record_of_fuse_however_its_card_is_formatted():
    make("saves/plain", factors(), base_model_name_or_path="org/base")
    call("fuse", "plain=0.5", "--base", "models/base", "--out", "fused", "--max-shard-size", "5KB")
    Path("fused/pytorch_model.bin").write_bytes(b"pickle")
    before, notes = call("export", "fused", *HUB)
    Path("fused/README.md").write_text("______\n\nanother text\n")
    said = call("export", "fused", *HUB)[0]
    assert said.partition("---\n")[2] == before.partition("---\n")[2]
    front, text = parts(said)
    assert front["base_model"] == "org/base"
    assert (front["license"], front["library_name"]) == ("apache-2.0", "transformers")
    printed_line(text, "## base with plain (0.5)")
    printed_line(text, "licence of the base", "apache-2.0", "origin.json", "https://huggingface.co/org/base")
    printed_line(text, "The base plus ΔW")
    printed_line(notes, "merge.json", "origin.json", "pytorch_model.bin")
    assert "model.safetensors.index.json" in said and "model-00001-of-" in said


def test_the_card_describes_and_says_how_to_load_and_where_the_licence_is():
    make("saves/plain", factors(), base_model_name_or_path="org/elsewhere")
    settings = {"template": "qwen", "lora_rank": 8}
    inputs = {"settings": settings, "data": [{"dataset": "rte_train", "file": "gone", "sha256": "a" * 64}]}
    write_json(Path("saves/plain/training.json"), {"inputs": inputs})
    card = parts(call("export", "plain", *HUB, "--license", "mit")[0])[1]
    printed_line(card, "org/elsewhere", "rte_train")
    printed_line(card, "licence of the base", "mit", "https://huggingface.co/org/elsewhere")
    printed_line(card, "AutoModelForCausalLM.from_pretrained", '"org/elsewhere"')
    printed_line(card, "PeftModel.from_pretrained", '"org/rte-lora"')
    chat = "llamafactory-cli chat --model_name_or_path org/elsewhere --adapter_name_or_path org/rte-lora"
    assert f"$ {chat} --template qwen\n" in card
    lora = "--enable-lora --max-lora-rank 8 --lora-modules mine=org/rte-lora"
    assert f"$ vllm serve org/elsewhere {lora}\n" in card


def test_a_fused_model_has_data_and_recipe_of_its_adapters():
    make("saves/half", factors(1), base_model_name_or_path="models/base")
    write_json(Path("saves/half/training.json"), {"inputs": {"settings": {"lora_rank": 4}}})
    make("saves/plain", factors(2), base_model_name_or_path="models/base")
    call("merge", "half=1", "plain=1", "--out", "saves/both")
    call("fuse", "saves/rte/checkpoint-50", "both=0.5", "--base", "models/base", "--out", "fused")
    said, notes = call("export", "fused", *HUB)
    card = parts(said)[1]
    printed_line(notes, "data", "recipe", "plain", "not recorded")
    printed_line(card, "models/base", "rte_train")
    printed_line(card, "| rte_train", "GLUE RTE as yes/no", "2,490 rows")
    assert recipes_of(card) == {
        "Recipe of rte-checkpoint-50": {"learning_rate": 0.001, "lora_rank": 8},
        "Recipe of half": {"lora_rank": 4},
    }
    assert "PeftModel" not in card
    assert printed_line(card, "llamafactory-cli").endswith(" --model_name_or_path org/rte-lora")
    assert printed_line(card, "vllm").endswith("vllm serve org/rte-lora")
    make("saves/half", factors(3), base_model_name_or_path="models/base")
    printed_line(call("export", "fused", *HUB)[1], "saves/half", "changed")


@pytest.mark.parametrize("repo", ["name", "org/na me", "a/b/c", "org/..", ""])
def test_repositories_must_be_owner_and_name(repo):
    _, said = call("export", "saves/rte/checkpoint-50", "--to", "hub", "--repo", repo, code=2)
    assert "OWNER/NAME" in said


def test_broken_inputs_are_named():
    assert "but it contains checkpoint-50" in call("export", "rte", *HUB, code=2)[1]
    Path("results").mkdir()
    words = ("export", "saves/rte/checkpoint-50", *HUB, "--results", "results")
    assert "result: results not found" in call(*words[:-1], "result", code=2)[1]
    assert "no results.json" in call(*words, code=2)[1]
    Path("results/results.json").write_text('{"model": "rte"}')
    assert "'set', 'n', 'accuracy'" in call(*words, code=1)[1]
    Path("models/base/README.md").write_text("---\nlicense: [\n---\n")
    assert "models/base/README.md:3: not YAML" in call("export", "saves/rte/checkpoint-50", *HUB, code=1)[1]
    Path("models/base/README.md").write_text("---\nlicense: mit\ndate: 2026-13-45\n---\n")
    assert "license: mit" in call("export", "saves/rte/checkpoint-50", *HUB)[0]


@pytest.mark.parametrize("fused", [False, True])
def test_the_cards_python_runs(tiny_model, capsys, fused):
    named = {"base_model_name_or_path": str(tiny_model), "target_modules": list(SHAPES)}
    lora = write_adapter(Path("org/rte-lora"), **named)
    if fused:
        call("fuse", lora, "--base", tiny_model, "--out", "whole")
    said, _ = call("export", "whole" if fused else lora, *HUB)
    code = parts(said)[1].partition("```python\n")[2].partition("```")[0]
    assert "org/rte-lora" in code and ("peft" in code) != fused
    if fused:
        shutil.rmtree(lora)
        Path("whole").rename(lora)
    exec(code.replace(f'"{tiny_model.name}"', repr(str(tiny_model))), {})
    assert capsys.readouterr().out.endswith("\n")
