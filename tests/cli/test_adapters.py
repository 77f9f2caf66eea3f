"""The command as a process: exit codes, no torch, and what a kill leaves behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import read_json
from tests.processes import imported, wait_until
from tests.runs_cut import tree
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tests.unit.adapters.test_export_gguf import tensors, write
from tuneyard.adapters.store import open_adapter
from tuneyard.core.errors import TuneyardError

SHAPES = {"q_proj": (1024, 1024), "v_proj": (1024, 1024)}


def test_merging_imports_no_torch_and_ends_with_0(run, tmp_path):
    make(tmp_path / "a", factors(1))
    make(tmp_path / "b", factors(2))
    words = ["merge", f"{tmp_path}/a=0.5", f"{tmp_path}/b=0.5", "--out", tmp_path / "out"]
    done = run("-X", "importtime", "-m", "adapters", *words)
    packages = imported(done.stderr)
    assert "numpy" in packages
    assert not packages & {"torch", "transformers", "peft", "scipy", "yaml", "matplotlib"}
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


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "adapters", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_fuse_leaves_nothing_that_loads_and_goes_on(run, tmp_path, kill):
    base = make_base(
        tmp_path / "base", base_tensors(layers=12, shapes=SHAPES), shards=4, tie_word_embeddings=False
    )
    make(tmp_path / "a", factors(1, layers=12, shapes=SHAPES))
    words = ["fuse", tmp_path / "a", "--base", base, "--out", tmp_path / "out"]
    left = tmp_path / ".out.tuneyard-fusing"
    process = start(*words)
    record = left / "fuse.json"
    wait_until(lambda: record.exists() and read_json(record)["shards"], process)
    process.send_signal(kill)
    assert process.wait() in ({signal.SIGKILL: [-9], signal.SIGTERM: [143], signal.SIGINT: [130]}[kill])
    assert not (tmp_path / "out").exists()
    assert not (left / "config.json").exists()
    first = left / "model-00001-of-00004.safetensors"
    written = first.stat().st_mtime_ns
    run("-m", "adapters", *words)
    assert (tmp_path / "out" / first.name).stat().st_mtime_ns == written
    run("-m", "adapters", *words[:-1], tmp_path / "unbroken")
    assert tree(tmp_path / "unbroken").items() <= tree(tmp_path / "out").items()


LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 8}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fuse", "export"])
def test_what_a_killed_run_leaves_is_removed_by_the_next_of_another_command(run, tmp_path, command):
    make(tmp_path / "a", factors(1, layers=12, shapes=SHAPES))
    if command == "fuse":
        base = make_base(tmp_path / "base", base_tensors(layers=12, shapes=SHAPES), "F32")
        words = ["fuse", tmp_path / "a", "--base", base, "--out", tmp_path / "out"]
    else:
        write(tmp_path / "base", tensors(1024, 1024, 4096), **LARGE)
        words = ["export", tmp_path / "base", "--to", "gguf", "--out", tmp_path / "out"]
    process = start(*words)
    wait_until(lambda: any(path.is_file() for path in tmp_path.glob(".out.*/*")), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (left,) = tmp_path.glob(".out.*")
    assert not (tmp_path / "out").exists()
    done = run("-m", "adapters", "merge", f"{tmp_path}/a=1", "--out", tmp_path / "merged")
    assert f"note: removed {left}" in done.stderr
    assert set(names(tmp_path)) == {"a", "base", "merged"}


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.2])
def test_killed_merge_leaves_the_old_folder_or_the_new(run, tmp_path, delay):
    make(tmp_path / "a", factors(1, layers=40, shapes=SHAPES))
    make(tmp_path / "b", factors(2, layers=40, shapes=SHAPES))
    out = tmp_path / "saves/out"
    run("-m", "adapters", "merge", f"{tmp_path}/a=1", "--out", out)
    old = open_adapter(out).digest
    process = start("merge", f"{tmp_path}/a=0.5", f"{tmp_path}/b=0.5", "--out", out, "--force")
    wait_until(lambda: any(p.name.startswith(".out.") for p in out.parent.iterdir()), process)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    published = open_adapter(out).digest
    assert published == old or open_adapter(out).config.rank == 16
    for path in out.parent.iterdir():
        if path == out:
            continue
        try:
            left = open_adapter(path)
        except (TuneyardError, FileNotFoundError):
            continue
        # killed just before the exchange or just after it: the old folder and the new one, both whole
        assert published != left.digest and old in (published, left.digest)
    run("-m", "adapters", "merge", f"{tmp_path}/b=1", "--out", out, "--force")
    assert names(out.parent) == ["out"]
