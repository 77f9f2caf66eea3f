"""Finding and opening an adapter by its name or folder, and what is refused there."""

import json
import shutil
from pathlib import Path

import pytest

from tests.messages import printed, raises
from tests.unit.adapters.make import CONFIG, factors, make
from tuneyard.adapters.model.store import open_adapter, open_any
from tuneyard.core.errors import ContentError, RequestError


def test_a_reference_with_a_slash_is_a_path_and_nothing_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    places = ("saves/rte", "rte", "../rte", "saves/deep/rte", "only")
    digests = {place: open_adapter(make(place, factors(seed))).digest for seed, place in enumerate(places)}
    assert not capsys.readouterr().err
    assert open_adapter("./rte").digest == open_adapter("rte/").digest == digests["rte"]
    assert open_adapter(Path("rte")).digest == digests["rte"]
    assert open_adapter("../rte").digest == digests["../rte"]
    assert open_adapter("only").digest == digests["only"]
    with raises(RequestError, "deep/rte"):
        open_adapter("deep/rte")
    assert not capsys.readouterr().err
    assert open_adapter("rte").digest == digests["saves/rte"]
    printed(capsys.readouterr().err, "note", "saves/rte", "./rte")


@pytest.mark.parametrize("name", ["", "checkpoint-4", "pissa_init", "pissa_backup"])
def test_an_adapter_that_began_as_pissa_names_its_conversion(tmp_path, name):
    start = True if name.startswith("pissa") else "pissa_niter_16"
    folder = make(tmp_path / "run" / name, init_lora_weights=start)
    with raises(ContentError, "pissa_convert: true"):
        open_adapter(folder)
    assert open_adapter(make(tmp_path / "run" / "pissa_converted")).modules
    with raises(ContentError, f"use {tmp_path}/run/pissa_converted"):
        open_any(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickles_are_refused_with_a_way_out(tmp_path, name):
    folder = make(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / name)
    with raises(ContentError, "weights_only=True"):
        open_adapter(folder)


def test_folders_that_hold_no_adapter(tmp_path):
    with raises(RequestError):
        open_adapter(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with raises(RequestError, "adapter", "adapter_config.json"):
        open_adapter(tmp_path / "empty")
    make(tmp_path / "run" / "checkpoint-50")
    with raises(RequestError, "checkpoint-50"):
        open_adapter(tmp_path / "run")
    folder = make(tmp_path / "half")
    (folder / "adapter_model.safetensors").unlink()
    with raises(ContentError, "adapter_model.safetensors", "train again"):
        open_adapter(folder)
    folder = make(tmp_path / "torn")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG)[:-5])
    with raises(ContentError, "JSON"):
        open_adapter(folder)


def test_opening_reads_no_pickle_and_follows_no_name_out_of_the_folder(tmp_path):
    folder = make(tmp_path / "a")
    shutil.copy(folder / "adapter_model.safetensors", folder / "adapter_model.bin")
    assert open_adapter(folder).weights.path.suffix == ".safetensors"
