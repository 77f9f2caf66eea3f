"""Whether a result is current: unchanged inputs need no work, and each changed input is named."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from testing.tiny import CHATML
from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed, printed_line
from tests.runs_cut import tree
from tests.unit.adapters.commands import call
from tests.unit.adapters.llama import llama_tensors, make_llama
from tests.unit.adapters.make import PREFIX, base_tensors, factors, make, make_base, write_file
from tuneyard.adapters.export import gguf_files, ollama
from tuneyard.adapters.export.ollama import OllamaRequest
from tuneyard.adapters.fuse import fuse as fusing
from tuneyard.adapters.merge import extract as extracting
from tuneyard.adapters.merge import merge as merging
from tuneyard.adapters.merge.request import MergeRequest
from tuneyard.adapters.serve import plan as serving
from tuneyard.adapters.serve.plan import ServeRequest
from tuneyard.adapters.show.show import InspectRequest, show
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED

pytestmark = pytest.mark.usefixtures("two_adapters")

MERGE = ("merge", "rte=0.5", "mnli=0.5", "--out", "out")
DARE = (*MERGE, "--method", "dare_ties", "--density", "0.5", "--seed", "7")
FUSE = ("fuse", "rte=0.5", "--base", "base", "--out", "out")
EXTRACT = ("extract", "tuned", "--base", "base", "--rank", "2", "--out", "out")
RENAME = ("rename", "bare", "--out", "out")


def tuned() -> None:
    """A full fine-tune of the base: other values in its matrices."""
    tensors = {
        name: values * 1.5 if name.endswith("_proj.weight") else values
        for name, values in base_tensors().items()
    }
    make_base("tuned", tensors)


def bare() -> None:
    """An adapter whose tensors lack PEFT's prefix."""
    make("saves/bare", factors(3))
    tensors = {}
    for module, (down, up) in factors(3).items():
        tensors[f"{module}.lora_A.weight"] = down
        tensors[f"{module}.lora_B.weight"] = up
    write_file("saves/bare/adapter_model.safetensors", tensors)


@pytest.fixture(params=[MERGE, DARE, FUSE, EXTRACT, RENAME], ids=lambda words: " ".join(words[:1]))
def words(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """A command that has written its result into the folder out."""
    tuned()
    bare()
    Path("saves/rte/chat_template.jinja").write_text("{{ messages }}")
    call(*request.param)
    return tuple(request.param)


def refusal(*words: str) -> str:
    """The message of a command whose result is stale."""
    before = tree(Path("out"))
    message = call(*words, code=2)[1]
    assert tree(Path("out")) == before
    return printed_line(message, "out: already there, and not current")


def test_a_second_run_has_nothing_to_do(words: tuple[str, ...]) -> None:
    before = tree(Path("out"))
    output, notes = call(*words)
    assert output == "out: up to date\n"
    assert [line.partition(" ")[0] for line in notes.splitlines()] == ["next:"]
    assert tree(Path("out")) == before


def test_times_places_and_names_of_folders_are_no_inputs(words: tuple[str, ...]) -> None:
    for path in Path().rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert call(*words)[0] == "out: up to date\n"
    Path("moved").mkdir()
    for folder in ("rte", "mnli", "bare"):
        Path("saves", folder).rename(f"moved/new-{folder}")
    Path("out").rename("moved/out")
    moved = []
    for word in words:
        name, equals, weight = word.partition("=")
        if name in ("rte", "mnli", "bare"):
            name = f"moved/new-{name}"
        moved.append("moved/out" if word == "out" else name + equals + weight)
    assert call(*moved)[0] == "moved/out: up to date\n"


def test_a_written_file_that_was_changed_or_removed_is_named(words: tuple[str, ...]) -> None:
    (weights,) = Path("out").glob("*model.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    printed(refusal(*words), f"{weights} changed after it was written")
    weights.write_bytes(content)
    assert call(*words)[0] == "out: up to date\n"
    (config,) = Path("out").glob("*config.json")
    config.unlink()
    printed(refusal(*words), f"{config} is gone")


def test_a_card_may_be_formatted_and_a_note_may_be_added(words: tuple[str, ...]) -> None:
    Path("out/README.md").write_text("mine")
    Path("out/notes.txt").write_text("mine")
    assert call(*words)[0] == "out: up to date\n"


def test_force_writes_it_again() -> None:
    call(*MERGE)
    os.utime("out/merge.json", (1e9, 1e9))
    assert "result: out" in call(*MERGE, "--force")[1]
    assert Path("out/merge.json").stat().st_mtime > 1e9


def test_a_note_on_a_name_comes_once() -> None:
    make("rte", factors(3))
    for words in (MERGE, MERGE, ("merge", "rte=0.7", "--out", "out")):
        code = 2 if "rte=0.7" in words else 0
        assert call(*words, code=code)[1].count("note: rte means") == 1


def test_a_dry_run_of_a_current_result_says_so() -> None:
    call(*MERGE)
    assert call(*MERGE, "--dry-run")[0] == "out: up to date\n"


def edit_config(folder: str, **fields: object) -> None:
    path = Path(folder, "adapter_config.json")
    write_json(path, {**read_json(path), **fields})


CHANGES = {
    "weights": (
        DARE,
        lambda: make("saves/rte", factors(9)),
        DARE,
        "saves/rte/adapter_model.safetensors changed",
    ),
    "config": (
        DARE,
        lambda: edit_config("saves/mnli", lora_alpha=32),
        DARE,
        "saves/mnli/adapter_config.json changed",
    ),
    "template": (
        DARE,
        lambda: Path("saves/rte/chat_template.jinja").write_text("other"),
        DARE,
        "saves/rte/chat_template.jinja is new",
    ),
    "weight": (
        MERGE,
        None,
        ("merge", "rte=0.5", "mnli=0.7", "--out", "out"),
        "weight of saves/mnli: 0.5 → 0.7",
    ),
    "negative weight": (
        MERGE,
        None,
        ("merge", "rte=-0.5", "mnli=0.5", "--out", "out"),
        "weight of saves/rte: 0.5 → -0.5",
    ),
    "weights by layer": (
        MERGE,
        None,
        ("merge", "rte=0.5@0-0", "mnli=0.5", "--out", "out"),
        "weight of saves/rte: 0.5 → 0.5@0-0",
    ),
    "dtype": (MERGE, None, (*MERGE, "--dtype", "bf16"), "--dtype: fp32 → bf16"),
    "density": (DARE, None, (*DARE, "--density", "0.25"), "--density: 0.5 → 0.25"),
    "seed": (DARE, None, (*DARE, "--seed", "8"), "--seed: 7 → 8"),
    "method": (MERGE, None, DARE, "--method: exact → dare_ties"),
    "an adapter more": (MERGE, None, (*MERGE, "third=1"), "saves/third is new"),
    "an adapter less": (MERGE, None, ("merge", "rte=0.5", "--out", "out"), "mnli is gone"),
    "order": (
        MERGE,
        None,
        ("merge", "mnli=0.5", "rte=0.5", "--out", "out"),
        "the order of the adapters: saves/rte, saves/mnli → saves/mnli, saves/rte",
    ),
    "training data": (
        MERGE,
        lambda: write_json(
            Path("saves/rte/training.json"),
            {"inputs": {"settings": {"dataset": "a"}, "data": [{"dataset": "a", "file": "a.json"}]}},
        ),
        MERGE,
        "training data of saves/rte changed",
    ),
    "fuse: dtype": (FUSE, None, (*FUSE, "--dtype", "fp32"), "--dtype: None → fp32"),
    "fuse: shards": (FUSE, None, (*FUSE, "--max-shard-size", "2KB"), "--max-shard-size: None → 2000"),
    "fuse: weight": (
        FUSE,
        None,
        ("fuse", "rte", "--base", "base", "--out", "out"),
        "weight of saves/rte: 0.5 → 1.0",
    ),
    "fuse: another base": (
        FUSE,
        None,
        ("fuse", "rte=0.5", "--base", "other", "--same-base", "--out", "out"),
        "other/model.safetensors changed",
    ),
    "fuse: licence": (FUSE, lambda: Path("base/LICENSE").write_text("x"), FUSE, "base/LICENSE is new"),
    "fuse: tokenizer": (
        FUSE,
        lambda: Path("base/tokenizer.json").write_text('{"a": 1}'),
        FUSE,
        "base/tokenizer.json changed",
    ),
    "extract: rank": (EXTRACT, None, (*EXTRACT, "--rank", "3"), "--rank: 2 → 3"),
    "extract: model": (
        EXTRACT,
        lambda: make_base("tuned", base_tensors(seed=3)),
        EXTRACT,
        "tuned/model.safetensors changed",
    ),
    "extract: base": (
        EXTRACT,
        None,
        ("extract", "tuned", "--base", "copy", "--rank", "2", "--out", "out"),
        "--base: base → copy",
    ),
    "rename: tokenizer": (
        RENAME,
        lambda: Path("saves/bare/tokenizer.json").write_text("{}"),
        RENAME,
        "saves/bare/tokenizer.json is new",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_changed_input_is_named(name: str) -> None:
    first, change, second, message = CHANGES[name]
    tuned()
    bare()
    make("saves/third", factors(3))
    make_base("other", base_tensors(seed=2))
    shutil.copytree("base", "copy")
    call(*first)
    if change:
        change()
    printed(refusal(*second), message)


def test_of_many_changes_some_are_named() -> None:
    make_base("base", base_tensors(), shards=9)
    call(*FUSE)
    make_base("base", base_tensors(seed=5), shards=9)
    printed(refusal(*FUSE), "base/model-00001-of-00009.safetensors changed", "… and 1 more")


def test_the_same_adapter_twice_has_two_weights() -> None:
    words = ("merge", "rte=0.5", "rte=0.25", "--out", "out")
    call(*words)
    assert call(*words)[0] == "out: up to date\n"
    printed(refusal("merge", "rte=0.4", "rte=0.35", "--out", "out"), "0.5 → 0.4", "0.25 → 0.35")


def test_a_base_counts_where_tensors_are_merged_against_it() -> None:
    extra = {f"{PREFIX}model.layers.0.norm.weight": np.ones(24, np.float32)}
    make("saves/norm", factors(4), extra=extra, modules_to_save=["norm"])
    plain, full = (
        (*MERGE, "--base", "base", "--same-base"),
        ("merge", "norm=1", "--base", "base", "--out", "full"),
    )
    call(*plain)
    call(*full, "--same-base")
    make_base("base", base_tensors(seed=6))
    assert call(*plain)[0] == "out: up to date\n"
    assert call(*MERGE)[0] == "out: up to date\n"
    printed(call(*full, "--same-base", code=2)[1], "base/model.safetensors changed")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda record: record.pop("inputs"), "out/merge.json is damaged"),
        (
            lambda record: (record.pop("inputs"), record.pop("outputs")),
            "out/merge.json of an earlier version",
        ),
        (lambda record: record.update(command="fuse"), "`tuneyard adapter merge` did not write it"),
        (lambda record: record["outputs"].update({"../saves": "0" * 64}), "out/merge.json is damaged"),
        (lambda record: record["outputs"].update({"a\nb": "0" * 64}), "out/merge.json is damaged"),
        (
            lambda record: record["inputs"]["options"].update({"--a\nerror: b": 1}),
            "out/merge.json is damaged",
        ),
        (lambda record: record["inputs"]["options"].update({"--dtype": "a\rb"}), "out/merge.json is damaged"),
        (lambda record: record["inputs"].update(folders=[3]), "out/merge.json is damaged"),
        (
            lambda record: record["inputs"]["options"].update({"--dtype": {"a": 1}}),
            "out/merge.json is damaged",
        ),
    ],
)
def test_a_record_of_others_is_never_current(damage, message: str) -> None:
    call(*MERGE)
    record = read_json(Path("out/merge.json"))
    damage(record)
    write_json(Path("out/merge.json"), record)
    printed(refusal(*MERGE), message)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b'{"command": 3}'])
def test_a_damaged_record_is_named(content: bytes) -> None:
    call(*MERGE)
    Path("out/merge.json").write_bytes(content)
    printed(refusal(*MERGE), "out/merge.json is damaged")


def test_states_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    request = MergeRequest([("rte", 0.5), ("mnli", 0.5)], Path("out"))
    assert merging.state(request) == NEW
    written = merging.merge(request)
    assert not written.is_current and "Merged exactly" in written.lines[0]
    assert merging.state(request) == CURRENT and merging.merge(request).is_current
    edit_config("saves/rte", lora_alpha=8)
    stale = merging.state(request)
    assert (stale.kind, *stale.changes) == ("stale", "saves/rte/adapter_config.json changed")
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_fusion_is_unfinished() -> None:
    make_base("base", base_tensors(), shards=3)
    request = fusing.FuseRequest([("rte", 1.0)], Path("base"), Path("out"))
    assert fusing.state(request) == NEW

    def stop(count: int) -> None:
        if Path(".out.tuneyard-fusing/model-00001-of-00003.safetensors").is_file():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fusing.fuse(request, stop)
    assert fusing.state(request) == UNFINISHED
    assert fusing.state(fusing.FuseRequest([("rte", 0.5)], Path("base"), Path("out"))) == NEW
    fusing.fuse(request)
    assert fusing.state(request) == CURRENT and names(".") == ["base", "out", "saves"]


def test_two_results_in_one_script_without_a_guard(tmp_path: Path) -> None:
    script = Path("script.py")
    script.write_text(
        "from pathlib import Path\n"
        "from tuneyard.adapters.merge.merge import merge\n"
        "from tuneyard.adapters.merge.request import MergeRequest\n"
        "from tuneyard.adapters.fuse.fuse import FuseRequest, fuse\n"
        "request = MergeRequest([('rte', 0.5), ('mnli', 0.5)], Path('out'))\n"
        "print(merge(request).is_current, merge(request).is_current)\n"
        "request = FuseRequest([('rte', 1.0)], Path('base'), Path('full'))\n"
        "print(fuse(request).is_current, fuse(request).is_current)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert (done.stdout, done.stderr) == ("False True\nFalse True\n", "")


def test_a_state_reads_no_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned()
    requests = [
        (merging, MergeRequest([("rte", 1.0)], Path("out"))),
        (fusing, fusing.FuseRequest([("rte", 1.0)], Path("base"), Path("full"))),
        (extracting, extracting.ExtractRequest(Path("tuned"), Path("base"), 2, Path("lora"))),
    ]
    for module, request in requests:
        getattr(module, module.__name__.rpartition(".")[2])(request)
    monkeypatch.setattr("tuneyard.core.weights.tensors._read", lambda *_: pytest.fail("a tensor was read"))
    began = time.monotonic()
    assert [module.state(request) for module, request in requests] == [CURRENT] * 3
    assert time.monotonic() - began < 2


GGUF = ("export", "model", "--to", "gguf", "--out", "out/m.gguf")
LORA = ("export", "small", "--base", "model", "--to", "gguf", "--out", "out/m.gguf")
OLLAMA = ("export", "small", "--to", "ollama", "--out", "out/Modelfile")
FROM = (*OLLAMA, "--from", "qwen2.5:0.5b")
WHOLE = ("export", "model", "--to", "ollama", "--out", "out/Modelfile")
NAMED = ("export", "model", "--to", "ollama", "--gguf", "model.gguf", "--out", "out/Modelfile")
QUERIES = {"q_proj": (8, 8)}


@pytest.fixture
def small(two_adapters: None) -> None:
    """A Llama with a chat template, and a LoRA for its queries."""
    pytest.importorskip("gguf")
    make_llama()
    Path("model/chat_template.jinja").write_text(CHATML)
    fields = {"target_modules": ["q_proj"], "base_model_name_or_path": "model"}
    make("saves/small", factors(layers=1, shapes=QUERIES), **fields)
    Path("model.gguf").write_bytes(b"GGUF")


def change_adapter() -> None:
    fields = {"target_modules": ["q_proj"], "base_model_name_or_path": "model"}
    make("saves/small", factors(5, layers=1, shapes=QUERIES), **fields)


def change_model() -> None:
    make_llama("model", {**llama_tensors(), "model.norm.weight": np.ones(8, np.float32)})


def licensed() -> None:
    Path("model/README.md").write_text("---\nlicense: mit\n---\n")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("words", [GGUF, LORA, OLLAMA, FROM, WHOLE, NAMED], ids=str)
def test_a_second_export_has_nothing_to_do(words: tuple[str, ...]) -> None:
    call(*words)
    before = tree(Path("out"))
    for path in Path().rglob("*"):
        os.utime(path, (1e9, 1e9))
    output, notes = call(*words)
    assert output == f"{words[-1] if words != FROM else 'out/Modelfile'}: up to date\n"
    assert "next: " in notes and tree(Path("out")) == before
    assert "result: out" in call(*words, "--force")[1]


EXPORTS = {
    "model": (GGUF, change_model, GGUF, "model changed"),
    "type": (GGUF, None, (*GGUF, "--type", "q8_0"), "--type: f16 → q8_0"),
    "licence": (GGUF, licensed, GGUF, "licence: None → mit"),
    "adapter": (LORA, change_adapter, LORA, "saves/small changed"),
    "another source": (LORA, None, GGUF, "model changed"),
    "a base of another architecture": (
        LORA,
        lambda: make_llama("model", model_type="qwen2"),
        LORA,
        "architecture: llama → qwen2",
    ),
    "fused adapter": (OLLAMA, change_adapter, OLLAMA, "out/small-f16.gguf is of other weights"),
    "base of a fused adapter": (OLLAMA, change_model, OLLAMA, "out/small-f16.gguf is of other weights"),
    "fused type": (OLLAMA, None, (*OLLAMA, "--type", "q8_0"), "out/Modelfile has another FROM"),
    "lora": (FROM, change_adapter, FROM, "out/small-lora.gguf is of other weights"),
    "base in Ollama": (FROM, None, (*OLLAMA, "--from", "qwen3:0.6b"), "out/Modelfile has another FROM"),
    "system": (WHOLE, None, (*WHOLE, "--system", "Be brief."), "out/Modelfile has another SYSTEM"),
    "parameter": (
        WHOLE,
        None,
        (*WHOLE, "--parameter", "num_ctx=4096"),
        "out/Modelfile has another PARAMETER num_ctx",
    ),
    "stop word": (
        WHOLE,
        None,
        (*WHOLE, "--parameter", "stop=END"),
        "out/Modelfile has another PARAMETER stop",
    ),
    "template": (
        WHOLE,
        lambda: Path("model/chat_template.jinja").write_text(CHATML.replace("assistant", "answer")),
        WHOLE,
        "out/Modelfile has another TEMPLATE",
    ),
    "edited Modelfile": (
        WHOLE,
        lambda: Path("out/Modelfile").write_text(Path("out/Modelfile").read_text() + "PARAMETER seed 1\n"),
        WHOLE,
        "out/Modelfile has another PARAMETER seed",
    ),
    "no GGUF": (WHOLE, lambda: Path("out/model-f16.gguf").unlink(), WHOLE, "out/model-f16.gguf is gone"),
    "another GGUF": (
        NAMED,
        lambda: Path("other.gguf").write_bytes(b"GGUF"),
        ("export", "model", "--to", "ollama", "--gguf", "other.gguf", "--out", "out/Modelfile"),
        "out/Modelfile has another FROM",
    ),
    "a GGUF of others": (
        GGUF,
        lambda: Path("out/m.gguf").write_bytes(b"GGUF" + bytes(5000)),
        GGUF,
        "out/m.gguf does not name its source",
    ),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", EXPORTS)
def test_each_changed_input_of_an_export_is_named(name: str) -> None:
    first, change, second, message = EXPORTS[name]
    call(*first)
    if change:
        change()
    before = tree(Path("out"))
    printed_line(call(*second, code=2)[1], "already there, and not current", message)
    assert tree(Path("out")) == before


@pytest.mark.usefixtures("small")
def test_an_interrupted_export_is_unfinished() -> None:
    request = OllamaRequest("small", Path("out/Modelfile"))
    assert ollama.state(request) == NEW
    assert not ollama.export_ollama(request).is_current
    assert ollama.state(request) == CURRENT and ollama.export_ollama(request).is_current
    Path("out/Modelfile").unlink()
    assert ollama.state(request) == UNFINISHED
    change_adapter()
    assert ollama.state(request) == NEW


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "content", [b"GGUF", b"GGUF" + b"\xff" * 5000, b"GGUF" + bytes(20) + b"\xff" * 8, b"GGUF\x03", b"FROM"]
)
def test_a_damaged_gguf_is_never_current(content: bytes) -> None:
    Path("m.gguf").write_bytes(content)
    state = gguf_files.state(gguf_files.GgufRequest("model", Path("m.gguf")))
    assert state.kind == "stale" and len(state.changes) == 1


def test_show_in_python_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    result = show(InspectRequest(["rte", "mnli"]))
    assert [adapter.name for adapter in result.adapters] == ["rte", "mnli"]
    assert [round(value or 0, 9) for value in (result.cosines[0][0], result.cosines[1][1])] == [1.0, 1.0]
    assert result.command[:3] == ["tuneyard", "adapter", "merge"] and not result.pictures
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("small")
def test_the_files_of_a_server_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneyard.adapters.serve.plan.has_llamafactory", lambda: False)
    make_llama("model", max_position_embeddings=512)
    Path("model/chat_template.jinja").write_text(CHATML)
    request = ServeRequest(["small"], "llama.cpp")
    assert serving.state(request) == NEW
    plan = serving.plan_serving(request)
    plan.write()
    assert serving.state(request) == CURRENT
    shutil.rmtree(plan.folders()[-1])
    assert serving.state(request) == UNFINISHED
    assert serving.state(ServeRequest(["small"], "vllm")) == CURRENT  # the chat template alone
