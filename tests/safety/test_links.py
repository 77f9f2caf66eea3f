"""Nothing of elsewhere travels on with a mailed folder, and no write leaves it. SECURITY.md, "Files"."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from testing.tiny import write_adapter
from tests.cli.scoring import invoke
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tests.unit.recipes.make import write_recipe
from tuneyard.compiler.cli import cli as data
from tuneyard.core.datasets import read_records
from tuneyard.core.documents import json_items
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import append_bytes, read_object, sha256, write_text
from tuneyard.core.files import read_json as parse_file
from tuneyard.core.files import write_json as write_atomic
from tuneyard.core.files.bounded_reading import lines_of, read_end
from tuneyard.core.files.links import own_file, refuse_links_in
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.runs.results import begin_scoring_run
from tuneyard.recipes.__main__ import cli as recipe_cli
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.recipe.data import locate
from tuneyard.recipes.sweep.run import evaluate
from tuneyard.recipes.training.train import TrainRequest, train

SECRET = "-----BEGIN PRIVATE KEY-----"
ROWS = '{"question": "Is 2 even?", "answer": "yes"}\n' * 3


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user outside of every mailed folder."""
    path = tmp_path_factory.mktemp("home") / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def adapter(working_folder: Path) -> Path:
    make_base("models/base", base_tensors(), model_type="qwen2")
    make("saves/rte", factors(), base_model_name_or_path="models/base")
    return Path("saves/rte")


# What travels on


@pytest.mark.threat("links", "adapter export")
@pytest.mark.parametrize(
    "name", ["LICENSE", "NOTICE", "chat_template.jinja", "README.md", "tokenizer_config.json"]
)
@pytest.mark.parametrize("way", ["absolute", "relative", "through a folder"])
def test_an_export_takes_no_file_from_elsewhere(adapter: Path, secret: Path, name: str, way: str) -> None:
    target = secret
    if way == "relative":
        target = Path(os.path.relpath(secret, adapter))
    elif way == "through a folder":
        (adapter / "inner").symlink_to(secret.parent)
        target = Path("inner/secret")
    (adapter / name).unlink(missing_ok=True)
    (adapter / name).symlink_to(target)
    printed, error = call("export", adapter, "--to", "hub", "--repo", "org/rte", "--dry-run", code=1)
    assert SECRET not in printed + error
    assert str(adapter / name) in error and str(secret) in error and "cp --remove-destination" in error


def test_weights_in_parts_are_the_folders_own(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    _, error = call("export", adapter, "--to", "hub", "--repo", "org/rte", "--dry-run", code=1)
    assert "adapter_model.safetensors" in error


@pytest.mark.threat("links", "adapter fuse")
@pytest.mark.parametrize("name", ["NOTICE", "vocab.json", "anything.txt"])
def test_a_fused_model_has_no_file_from_elsewhere(adapter: Path, secret: Path, name: str) -> None:
    (Path("models/base") / name).unlink(missing_ok=True)
    (Path("models/base") / name).symlink_to(secret)
    _, error = call("fuse", adapter, "--base", "models/base", "--out", "fused", code=1)
    assert f"models/base/{name}" in error and not Path("fused").exists()


@pytest.mark.threat("links", "adapter merge")
def test_a_merge_carries_no_tokenizer_from_elsewhere(adapter: Path, secret: Path) -> None:
    (adapter / "chat_template.jinja").symlink_to(secret)
    _, error = call("merge", f"{adapter}=1", "--out", "merged", code=1)
    assert "saves/rte/chat_template.jinja" in error and not Path("merged").exists()


@pytest.mark.threat("links", "adapter extract")
@pytest.mark.parametrize("name", ["chat_template.jinja", "vocab.json", "tokenizer_config.json"])
def test_an_extracted_lora_has_no_file_from_elsewhere(adapter: Path, secret: Path, name: str) -> None:
    make_base("models/tuned", base_tensors(), model_type="qwen2")
    (Path("models/tuned") / name).symlink_to(secret)
    _, error = call("extract", "models/tuned", "--base", "models/base", "--rank", "2", "--out", "e", code=1)
    assert f"models/tuned/{name}" in error and str(secret) in error and not Path("e").exists()


@pytest.mark.threat("links", "adapter rename")
@pytest.mark.parametrize("name", ["README.md", "chat_template.jinja", "adapter_config.json"])
def test_a_renamed_adapter_has_no_file_from_elsewhere(working_folder: Path, secret: Path, name: str) -> None:
    adapter = Path("saves/named")
    write_adapter(adapter, shapes={"base_model.model.model.layers.0.self_attn.q_proj": (64, 64)})
    (adapter / name).unlink(missing_ok=True)
    (adapter / name).symlink_to(secret)
    _, error = call("rename", adapter, "--out", "renamed", code=1)
    assert f"saves/named/{name}" in error and not Path("renamed").exists()


def test_links_within_a_folder_and_into_the_hubs_cache_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = tmp_path / "hub/models--org--m/blobs"
    snapshot = tmp_path / "hub/models--org--m/snapshots/abc"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    (blobs / "0123").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "again.json").symlink_to("config.json")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").symlink_to(blobs / "0123")
    for path in (snapshot / "config.json", snapshot / "again.json"):
        assert own_file(path) == path
    with raises(ContentError, str(other / "config.json")):
        own_file(other / "config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert own_file(other / "config.json")
    (tmp_path / "hub/token").write_text(SECRET)  # beside the repositories
    (other / "token").symlink_to(tmp_path / "hub/token")
    with raises(ContentError, str(other / "token")):
        own_file(other / "token")


def test_a_folder_that_is_itself_a_link_is_fine(adapter: Path) -> None:
    Path("linked").symlink_to(adapter)
    printed, _ = call("export", "linked", "--to", "hub", "--repo", "org/rte", "--dry-run")
    assert "adapter_model.safetensors" in printed


# A folder of sources


@pytest.mark.threat("links", "data check")
@pytest.mark.parametrize("layout", ["file", "folder of a split", "pattern"])
def test_a_source_folder_has_its_own_files_alone(working_folder: Path, secret: Path, layout: str) -> None:
    secret.write_text(ROWS)
    raw = Path("raw")
    raw.mkdir()
    (raw / "a.jsonl").write_text(ROWS)
    source = "raw"
    if layout == "folder of a split":
        (raw / "a.jsonl").unlink()
        home = secret.parent
        (home / "b.jsonl").write_text(ROWS)
        (raw / "train").symlink_to(home)
    else:
        (raw / "b.jsonl").symlink_to(secret)
    if layout == "pattern":
        source = "raw/*.jsonl"
    done = invoke(data, "check", "qa", "--source", source, standalone_mode=False)
    assert isinstance(done.exception, ContentError), done.output
    assert "raw/" in str(done.exception) and str(secret.parent) in str(done.exception)


@pytest.mark.threat("limits", "data check", "data compile", "data init")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["check", "compile", "init"])
def test_a_pipe_among_sources_is_refused_and_not_waited_for(working_folder: Path, command: str) -> None:
    Path("raw").mkdir()
    Path("raw/a.jsonl").write_text(ROWS)
    os.mkfifo("raw/b.jsonl")
    words = ["init", "raw", "--out", "s.yaml"] if command == "init" else [command, "qa", "--source", "raw"]
    done = invoke(data, *words, standalone_mode=False)
    assert isinstance(done.exception, ContentError) and "raw/b.jsonl" in str(done.exception)


@pytest.mark.timeout(60)
def test_json_is_read_from_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    for read in (parse_file, read_object):
        with raises(ContentError, str(tmp_path / "config.json")):
            read(tmp_path / "config.json")


@pytest.mark.threat("limits", "recipe check", "recipe train")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["check", "train"])
def test_a_recipe_that_is_a_pipe_is_refused(working_folder: Path, command: str) -> None:
    os.mkfifo("r.yaml")
    done = invoke(recipe_cli, command, "r.yaml", standalone_mode=False)
    assert isinstance(done.exception, ContentError)
    assert "r.yaml: found a pipe" in done.output + str(done.exception)


@pytest.mark.threat("limits", "data check", "data compile", "data show")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["check", "compile", "show"])
def test_a_spec_that_is_a_pipe_is_refused(working_folder: Path, command: str) -> None:
    os.mkfifo("s.yaml")
    done = invoke(data, command, "s.yaml", standalone_mode=False)
    assert isinstance(done.exception, ContentError) and "s.yaml: found a pipe" in str(done.exception)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_no_file_of_a_folder_is_waited_for(tmp_path: Path, kind: str) -> None:
    """A registry's `file_name`, a model's tokenizer or a log may be one: hashing it never ended."""
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (
        sha256,
        read_records,
        read_end,
        lambda it: list(lines_of(it)),
        lambda it: list(json_items(it)),
    ):
        with raises(ContentError, str(path)):
            read(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [["stats"], ["verify"], ["diff"]])
def test_a_dataset_that_is_a_pipe_is_refused(working_folder: Path, command: list[str]) -> None:
    os.mkfifo("a.json")
    write_json(Path("dataset_info.json"), {"a": {"file_name": "a.json"}})
    words = [*command, "a.json", "a.json"] if command == ["diff"] else [*command, "a", "--dataset-dir", "."]
    done = invoke(data, *words, standalone_mode=False)
    assert isinstance(done.exception, TuneyardError) and "a.json" in str(done.exception)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", ["a.json", "folder/a.json"])
def test_a_recipe_waits_for_no_pipe_among_its_data(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / place)
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": place.partition("/")[0]}})
    with raises(ContentError, str(tmp_path / place)):
        locate("a", str(tmp_path))


# What is written


@pytest.mark.threat("links", "eval compare")
@pytest.mark.parametrize("name", ["report.html", "table.md", "changed.jsonl", "table.json"])
def test_a_comparison_overwrites_nothing_behind_a_link(
    working_folder: Path, secret: Path, without_plots: None, name: str
) -> None:
    lines = [
        {"id": str(n), "gold": "yes", "prediction": "yes", "model": m}
        for n in range(9)
        for m in ("base", "a")
    ]
    Path("log.csv").write_text(
        "id,gold,prediction,model\n" + "".join(",".join(line.values()) + "\n" for line in lines)
    )
    invoke(compare.cli, "log.csv", "--out", "mailed", standalone_mode=False)
    (Path("mailed") / name).unlink()
    (Path("mailed") / name).symlink_to(secret)
    others = {path.name: path.read_bytes() for path in Path("mailed").iterdir()}
    done = invoke(compare.cli, "log.csv", "--out", "mailed", "--force", standalone_mode=False)
    assert isinstance(done.exception, RequestError), done.output
    assert name in str(done.exception)
    assert secret.read_text() == SECRET
    assert {path.name: path.read_bytes() for path in Path("mailed").iterdir()} == others


@pytest.mark.parametrize(
    "write", [write_text, lambda path, text: append_bytes(path, text.encode()), write_atomic]
)
def test_every_write_refuses_a_link(tmp_path: Path, secret: Path, write) -> None:
    (tmp_path / "file").symlink_to(secret)
    with raises(RequestError, str(tmp_path / "file"), str(secret)):
        write(tmp_path / "file", "new")
    assert secret.read_text() == SECRET


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "write",
    [
        write_text,
        lambda path, text: append_bytes(path, text.encode()),
        lambda path, text: write_text(path, text, follows_link=True),
        lambda path, _: refuse_links_in(path.parent),
    ],
)
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_every_write_refuses_a_pipe_or_a_device(tmp_path: Path, write, kind: int) -> None:
    """Appending to a pipe waits for a reader, and a file in place of /dev/null is everybody's trouble."""
    path = tmp_path / "train.log"
    try:
        os.mknod(path, kind | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make devices")
    with raises(RequestError, f"{path}: found a pipe or a device"):
        write(path, "new")
    assert stat.S_IFMT(path.lstat().st_mode) == kind and names(tmp_path) == ["train.log"]


def test_a_link_that_the_user_named_is_followed(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "page.html").symlink_to(secret)
    write_text(tmp_path / "page.html", "new", follows_link=True)
    assert secret.read_text() == "new" and (tmp_path / "page.html").is_symlink()


@pytest.mark.threat("links", "recipe train")
@pytest.mark.parametrize("name", ["train.log", "all_results.json", "README.md", "adapter_config.json"])
def test_a_training_writes_into_no_link(tmp_path: Path, secret: Path, monkeypatch, name: str) -> None:
    """LLaMA-Factory writes into the folder by itself, and follows every link."""
    recipe = read_recipe(write_recipe(tmp_path, bf16=False))
    recipe.output_dir.mkdir()
    (recipe.output_dir / name).symlink_to(secret)
    monkeypatch.setattr("tuneyard.recipes.training.train.require_model", lambda _: None)
    monkeypatch.setattr("tuneyard.recipes.training.train.changed_inputs", lambda *_: "")
    with raises(RequestError, str(recipe.output_dir / name), str(secret)):
        train(TrainRequest(recipe, is_checked=True))
    assert secret.read_text() == SECRET


@pytest.mark.threat(
    "links",
    "eval nli",
    "eval qa",
    "eval text",
    "eval defect",
    "eval dialogue",
    "eval tools",
    "eval preference",
    "eval cmmlu",
    "eval suite",
    "eval sweep",
)
@pytest.mark.parametrize("name", ["base", "base/rte"])
def test_a_scoring_run_writes_into_no_linked_folder(tmp_path: Path, secret: Path, name: str) -> None:
    identity = {"settings": {"command": "eval.nli"}, "models": {"base": "x"}, "datasets": {"rte": "y"}}
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(secret.parent)
    with raises(RequestError, str(link)):
        begin_scoring_run(tmp_path / "out", identity, force=False)


@pytest.mark.threat("links", "recipe sweep")
def test_the_log_of_a_scoring_command_is_no_link(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "score.log").symlink_to(secret)
    with raises(RequestError, str(tmp_path / "score.log")):
        evaluate(tmp_path, "true {results}", has_log=True)
    assert secret.read_text() == SECRET


@pytest.mark.threat("links", "data compile")
def test_a_linked_registry_is_updated_at_its_target_and_named(working_folder: Path) -> None:
    Path("shared").mkdir()
    write_json(Path("shared/info.json"), {"mine": {"file_name": "mine.json"}})
    Path("dataset_info").mkdir()
    Path("dataset_info/dataset_info.json").symlink_to("../shared/info.json")
    Path("a.jsonl").write_text(ROWS)
    done = invoke(data, "compile", "qa", "--source", "a.jsonl")
    assert done.exit_code == 0, done.output
    assert "dataset_info/dataset_info.json: a link; shared/info.json is updated" in done.output
    assert "mine" in read_json(Path("shared/info.json")) and len(read_json(Path("shared/info.json"))) > 1


def test_a_linked_file_that_is_no_registry_is_not_written(working_folder: Path, secret: Path) -> None:
    Path("dataset_info").mkdir()
    Path("dataset_info/dataset_info.json").symlink_to(secret)
    Path("a.jsonl").write_text(ROWS)
    done = invoke(data, "compile", "qa", "--source", "a.jsonl", standalone_mode=False)
    assert isinstance(done.exception, ContentError)
    assert secret.read_text() == SECRET


def test_links_in_a_folder_are_found(tmp_path: Path, secret: Path) -> None:
    refuse_links_in(tmp_path / "missing")
    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")
    refuse_links_in(tmp_path)
    (tmp_path / "b").symlink_to("nowhere")
    with raises(RequestError, str(tmp_path / "b")):
        refuse_links_in(tmp_path)
