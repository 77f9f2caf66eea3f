"""`--ray` of the adapter commands: what a cluster is asked for, with one that is this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from tests.messages import printed
from tests.unit.adapters import test_export_gguf
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tests.unit.adapters.test_commands import call
from tuneyard.adapters import on_cluster
from tuneyard.core.errors import RequestError
from tuneyard.core.execution import InThisProcess

MODEL = ("export", "./model", "--to", "gguf")


class Cluster(InThisProcess):
    """Runs items here, and notes what it is asked: addresses, paths, and the memory of items."""

    asked: ClassVar[list[object]] = []
    blind = ""

    def __init__(self, address: str) -> None:
        Cluster.asked = [address]

    def check_paths(self, inputs: Sequence[Path] = (), outputs: Sequence[Path] = ()) -> None:
        Cluster.asked += [sorted(path.name for path in inputs), list(outputs)]
        if Cluster.blind:
            raise RequestError(f"{Cluster.blind} is on one node only")

    def map(self, items, **options):
        Cluster.asked.append(options["resources"].memory)
        return super().map(items, **options)


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(on_cluster, "RayCluster", Cluster)
    monkeypatch.setattr(Cluster, "blind", "")
    test_export_gguf.write()


def test_a_gguf_is_one_item_with_its_files_and_its_memory() -> None:
    call(*MODEL, "--out", "here.gguf")
    call(*MODEL, "--out", "far/there.gguf", "--ray", "head:1")
    assert Path("far/there.gguf").read_bytes() == Path("here.gguf").read_bytes()
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    assert Cluster.asked == ["head:1", files, [Path("far")], 1_000_000_000 + 16 * (1 << 22)]


def test_the_tensor_that_is_put_in_order_as_a_whole_counts(monkeypatch) -> None:
    monkeypatch.setattr("tuneyard.adapters.export.gguf_files.AT_ONCE", 10)
    call(*MODEL, "--out", "model.gguf", "--ray", "head:1")
    assert Cluster.asked[-1] == 1_000_000_000 + 16 * 64  # q_proj of 8 × 8; the tables of 8 × 8 come in blocks


def test_an_adapter_as_gguf_reads_the_config_of_its_base() -> None:
    path = "model.layers.0.self_attn.o_proj"
    a, b = factors(1)["model.layers.0.self_attn.q_proj"]
    make("lora", {path: (a[:, :8], b[:8])}, target_modules=["o_proj"])
    call("export", "./lora", "--to", "gguf", "--base", "model", "--out", "here.gguf")
    given = ("--base", "model", "--out", "there.gguf", "--ray", "head:1")
    call("export", "./lora", "--to", "gguf", *given)
    assert Path("there.gguf").read_bytes() == Path("here.gguf").read_bytes()
    assert Cluster.asked[1] == ["adapter_config.json", "adapter_model.safetensors", "config.json"]


def test_what_a_node_does_not_see_stops_it_before_anything_is_written(monkeypatch) -> None:
    monkeypatch.setattr(Cluster, "blind", "model/config.json")
    _, message = call(*MODEL, "--out", "out/model.gguf", "--ray", "head:1", code=2)
    assert "model/config.json is on one node" in message
    assert not Path("out").exists()


def test_only_a_gguf_is_written_on_a_cluster() -> None:
    _, message = call("export", "./model", "--to", "ollama", "--out", "Modelfile", "--ray", "a:1", code=2)
    printed(message, "--ray", "gguf", "ollama")


def test_notes_of_the_plan_come_once() -> None:
    make("saves/rte", factors(1))
    make("rte", factors(1))
    make_base("base", base_tensors())
    _, notes = call("fuse", "rte=0.5", "--base", "base", "--out", "out", "--ray", "head:1")
    assert notes.count("note: rte means saves/rte") == 1
