"""A backend is one file: what scoring asks of it, and a new one from its file to its results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.json_files import write_json
from tuneyard.core.cli.main import NO_COMMAND_LINE
from tuneyard.core.errors import RequestError
from tuneyard.eval.models import backends
from tuneyard.eval.models.backends import BackendKind, ModelToLoad, backend_kind, backend_kinds
from tuneyard.eval.scoring.request import ScoringRequest, request_of

AGREEING = """
from tuneyard.eval.models import Backend
from tuneyard.eval.models.backends import BackendKind


class Agreeing(Backend):
    def batches(self, lengths):
        return [[row] for row in lengths]

    def chat(self, talks, encode, longest):
        return ["yes"] * len(talks)


def load(model):
    from tuneyard.eval.models.load import open_tokenizer

    tokenizer, ends = open_tokenizer(str(model.folder))
    return Agreeing(tokenizer=tokenizer, ends=ends, folder=model.folder)


agreeing = BackendKind("agreeing", "yes to all.", load=load, packages=("click",))
"""
WITH_THE_FILE = """
import sys
from tuneyard.eval.models import backends

backends.__path__.append(sys.argv.pop(1))
from tuneyard.core.cli.run import run_command
from tuneyard.eval.nli import cli

run_command(cli)
"""
"""Runs eval nli with one more folder of backends."""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITH_THE_FILE, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_new_file_is_a_choice_and_scores(working_folder: Path, tiny_model: Path) -> None:
    folder = working_folder / "more"
    folder.mkdir()
    (folder / "agreeing.py").write_text(AGREEING, encoding="utf-8")
    shown = " ".join(run(folder, "--help").stdout.split())
    assert "--backend [hf|agreeing|vllm|openai]" in shown
    assert "agreeing: yes to all. vllm: vLLM in this process. openai: an OpenAI-compatible server." in shown
    rows = [{"instruction": f"{word}?", "output": word} for word in ("yes", "no", "yes", "yes")]
    write_json(Path("rows.json"), rows)
    words = ["--model", str(tiny_model), "--data", "rows.json", "--mode", "generate", "--backend", "agreeing"]
    done = run(folder, *words, "--out", "out")
    assert done.returncode == 0, done.stderr
    results = json.loads(Path("out/base/rows/results.json").read_text(encoding="utf-8"))
    assert (results["n"], results["accuracy"]) == (4, 0.75)
    inputs = json.loads(Path("out/run.json").read_text(encoding="utf-8"))["inputs"]
    assert inputs["--backend"] == "agreeing" and "click" in inputs
    assert "up to date" in run(folder, *words, "--out", "out").stdout
    refused = {
        "--workers 2": "--workers: --backend agreeing answers many rows",
        "--quantize 4": "--backend agreeing takes no --quantize",
        "--apply merged": "--backend agreeing takes no --quantize and no --apply merged",
        "--max-refused 1": "--max-refused 1: only servers refuse rows",
        "--tensor-parallel 2": "only vLLM divides a model",
        "--preset document": "leave out --backend agreeing",
    }
    for option, message in refused.items():
        done = run(folder, *words, *option.split(), "--out", "other")
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
        assert not Path("other").exists()


def test_the_default_comes_first_and_servers_last() -> None:
    assert list(backend_kinds()) == ["hf", "vllm", "openai"]
    assert [kind.name for kind in backend_kinds().values() if kind.is_server] == ["openai"]
    assert ScoringRequest("model", Path("out")).backend == backends.DEFAULT


@pytest.mark.parametrize("name", ["", "HF", "llama.cpp", "hf "])
def test_an_unknown_backend_of_a_request_is_refused(name: str) -> None:
    options = {"model": "model", "out": Path("out"), "backend": name, "max_refused": 1}
    with pytest.raises(RequestError, match="expected one of hf, vllm, openai") as refusal:
        request_of(options, {}, NO_COMMAND_LINE)
    assert repr(name) in str(refusal.value)


def test_a_server_loads_nothing() -> None:
    """It has `connect` alone; whoever loads all the same gets an error, no traceback."""
    with pytest.raises(RequestError, match="needs the model in this process"):
        backend_kind("openai").load(ModelToLoad(Path("model"), []))


def test_a_backend_that_declares_nothing_can_do_nothing() -> None:
    """A field that is forgotten refuses an option; it never lets one through."""
    plain = BackendKind("plain")
    fields = (
        plain.in_workers,
        plain.weights_adapters,
        plain.changes_weights,
        plain.divides,
        plain.reads_generation_config,
        plain.gives_text_losses,
        plain.is_server,
    )
    assert not any(fields)
