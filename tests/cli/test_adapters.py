"""The command as a process: exit codes, no torch, and what a kill leaves behind."""

import signal

import pytest

from tests.held import Held
from tests.processes import imported
from tests.runs_cut import tree
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.adapters.__main__ import cli
from tuneyard.adapters.model.store import open_adapter


def test_merging_imports_no_torch_and_ends_with_0(run, tmp_path):
    make(tmp_path / "a", factors(1))
    make(tmp_path / "b", factors(2))
    words = ["merge", f"{tmp_path}/a=0.5", f"{tmp_path}/b=0.5", "--out", tmp_path / "out"]
    done = run("-X", "importtime", "-m", "adapters", *words)
    packages = imported(done.stderr)
    assert "numpy" in packages
    assert not packages & {"torch", "transformers", "peft", "scipy", "matplotlib"}
    assert open_adapter(tmp_path / "out").modules


def test_the_hub_is_reached_with_what_the_core_lock_has(run, tmp_path):
    make(tmp_path / "a", factors(1))
    words = ["export", tmp_path / "a", "--to", "hub", "--repo", "org/a", "--license", "mit"]
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "x", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run("-X", "importtime", "-m", "adapters", *words, env=nowhere, code=2)
    assert "http://127.0.0.1:9: cannot be reached" in done.stderr
    packages = imported(done.stderr)
    assert "huggingface_hub" in packages
    assert not packages & {"torch", "transformers", "peft", "gguf", "jinja2"}


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_fuse_leaves_nothing_that_loads_and_goes_on(here, tmp_path, kill):
    base = make_base(tmp_path / "base", base_tensors(), shards=4, tie_word_embeddings=False)
    make(tmp_path / "a", factors(1))
    words = ["fuse", tmp_path / "a", "--base", base, "--out", tmp_path / "out"]
    Held("tuneyard.adapters.fuse.fuse.write_shard", 2, "adapters", *words).ended_by(kill)
    assert not (tmp_path / "out").exists()
    left = tmp_path / ".out.tuneyard-fusing"
    assert not (left / "config.json").exists()
    first = left / "model-00001-of-00004.safetensors"
    written = first.stat().st_mtime_ns
    here(cli, *words)
    assert (tmp_path / "out" / first.name).stat().st_mtime_ns == written
    here(cli, *words[:-1], tmp_path / "unbroken")
    assert tree(tmp_path / "unbroken").items() <= tree(tmp_path / "out").items()
