"""The commands in this process: what they print, write and refuse, with the exit code each way leads to."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.folders import names
from tests.messages import printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import factors, make
from tuneyard.adapters.merge.request import MergeRequest, merge_request
from tuneyard.adapters.methods import methods
from tuneyard.adapters.model.store import open_adapter

pytestmark = pytest.mark.usefixtures("two_adapters")


def files():
    return sorted(set(names(".")) - {"saves", "base"}), names("saves")


def test_merge_says_what_it_wrote():
    out, notes = call("merge", "rte=0.5", "mnli=0.5", "--out", "saves/half")
    printed_line(out, "rte=0.5", "mnli=0.5", "modules 4", "tensors 8", "rank 16")
    printed_line(out, "Merged exactly", "4 modules", "rank 16")
    assert notes.splitlines() == ["result: saves/half", "next: tuneyard adapter show saves/half"]


def test_dry_run_prints_the_plan_and_writes_nothing():
    out, _ = call("merge", "rte=1", "mnli=1", "--out", "saves/x", "--dry-run")
    printed_line(out, "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight", "12×16", "F32")
    printed_line(out, "--dry-run", "saves/x")
    out, _ = call("fuse", "rte", "--base", "base", "--out", "full", "--dry-run")
    assert "model.safetensors  11 tensors" in out
    assert files() == ([], ["mnli", "rte"])


HUGE = {m: (a * np.float32(1e30), b * np.float32(1e30)) for m, (a, b) in factors(1).items()}
OUT_OF_RANGE = [
    (["merge", "huge=1e15", "mnli=1"], "q_proj: merged B in F32: too large for it: .* NaN or infinite"),
    (["merge", "huge=1", "--dtype", "fp16"], "q_proj: merged A in F16: too large for it"),
    (["merge", "rte=1e-300"], "merged B in F32: too small for it, all of it would become 0"),
    (["fuse", "huge=1", "--base", "base"], r"W \+ ΔW in BF16: .* NaN or infinite"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("words", "message"), OUT_OF_RANGE, ids=str)
def test_what_a_dtype_cannot_hold_is_refused_without_a_line_that_looks_like_success(words, message):
    make("saves/huge", HUGE)
    out, said = call(*words, "--out", "x", code=1)
    assert not out
    assert re.search(message, said)
    assert not Path("x").exists()


def test_a_recipe_is_a_command_line_and_options_override_it(monkeypatch):
    monkeypatch.setenv("HOME", "saves")
    Path("r.yaml").write_text("method: svd\nrank: 3\nadapters: [rte=0.5, mnli=0.5]\nout: ~/r\n")
    assert "rank 3" in call("merge", "r.yaml")[0]
    assert open_adapter("r").config.rank == 3
    assert "rank 4" in call("merge", "r.yaml", "--rank", 4, "--out", "four")[0]
    words = ("merge", "r.yaml", "--out", "other", "--dry-run")
    assert "rank 16 " in call(*words, "--method", "exact")[0]
    assert "rank 3 " in call(*words, "--method", "svd")[0]
    assert "rank 16 " in call(*words, "--energy", "1")[0]
    assert "a recipe names its adapters itself" in call("merge", "r.yaml", "rte=1", code=2)[1]


def test_a_recipe_may_leave_values_open(monkeypatch):
    text = "adapters: [rte=1]\nmethod: mine\nrank: null\nenergy: null\nbase: null\nout: null\n"
    Path("r.yaml").write_text(text)
    taken = {**methods(), "mine": None}
    monkeypatch.setattr("tuneyard.adapters.merge.request.methods", lambda: taken)
    assert merge_request(["r.yaml"], {"out": Path("x")}) == MergeRequest(
        [("rte", 1.0)], Path("x"), method="mine"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/merge").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_of_the_house_merge(path):
    assert path.read_text().startswith("# ")
    assert f"tuneyard adapter merge recipes/merge/{path.name}" in path.read_text()
    out, _ = call("merge", path)
    assert "modules 4" in out


REQUESTS = [
    (["merge", "rte=1", "mnli=1"], "no --out"),
    (["merge", "none.yaml", "--out", "x"], "merge recipe not found"),
    (["merge", "rte=1", "--method", "slurp", "--out", "x"], "'slurp' is not one of"),
    (["merge", "rte", "--out", "x"], "NAME_OR_DIR:WEIGHT, e.g. rte=0.5"),
    (["merge", "rta=1", "--out", "x"], 'did you mean "rte"'),
    (["merge", "rte=1", "--out", "saves/rte", "--force"], "output over an input"),
    (["merge", "rte=1", "--out", ".", "--force"], "output over an input"),
    (["merge", "rte=1", "--base", "base", "--out", "base/sub", "--force"], "output over an input"),
    (["merge", "rte=1", "--out", "saves/mnli"], "already there"),
    (["merge", "rte=1", "--out", "saves/mnli", "--force"], "found a folder without merge.json, expected"),
    (["merge", "rte=1", "--out", "base/config.json/x"], "no folder can be made there"),
    (["fuse", "rte", "--base", "none", "--out", "x"], "base model none: no such folder"),
    (["fuse", "rte", "--base", "org/base", "--out", "x"], "hf download org/base --local-dir models/base"),
    (["fuse", "rte", "--base", "saves", "--out", "x"], "config of a whole model"),
    (["fuse", "rte", "--base", "saves/rte", "--out", "x"], "an adapter, expected a whole model: its base is"),
    (["fuse", "rte", "--base", "base", "--out", "x", "--max-shard-size", "big"], "expected a size"),
    (["show", "a=saves/none"], "'a=saves/none': no such folder"),
    (["show", "base/config.json"], "a file, expected the folder of an adapter"),
    (["show", ""], ".: not an adapter"),
    (["show", "org/rte"], "(under saves/: mnli, rte)"),
    (["serve", "rte", "--host", "localhost:80", "--dry-run"], "give the port with --port"),
    (["fuse", "rte", "--base", "none", "--out", "x"], "rte was trained on "),
    (["merge", "mine=saves/rte", "--out", "x"], "as in saves/rte=0.5"),
]


@pytest.mark.parametrize(("words", "message"), REQUESTS, ids=str)
def test_requests_that_cannot_be_served_change_nothing(words, message):
    before = files()
    assert message in call(*words, code=2)[1]
    assert files() == before


def test_an_adapter_is_given_as_eval_takes_it():
    shown, _ = call("show", "mine=saves/rte")
    assert shown == call("show", "saves/rte")[0] == call("show", "mine=rte")[0]
    call("merge", "mine=saves/rte=0.5", "--out", "x")


def test_force_replaces_what_was_written_and_nothing_else():
    call("merge", "rte=1", "--out", "x")
    old = open_adapter("./x").digest
    call("merge", "mnli=1", "--out", "x", "--force")
    assert open_adapter("./x").digest != old
    Path("x/mine").mkdir()
    assert "will not replace" in call("merge", "rte=1", "--out", "x", "--force", code=2)[1]
    assert "--force" not in call("merge", "rte=1", "--out", "x", code=2)[1]
    call("fuse", "rte", "--base", "base", "--out", "full")
    call("fuse", "mnli", "--base", "base", "--out", "full", "--force")
    assert files() == (["full", "x"], ["mnli", "rte"])


def test_tokenizer_and_template_are_carried_where_the_adapters_agree():
    for name in ("rte", "mnli"):
        Path(f"saves/{name}/tokenizer.json").write_text("{}")
        Path(f"saves/{name}/chat_template.jinja").write_text(name)
    _, notes = call("merge", "rte=1", "mnli=1", "--out", "x")
    printed_line(notes, "not carried", "chat_template.jinja")
    assert Path("x/tokenizer.json").exists()
    assert not Path("x/chat_template.jinja").exists()


def test_target_modules_are_plain_names_where_those_mean_the_same():
    make("saves/regex", factors(1), target_modules=r".*\.(q|v)_proj")
    make("saves/some", {m: f for m, f in factors(1).items() if ".1." in m}, layers_to_transform=[1])
    call("merge", "rte=1", "mnli=1", "--out", "plain")
    call("merge", "rte=1", "regex=1", "--out", "paths")
    call("merge", "some=1", "--out", "layer")
    assert open_adapter("./plain").config.raw["target_modules"] == ["q_proj", "v_proj"]
    assert open_adapter("./paths").config.raw["target_modules"] == sorted(factors())
    assert open_adapter("./layer").config.raw["target_modules"] == sorted(m for m in factors() if ".1." in m)


def test_a_link_in_the_place_of_an_interrupted_fuse_is_not_followed():
    Path("mine").mkdir()
    Path("mine/notes").write_text("kept")
    Path(".full.tuneyard-fusing").symlink_to("mine")
    said = call("fuse", "rte", "--base", "base", "--out", "full", code=2)[1]
    assert "a link" in said
    assert names("mine") == ["notes"]


def test_all_commands_take_the_same_folder():
    make("rte", factors(3))
    digest = open_adapter("./rte").digest
    for words in (["merge", "./rte=1"], ["fuse", "./rte", "--base", "base"]):
        call(*words, "--out", words[0])
        assert digest in Path(words[0], "README.md").read_text()
    assert json.loads(call("show", "./rte", "--json")[0])["adapters"][0]["digest"] == digest
    assert "note: rte means saves/rte" in call("show", "rte")[1]
    said = call("export", "rte", "--to", "hub", "--repo", "a/b", "--dry-run")
    assert open_adapter("saves/rte").weights_sha256 in said[0]
    assert said[1].count("note: rte means") == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"adapters: [rte=0.5\n", "not YAML"),
        (b"adapters: [rte=0.5]\nmethod:ties\nout: x\n", ":2: not YAML: no blank after method:;"),
        (b"- a\n", 'found ["a"], expected a mapping'),
        (b"adapter: [rte=1]\n", "unknown key 'adapter'; did you mean \"adapters\""),
        (b"adapters: {rte: 0.5}\n", "expected a list (NAME_OR_DIR=WEIGHT, for example [rte=0.5, mnli=0.5])"),
        (b"adapters: [rte=1]\nmethod: slurp\n", 'method: found "slurp", expected one of'),
        (b"model_name_or_path: m\n", "r.yaml is a training recipe, expected a merge recipe"),
        (b"adapters: [rte=1]\nrank: 0\n", "rank: found 0, expected 1 or more"),
        (b"adapters: [rte=1]\nrank: 8.0\n", "rank: found 8.0, expected a whole number"),
        (b"adapters: [rte=1]\nenergy: .nan\n", "energy: found NaN, expected a number of at most"),
        (b"adapters: [rte=1]\nout: 3\n", "out: found 3, expected text"),
        (b"adapters: []", "adapters: found [], expected 1 or more items"),
        (b"adapters: [rte=1]\nadapters: [mnli=1]\n", "r.yaml:2: duplicate key 'adapters'"),
        (b'adapters: [rte=1]\nout: "x\\0y"', "take it out"),
    ],
)
def test_broken_recipes_are_refused(content, reason):
    Path("r.yaml").write_bytes(content)
    assert reason in call("merge", "r.yaml", "--out", "o", code=1)[1]
