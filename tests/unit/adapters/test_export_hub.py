"""The card and the list of files, as --dry-run shows them; nothing here reaches for a network."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from adapters.store import open_adapter
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tests.unit.adapters.test_commands import call

HUB = ("--to", "hub", "--repo", "org/rte-lora", "--dry-run")


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """A run with a checkpoint, the record of its training, its data's manifest and a base with a licence."""
    monkeypatch.chdir(tmp_path)
    make_base("models/base", base_tensors(), model_type="qwen2")
    Path("models/base/origin.json").write_text('{"licence": "Apache-2.0"}')
    make("saves/rte/checkpoint-50", factors(), base_model_name_or_path="models/base")
    Path("saves/rte/checkpoint-50/optimizer.pt").write_bytes(b"pickle")
    data = Path("dataset_info/rte")
    data.mkdir(parents=True)
    manifest = {"about": "GLUE RTE as yes/no", "files": {"rte.json": {"rows": 2490, "sha256": "a" * 64}}}
    (data / "manifest.json").write_text(json.dumps(manifest))
    digest = hashlib.sha256((data / "manifest.json").read_bytes()).hexdigest()
    used = {
        "dataset": "rte_train", "file": str(data / "rte.json"), "sha256": "a" * 64, "manifest_sha256": digest,
    }  # fmt: skip
    inputs = {"settings": {"learning_rate": 0.001, "lora_rank": 8}, "data": [used]}
    Path("saves/rte/run.json").write_text(json.dumps({"inputs": inputs}))


def result(folder, model, adapters):
    """Write a results.json of python -m eval.nli."""
    Path(folder).mkdir(parents=True)
    fields = {"model": model, "set": "rte_eval", "n": 277, "accuracy": 0.7184, "ci95": [0.66, 0.768]}
    Path(folder, "results.json").write_text(
        json.dumps({**fields, "majority": 0.527, "hashes": {"adapters": adapters}})
    )


def parts(said):
    """Return (front matter, card) out of what --dry-run prints."""
    _, head, card = said.split("---\n", 2)
    return yaml.safe_load(head), card


def test_the_card_says_what_the_files_beside_it_say():
    own = open_adapter("saves/rte/checkpoint-50").digest
    result("results/base/rte", "base", {})
    result("results/rte/rte", "rte", {"rte": own})
    said, notes = call("export", "saves/rte/checkpoint-50", *HUB, "--results", "results")
    front, card = parts(said)
    assert front == {
        "license": "apache-2.0",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "tuneyard"],
    }
    assert "| licence of the base | apache-2.0 (from the base's origin.json) |" in card
    assert "LoRA of rank 8, alpha 16, on q_proj, v_proj" in card
    assert f"| rte_train | GLUE RTE as yes/no, 2,490 rows | `{'a' * 64}` |" in card
    assert "```yaml\nlearning_rate: 0.001\nlora_rank: 8\n```" in card
    assert "| rte (this adapter) | rte_eval | 277 | 71.8% | 66.0%–76.8% | 52.7% |" in card
    assert "| base | rte_eval | 277 |" in card
    assert "the base is named models/base, no hub id" in notes
    assert "left out: optimizer.pt" in notes
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


def test_a_manifest_of_a_later_compile_is_not_the_trainings():
    Path("dataset_info/rte/manifest.json").write_text("{}")
    said, _ = call("export", "saves/rte/checkpoint-50", *HUB)
    assert "| rte_train | its manifest is not there any more |" in said


def test_a_fused_model_keeps_what_fuse_said_of_it():
    make_base("fused", base_tensors(), shards=2, model_type="qwen2")
    head = "---\nbase_model: org/base\nlicense: mit\n---\n"
    Path("fused/README.md").write_text(f"{head}\n# base with rte\n\nIt is written by Tuneyard.\n")
    Path("fused/pytorch_model.bin").write_bytes(b"pickle")
    said, notes = call("export", "fused", *HUB)
    front, text = parts(said)
    assert front["base_model"] == "org/base"
    assert (front["license"], front["library_name"]) == ("mit", "transformers")
    assert "## base with rte\n\nIt is written by Tuneyard" in text
    assert "left out: pytorch_model.bin" in notes
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"):
        assert name in said


@pytest.mark.parametrize("repo", ["name", "org/na me", "a/b/c", "org/..", ""])
def test_repositories_must_be_owner_and_name(repo):
    _, said = call("export", "rte/checkpoint-50", "--to", "hub", "--repo", repo, code=2)
    assert "OWNER/NAME" in said


def test_broken_inputs_are_named():
    assert "checkpoint-50 in it" in call("export", "rte", *HUB, code=2)[1]
    Path("results").mkdir()
    words = ("export", "rte/checkpoint-50", *HUB, "--results", "results")
    assert "no results.json" in call(*words, code=2)[1]
    Path("results/results.json").write_text('{"model": "rte"}')
    assert "no set, n, accuracy" in call(*words, code=1)[1]
    Path("models/base/README.md").write_text("---\nlicense: [\n---\n")
    assert "front matter is not YAML" in call("export", "rte/checkpoint-50", *HUB, code=1)[1]
