"""`adapter serve`: the commands that it prints, the files that it writes once, and what it refuses."""

import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import read_json, write_json
from tests.messages import printed
from tests.serving import free_port
from tests.unit.adapters.commands import call
from tests.unit.adapters.llama import TOKENIZER, make_llama
from tests.unit.adapters.make import factors, gguf_fields, make, tensors_of
from tests.unit.adapters.test_export_modelfile import CHATML, THINKS
from tuneyard.adapters.serve import plan
from tuneyard.adapters.serve.template import PLAIN, PROBES, serving_template
from tuneyard.core import errors
from tuneyard.core.installation import packages
from tuneyard.core.llamafactory.prompt import chat_renderer
from tuneyard.core.llamafactory.prompt.rendering import template_renderer

pytest.importorskip("gguf")
GOLDEN = ROOT / "tests/golden/adapters/serve"
SHAPES = {"q_proj": (8, 8), "v_proj": (4, 8)}
QWEN3 = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{% endif %}{% endif %}"
)


def adapter(name, settings=None, seed=0, template=CHATML, eos="<s>", **config):
    """An adapter of models/base as a training leaves it; keywords replace fields of its config."""
    pairs = factors(seed, layers=1, rank=config.get("r", 8), shapes=SHAPES)
    folder = make(f"saves/{name}", pairs, **{"base_model_name_or_path": "models/base", **config})
    (folder / "chat_template.jinja").write_text(template)
    write_json(folder / "tokenizer.json", TOKENIZER)
    write_json(folder / "tokenizer_config.json", {"eos_token": eos})
    if settings is not None:
        write_json(folder / "training.json", {"inputs": {"settings": settings}})
    return folder


@pytest.fixture(autouse=True)
def trained_adapters(working_folder, monkeypatch):
    """A base of 512 tokens with two adapters of trainings, and no engine on PATH."""
    monkeypatch.setattr(plan, "has_llamafactory", lambda: False)  # its import takes 10 s
    monkeypatch.setenv("PATH", str(working_folder / "bin"))
    monkeypatch.setattr(packages, "VLLM_ENVIRONMENT", "env-of-vllm")  # there may be one with the usual name
    make_llama("models/base", max_position_embeddings=512)
    Path("models/base/generation_config.json").write_text('{"eos_token_id": [2, 3], "temperature": 0.7}')
    adapter("a", {"stage": "sft", "cutoff_len": 128, "max_new_tokens": 64, "dataset": "rte_train"})
    adapter("b", {"stage": "sft", "cutoff_len": 96, "max_new_tokens": 64}, 1, r=24, lora_alpha=48)


def dry_run(*words):
    """What serve prints on stdout in a dry run, which writes nothing. Hashes of files are left out."""
    out, _ = call("serve", *words, "--dry-run")
    assert not Path("saves/serving").exists()
    return re.sub(r"-[0-9a-f]{8}(?=[/ ])", "-HASH", out)


def served(file):
    """The newest served file of a name, in its folder of a hash."""
    return max(Path("saves/serving").glob(f"*/{file}"), key=lambda path: path.stat().st_mtime_ns)


def said(*words, code=0):
    """What serve says on stderr."""
    return call("serve", *words, code=code)[1]


def refusal(*words, code=2):
    """The message of a command that stops with this exit code."""
    return said(*words, code=code)


@pytest.fixture
def engines(monkeypatch):
    """Stand-ins of both engines' programs on PATH; the list of the commands that start them."""
    commands = []
    for name in ("vllm", "llama-server"):
        program = Path("bin", name)
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(os, "execvpe", lambda _, words, __: commands.append(words))
    return commands


@pytest.fixture
def port():
    """A free port of this machine."""
    return free_port()


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_the_printed_commands_are_the_golden_ones(engine):
    text = dry_run("a", "b", "--engine", engine) + dry_run("b", "--engine", engine, "--port", 9000)
    assert text == (GOLDEN / f"{engine}.txt").read_text()


def test_an_adapter_whose_name_begins_with_a_dash_is_no_option():
    adapter("-dash")
    out, _ = call("serve", "--engine", "vllm", "--dry-run", "--", "-dash")
    assert '\'{"name": "-dash", "path": "saves/-dash"}\'' in out
    out, _ = call("serve", "--engine", "llama.cpp", "--dry-run", "--", "-dash")
    assert re.search("--lora saves/serving/-dash-[0-9a-f]{8}/-dash.gguf", out)
    adapter("-wide", r=1024)
    shutil.copytree("saves/-wide", "-wide")
    message = refusal("--engine", "vllm", "--dry-run", "--", "./-wide", code=1)
    printed(message, "rank 1024", "tuneyard adapter fuse ./-wide --base")


@pytest.mark.parametrize("length", [-5, 0, "many", True, 12.5])
def test_a_training_of_no_length_is_refused(length):
    adapter("odd", {"stage": "sft", "cutoff_len": length})
    printed(refusal("odd", "--engine", "vllm", code=1), "saves/odd", "cutoff_len", "above 0")
    adapter("plain", {"stage": "sft", "cutoff_len": None})
    assert "cutoff_len 2,048" in dry_run("plain", "--engine", "vllm")


def test_the_files_are_written_once_and_again_only_after_a_change(engines, port):
    words = ("a", "b", "--engine", "llama.cpp", "--port", port)
    err = said(*words)
    assert engines[0][:2] == ["llama-server", "--model"] and f"http://127.0.0.1:{port}/v1" in err
    assert "tuneyard eval prove" in err and "--dataset rte_train" in err
    fields = gguf_fields(served("base-f16.gguf"))
    assert fields["tokenizer.ggml.eos_token_id"] == 3  # the training's, then that of generation_config.json
    assert fields["tokenizer.ggml.eot_token_id"] == 2
    assert fields["tokenizer.ggml.add_bos_token"] is False
    names = ["a.gguf", "b.gguf", "base-f16.gguf", "chat_template.jinja"]
    files = {name: (served(name), served(name).stat().st_mtime_ns) for name in names}
    call("serve", *words)
    assert {name: (served(name), served(name).stat().st_mtime_ns) for name in names} == files
    adapter("b", {"stage": "sft"}, seed=7, r=24, lora_alpha=48)
    call("serve", *words)
    assert [name for name in names if served(name) != files[name][0]] == ["b.gguf"]
    assert f"{served('b.gguf')}:0" in engines[-1]


def test_settings_without_a_vocabulary_change_the_end_of_the_bases_tokenizer(engines, port):
    Path("saves/a/tokenizer.json").unlink()
    Path("models/base/generation_config.json").unlink()
    write_json(
        Path("models/base/config.json"), {**read_json(Path("models/base/config.json")), "eos_token_id": 2}
    )
    call("serve", "a", "--engine", "llama.cpp", "--port", port)
    fields = gguf_fields(served("base-f16.gguf"))
    assert fields["tokenizer.ggml.eos_token_id"] == 3 and fields["tokenizer.ggml.eot_token_id"] == 2
    out, _ = call("serve", "a", "--engine", "vllm", "--port", port, "--dry-run")
    assert "--tokenizer" not in out


def test_the_token_after_an_answer_is_an_end(engines, port):
    Path("saves/a/chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}x{% endfor %}")
    call("serve", "a", "--engine", "llama.cpp", "--port", port)
    fields = gguf_fields(served("base-f16.gguf"))
    ends = [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")]
    assert ends == [3, 4, 2]


def test_vllm_gets_the_end_tokens_and_no_sampling(engines, port):
    call("serve", "a", "--engine", "vllm", "--port", port)
    assert read_json(served("generation_config.json")) == {"eos_token_id": [3, 2]}
    assert served("chat_template.jinja").read_text() == CHATML
    assert engines == [engines[0]] and engines[0][:3] == ["vllm", "serve", "models/base"]


def test_the_next_command_reads_the_datasets_of_the_training(engines, port):
    settings = {"stage": "sft", "dataset": "mine", "dataset_dir": "my data"}
    adapter("a", settings)
    words = ("--engine", "vllm", "--port", port)
    assert "--dataset mine --dataset-dir 'my data' --out" in said("a", *words)
    adapter("b", {**settings, "dataset_dir": "dataset_info"})
    assert "--dataset-dir" not in said("b", *words)
    adapter("plain")
    assert "--dataset NAME --out" in said("plain", *words)


def test_a_file_of_the_user_is_never_replaced(engines, port):
    mine = [Path("saves/serving", name) for name in ("a.gguf", "serving.json", "a")]
    mine[0].parent.mkdir()
    for file in mine:
        file.write_text("mine")
    call("serve", "a", "--engine", "llama.cpp", "--port", port)
    assert [file.read_text() for file in mine] == ["mine"] * 3


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
def test_no_file_is_written_into_an_adapter(engines, port, engine):
    folder = Path("saves/a")
    (folder / "chat_template.jinja").unlink()
    before = sorted(folder.iterdir())
    printed(refusal("a", "--out", "saves/a/x", "--engine", engine, "--port", port), "--out", "saves/a")
    call("serve", "a", "--out", "saves", "--engine", engine, "--port", port)
    assert sorted(folder.iterdir()) == before


def test_paths_are_quoted_in_the_commands_of_messages():
    adapter("my $(id)", alpha_pattern={"v_proj": 3})
    message = refusal("my $(id)", "--engine", "vllm", code=1)
    printed(message, "tuneyard adapter merge 'saves/my $(id)=1' --out 'saves/my $(id)-plain'")


@pytest.mark.parametrize("host", ["ü..b", "not a host"])
def test_a_host_that_is_no_name_is_refused(engines, host):
    message = refusal("a", "--engine", "vllm", "--host", host)
    assert f'--host "{host}" --port 8000: ' in message and message.endswith("with --host")


def set_values(folder, value):
    """Replace the first value of the last tensor in an adapter's file."""
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    tensors[name].flat[0] = value
    save_file(tensors, path)
    return name


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_nan_is_refused_as_show_does(engine, value):
    name = set_values(adapter("bad"), value)
    message = refusal("a", "bad", "--engine", engine, "--dry-run", code=1)
    printed(message, "saves/bad/adapter_model.safetensors", name)
    assert call("show", "bad", code=1)[1] == message


def test_the_next_command_proves_on_rows_that_were_held_out(engines, port):
    folder = Path("dataset_info")
    folder.mkdir()
    entries = {name: {"file_name": "rows.json"} for name in ("x_train", "x_eval", "y_train", "other")}
    write_json(folder / "dataset_info.json", entries)
    settings = {"stage": "sft", "dataset": "x_train,y_train", "dataset_dir": "dataset_info"}
    adapter("a", settings)
    words = ("a", "--engine", "vllm", "--port", port)
    err = said(*words)
    assert "--dataset x_eval --dataset y_train --out" in err and "--limit" not in err
    adapter("a", {**settings, "eval_dataset": "other"})
    assert "--dataset other --dataset x_eval --out" in said(*words)
    write_json(folder / "dataset_info.json", {**entries, "x_test": {"file_name": "rows.json"}})
    adapter("a", {**settings, "eval_dataset": "x_eval"})
    assert "--dataset x_test --out" in said(*words)
    (folder / "dataset_info.json").write_text("{")
    assert "--dataset x_train --dataset y_train --out" in said(*words)


def test_a_dry_run_says_what_is_missing_and_names_a_command_that_runs(monkeypatch, engines):
    for engine in ("vllm", "llama-server"):
        Path("bin", engine).rename(engine)
    err = said("a", "--engine", "vllm", "--dry-run")
    set_up = "make setup-vllm) && PATH="
    assert "note: vllm is not on PATH" in err and err.count(set_up) == 2
    monkeypatch.setattr(packages, "VLLM_ENVIRONMENT", str(Path("env").resolve()))
    program = Path("env/bin/vllm")
    program.parent.mkdir(parents=True)
    program.write_text("")
    err = said("a", "--engine", "vllm", "--dry-run")
    assert 'next: PATH=env/bin:"$PATH" tuneyard adapter' in err and "make" not in err
    err = said("a", "--engine", "llama.cpp", "--dry-run")
    assert "note: llama-server is not on PATH" in err and "llama.cpp/releases" in err
    Path("vllm").rename("bin/vllm")
    err = said("a", "--engine", "vllm", "--dry-run")
    assert "note:" not in err and "next: tuneyard adapter" in err


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "stopped after 0.1 s",
        ),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "refuses messages of user"),
        ("{{ 1", "is damaged: line 1"),
    ],
)
def test_what_is_wrong_with_a_template_is_said_with_its_file(monkeypatch, template, cause):
    monkeypatch.setattr(errors, "TIME_LIMIT", 0.1)
    adapter("a", template=template)
    message = refusal("a", "--engine", "vllm", "--dry-run", code=1)
    assert message.startswith("saves/a/chat_template.jinja: the chat template") and cause in message
    assert "--think" not in message
    Path("saves/a/chat_template.jinja").unlink()
    fields = {"eos_token": "<s>", "chat_template": template}
    write_json(Path("saves/a/tokenizer_config.json"), fields)
    assert refusal("a", "--engine", "vllm", code=1).startswith("saves/a/tokenizer_config.json: the chat")


def test_a_template_that_is_not_text_is_refused():
    Path("saves/a/chat_template.jinja").write_bytes(b"{{ '\xff' }}")
    printed(refusal("a", "--engine", "vllm", code=1), "saves/a/chat_template.jinja", "UTF-8", 4)


def test_a_template_other_than_the_trainings_is_warned_of_and_not_served(monkeypatch, engines, port):
    monkeypatch.setattr(plan, "has_llamafactory", lambda: True)
    templates = [QWEN3]
    monkeypatch.setattr(plan, "trained_template", lambda *_: templates[0])
    words = ("a", "--engine", "vllm", "--port", port)
    for _ in range(2):  # the second time the file is there
        err = said(*words)
        written = served("chat_template.jinja")
        assert "warning: saves/a/chat_template.jinja: " in err and str(written) in err
        assert written.read_text() == QWEN3
    shutil.rmtree("saves/serving")
    templates[0] = CHATML
    err = said(*words)
    assert "warning:" not in err and served("chat_template.jinja").read_text() == CHATML


def test_a_port_in_use_and_a_missing_engine_are_named(port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        message = refusal("a", "--engine", "vllm", "--port", port)
        assert f"--port {port}: " in message and message.endswith("with --port")
    out, message = call("serve", "a", "--engine", "vllm", "--port", port, code=2)
    assert out.startswith("base") and not Path("saves/serving").exists()
    printed(message, "vllm", "PATH")
    printed(refusal("a", "--engine", "llama.cpp", "--port", port), "llama-server", "PATH")


def test_adapters_that_one_server_cannot_serve_are_refused():
    printed(refusal("a=0.5"), "a=0.5", "tuneyard adapter merge")
    adapter("other", template=QWEN3)
    printed(refusal("a", "other"), "saves/a", "saves/other", "templates")
    adapter("ends", eos="ab")
    printed(refusal("a", "ends"), "saves/a", "saves/ends", "tokenizers")
    make_llama("models/else")
    adapter("c", base_model_name_or_path="models/else")
    printed(refusal("a", "c"), "models/base", "models/else", "--base")
    printed(refusal("a", "./saves/a"), "a", 2)
    printed(refusal("a", "models/base"), "models/base")
    adapter("moved", base_model_name_or_path="org/gone")
    printed(refusal("moved", "--base", "models/base", code=1), "--same-base")
    dry_run("moved", "--base", "models/base", "--same-base")
    adapter("long", {"rope_scaling": "yarn"})
    printed(refusal("long", code=1), "rope_scaling", "llamafactory-cli")


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_changes_that_no_lora_of_the_engine_makes_are_to_be_fused(engine):
    adapter("dora", use_dora=True)
    pairs = factors(layers=1, shapes=SHAPES)
    extra = {"base_model.model.model.norm.weight": tensors_of(pairs).popitem()[1][0]}
    make("saves/full", pairs, extra=extra, modules_to_save=["norm"], base_model_name_or_path="models/base")
    for name in ("dora", "full"):
        message = refusal(name, "--engine", engine, code=1)
        printed(message, f"saves/{name}", "fuse")
    assert message.endswith("tuneyard adapter fuse saves/full --base models/base --out models/full")


def test_vllm_reads_no_patterns_and_a_gguf_has_them():
    adapter("pattern", alpha_pattern={"v_proj": 3})
    printed(refusal("pattern", "--engine", "vllm", code=1), "v_proj", "tuneyard adapter merge")
    assert "pattern.gguf" in dry_run("pattern", "--engine", "llama.cpp")
    adapter("rslora", use_rslora=True)
    assert "rslora=saves/rslora" in dry_run("rslora", "--engine", "vllm")
    adapter("large", r=520)
    printed(refusal("large", "--engine", "vllm", code=1), 520, 512)


def test_a_model_fused_of_a_merge_is_served_with_the_length_of_its_parts_trainings():
    call("merge", "a=1", "--out", "saves/merged")
    call("fuse", "merged", "--base", "models/base", "--out", "models/a")
    text = dry_run("models/a", "--engine", "llama.cpp")
    assert "192 tokens" in text and "--lora" not in text and "/a-f16.gguf" in text
    adapter("a", r=4)
    printed(said("merged", "--engine", "vllm", "--dry-run"), "saves/a", "changed")


def test_without_records_the_context_is_the_bases():
    adapter("plain")
    text = dry_run("plain", "--engine", "vllm")
    assert "512 tokens\n" in text and "--max-model-len 512" in text


def test_names_with_signs_of_a_command_line_go_as_json_or_are_refused():
    adapter("x,y=1")
    assert '\'{"name": "x,y=1", "path": "saves/x,y=1"}\'' in dry_run("x,y=1", "--engine", "vllm")
    printed(refusal("x,y=1", "--engine", "llama.cpp"), "x,y=1.gguf")


@pytest.mark.parametrize("template", [CHATML, THINKS, QWEN3, f"\n{QWEN3}"])
@pytest.mark.parametrize("think", [True, False])
def test_the_file_renders_without_options_as_the_scoring_does(template, think):
    special = {"eos_token": "<|im_end|>"}
    scored = template_renderer(template, special, think)
    plain = template_renderer(serving_template(template, special, think), special, think=True)
    for talk in PROBES:
        assert plain(talk, True) == scored(talk, True)


def test_without_a_chat_template_the_texts_are_joined():
    plain = chat_renderer(None, None)
    for talk in PROBES:
        assert template_renderer(PLAIN, {}, think=True)(talk, True) == plain(talk, True)
