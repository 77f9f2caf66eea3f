"""The commands in this process: what they print, write and refuse, with the exit code each way leads to."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed, printed_line
from tests.unit.adapters.make import base_tensors, dense, factors, make, make_base
from tuneyard.adapters.__main__ import cli
from tuneyard.adapters.merge import MergeRequest, merge_request
from tuneyard.adapters.methods import methods
from tuneyard.adapters.store import open_adapter
from tuneyard.core.errors import TuneyardError


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """Run in an empty folder with two adapters under saves/ and a base."""
    monkeypatch.chdir(tmp_path)
    make("saves/rte", factors(1))
    make("saves/mnli", factors(2))
    make_base("base", base_tensors())


def call(*words, code=0):
    """Run a command, check the exit code that `run` would give; return (stdout, stderr and message)."""
    result = invoke(cli, *words, standalone_mode=False)
    error = result.exception
    if error is None:
        found = 0
    elif isinstance(error, TuneyardError):
        found = error.exit_code
    elif isinstance(error, OSError) or type(error).__module__.startswith("click"):
        found = 2
    else:
        raise error
    assert found == code, f"{error}\n{result.output}"
    return result.stdout, f"{result.stderr}{error or ''}"


def files():
    return sorted(set(names(".")) - {"saves", "base"}), names("saves")


def test_merge_says_what_it_wrote():
    out, notes = call("merge", "rte=0.5", "mnli=0.5", "--out", "saves/half")
    printed_line(out, "rte=0.5", "mnli=0.5", "modules 4", "tensors 8", "rank 16")
    printed_line(out, "Merged exactly", "4 modules", "rank 16")
    assert notes.splitlines() == ["result: saves/half", "next: tuneyard adapter show saves/half"]


HOW = [["--method=svd", "--rank=5"], ["--method=svd", "--energy=0.9", "--dtype=fp16"], ["--dtype=bf16"]]


@pytest.mark.parametrize("how", HOW, ids=" ".join)
def test_the_recipe_in_the_card_makes_the_merge_again(how):
    odd = "else where/#1: $x_{$/checkpoint-5"
    make(odd, factors(3))
    call("merge", "rte=0.3", f"{odd}=-0.7", *how, "--out", "x")
    card = Path("x/README.md").read_text()
    printed_line(card, "rte (0.3)", "#1: $x_{$-checkpoint-5 (-0.7)")
    for name in ("rte", odd):
        assert open_adapter(name).digest in card
    assert "base_model: org/base" in card
    assert "numpy" in card
    block = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1]
    Path("again.yaml").write_text(block)
    call("merge", "again.yaml", "--out", "y")
    for file in ("adapter_model.safetensors", "adapter_config.json", "README.md", "merge.json"):
        assert Path(f"x/{file}").read_bytes() == Path(f"y/{file}").read_bytes()


def test_names_in_the_card_are_no_yaml_of_their_own():
    make("saves/odd", factors(1), base_model_name_or_path="x\nlicense: mit")
    call("merge", "odd=1", "--out", "x")
    front = Path("x/README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front) == {
        "base_model": "x\nlicense: mit", "library_name": "peft", "tags": ["lora", "merge"],
    }  # fmt: skip
    make("saves/red", factors(1), base_model_name_or_path="\x1b[31mred\n")
    assert call("show", "red")[0].splitlines()[0].startswith('red  base "\\u001b[31mred\\n"  ')


def test_dry_run_prints_the_plan_and_writes_nothing():
    out, _ = call("merge", "rte=1", "mnli=1", "--out", "saves/x", "--dry-run")
    printed_line(out, "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight", "12×16", "F32")
    printed_line(out, "--dry-run", "saves/x")
    out, _ = call("fuse", "rte", "--base", "base", "--out", "full", "--dry-run")
    assert "model.safetensors  11 tensors" in out
    assert files() == ([], ["mnli", "rte"])


def test_bases_are_not_checked_where_one_of_several_names_none():
    make("saves/unnamed", factors(3), base_model_name_or_path=None)
    assert "not checked: unnamed names no base" in call("merge", "unnamed=1", "rte=1", "--out", "x")[1]
    assert "not checked" not in call("merge", "unnamed=1", "--out", "y")[1]


def test_an_adapter_given_twice_is_said():
    _, notes = call("merge", "rte=0.5", "saves/../saves/rte=-0.2", "mnli=1", "--out", "x", "--dry-run")
    printed_line(notes, "rte", "2 times", "0.3")


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


def test_a_recipe_is_a_command_line_and_options_override_it():
    Path("r.yaml").write_text("method: svd\nrank: 3\nadapters: [rte=0.5, mnli=0.5]\nout: saves/r\n")
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
    monkeypatch.setattr("tuneyard.adapters.merge.methods", lambda: taken)
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
    (["fuse", "rte", "--base", "none", "--out", "x"], "none: base model folder not found"),
    (["fuse", "rte", "--base", "saves", "--out", "x"], "config of a whole model"),
    (["fuse", "rte", "--base", "saves/rte", "--out", "x"], "an adapter, expected a whole model; its base is"),
    (["fuse", "rte", "--base", "base", "--out", "x", "--max-shard-size", "big"], "expected a size"),
    (["show", "none"], "no such folder"),
    (["show", "a=saves/none"], "'a=saves/none': no such folder"),
    (["merge", "mine=saves/rte", "--out", "x"], "as in saves/rte=0.5"),
]


@pytest.mark.parametrize(("words", "message"), REQUESTS, ids=str)
def test_requests_that_cannot_be_served_change_nothing(words, message):
    before = files()
    assert message in call(*words, code=2)[1]
    assert files() == before


def test_an_adapter_is_given_as_eval_takes_it():
    shown, _ = call("show", "mine=saves/rte")
    assert shown == call("show", "saves/rte")[0]
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


# What an adapter names as its base, used on the folder base: what the refusal says, "" for none.
BASES = {
    None: "",
    "org/base": "",
    "base": "",
    "same": "",
    "resharded": "trained on resharded, whose weights are not those of base",
    "wide": "trained on wide, whose weights are not those of base",
    "narrow": "trained on narrow, whose weights are not those of base",
    "unsloth/Base-bnb-4bit": "",
    "unsloth/base-unsloth-bnb-4bit": "",
    "org/chat": "not on base. org/chat is not a folder on this machine",
    "unsloth/chat-bnb-4bit": "not on base. unsloth/chat-bnb-4bit is not a folder on this machine",
    "other": "trained on other, whose weights are not those of base",
    "nearly": "trained on nearly, whose weights are not those of base",
    "elsewhere/base": "trained on elsewhere/base, whose weights are not those of base",
}


@pytest.mark.parametrize("command", ["merge", "fuse"])
def test_an_adapter_of_another_base_is_refused_alike(command):
    last = base_tensors()
    last["model.layers.1.norm.weight"][-1] += 1
    make_base("nearly", last)
    for folder in ("other", "elsewhere/base"):
        make_base(folder, base_tensors(seed=1))
    make_base("same", base_tensors())
    make_base("resharded", base_tensors(), shards=3)
    make_base("wide", base_tensors(), "F32")
    make_base("narrow", base_tensors(), "F16")
    words = [command, "a=1", "--base", "base", "--out", "x", "--dry-run"]
    for named, refused in BASES.items():
        make("saves/a", factors(1), base_model_name_or_path=named)
        assert refused in call(*words, code=int(bool(refused)))[1], named
        call(*words, "--same-base")


def test_the_hash_in_run_json_decides_where_the_named_base_is_not_here():
    make_base("models/one", base_tensors())
    make_base("models/two", base_tensors(seed=1))
    lines = (
        f"{p.name}\0{hashlib.sha256(p.read_bytes()).hexdigest()}\n"
        for p in sorted(Path("models/one").iterdir())
    )
    trained = {"name": "gone/two", "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}
    make("saves/a/checkpoint-5", factors(1), base_model_name_or_path="gone/two")
    words = ["fuse", "saves/a/checkpoint-5", "--out", "x", "--dry-run", "--base"]
    assert "could not be checked, only its name" in call(*words, "models/two")[1]
    write_json(Path("saves/a/training.json"), {"inputs": {"model": trained}})
    assert "checked" not in call(*words, "models/one")[1]
    assert f"another hash ({trained['sha256'][:16]}…" in call(*words, "models/two", code=1)[1]
    call(*words, "models/two", "--same-base")


def test_a_base_in_the_hub_s_cache_has_the_name_of_its_repository():
    cached = "hub/models--org--base/snapshots/0123abcd"
    make_base(cached, base_tensors())
    call("fuse", "rte", "--base", cached, "--out", "x", "--dry-run")
    make("saves/a", factors(1), base_model_name_or_path="org/chat")
    call("fuse", "a", "--base", cached, "--out", "x", "--dry-run", code=1)


def test_a_base_decides_where_adapters_name_it_differently():
    make("saves/quantised", factors(2), base_model_name_or_path="unsloth/base-bnb-4bit")
    words = ["merge", "rte=0.5", "quantised=0.5", "--out", "x"]
    printed(call(*words, code=1)[1], "rte", "org/base", "quantised", "unsloth/base-bnb-4bit", "--base DIR")
    call(*words, "--base", "base")
    assert open_adapter("./x").config.base == "base"
    assert "base_model: base\n" in Path("x/README.md").read_text()
    Path("again.yaml").write_text(
        re.search(r"```yaml\n(.*?)```", Path("x/README.md").read_text(), re.DOTALL)[1]
    )
    call("merge", "again.yaml", "--out", "y")
    call("fuse", "rte=0.5", "quantised=0.5", "--base", "base", "--out", "full")


def test_modules_to_save_that_clash_or_do_not_fit():
    shape = (50, 24)
    make_base("full/base", {**base_tensors(), "lm_head.weight": np.ones(shape, np.float32)}, "F32")
    head = {"base_model.model.lm_head.weight": np.ones((40, 24), np.float32)}
    make("saves/a", factors(1), extra=head, modules_to_save=["lm_head"])
    assert (
        "a: lm_head.weight: saved with shape [40, 24], full/base has [50, 24]"
        in call("merge", "a=1", "--base", "full/base", "--out", "x", code=1)[1]
    )
    fine = {"base_model.model.lm_head.weight": np.ones(shape, np.float32)}
    make("saves/b", factors(1), extra=fine, modules_to_save=["lm_head"])
    pair = {"lm_head": (np.ones((8, 24), np.float32), np.ones((50, 8), np.float32))}
    make("saves/c", {**factors(2), **pair}, target_modules=["q_proj", "v_proj", "lm_head"])
    words = call("merge", "b=1", "c=1", "--base", "full/base", "--out", "x", code=1)[1]
    printed(words, "lm_head", "c", "b")
    words = call("merge", "b=1", "--base", "base", "--out", "x", code=1)[1]
    printed(words, "b: lm_head.weight", "base")


def test_a_bias_trained_with_the_base_is_merged_like_other_full_tensors():
    extra = {
        "base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias": np.full(24, 3, np.float32),
        "base_model.model.model.layers.1.self_attn.q_proj.base_layer.bias": np.full(24, 3, np.float32),
    }
    make("saves/a", factors(1), extra=extra, bias="all")
    make_base("full/base", {k: v * 0 + 1 for k, v in base_tensors().items()}, "F32")
    assert "bias" in call("merge", "a=0.5", "--out", "x", code=2)[1]
    call("merge", "a=0.5", "mnli=1", "--base", "full/base", "--out", "x")
    result = open_adapter("./x")
    assert result.config.raw["bias"] == "all"
    assert (result.full_tensor("model.layers.0.self_attn.q_proj.base_layer.bias") == 2).all()


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


def test_show_prints_the_document_s_figures():
    shapes = {"q_proj": (2048, 2048), "v_proj": (256, 2048)}
    make("saves/doc", factors(1, layers=36, shapes=shapes))
    out, _ = call("show", "doc")
    printed_line(out, "72 modules", "144 tensors", "1,843,200 parameters")
    assert "(7.1 MiB)" in out
    row = printed_line(out, "q_proj", "1,179,648").replace("|", " ").split()
    assert row[:7] == ["q_proj", "36", "8", "2", "8×2048", "2048×8", "1,179,648"]


def test_show_says_how_an_adapter_was_configured():
    make("saves/doc", factors(1), lora_dropout=0.05)
    out, _ = call("show", "doc")
    assert "doc  base org/base  F32" in out
    said = "config: type LORA, task CAUSAL_LM, rank 8, alpha 16, dropout 0.05, bias none, "
    assert f"{said}target modules q_proj v_proj\n\n" in out  # and no tensor is saved in full
    found = json.loads(call("show", "doc", "--json")[0])["adapters"][0]
    assert found["config"] == read_json(Path("saves/doc/adapter_config.json"))
    make("saves/doc", factors(1), lora_dropout=None, target_modules=[*factors(1)])
    printed_line(call("show", "doc")[0], "dropout not given", "target modules q, v of layers 0–1")


def test_show_writes_a_config_as_json_however_deep_it_is():
    path = make("saves/deep") / "adapter_config.json"
    path.write_text(path.read_text().replace("{", f'{{"corda_config": {"[" * 600}{"]" * 600},', 1))
    assert call("show", "deep", "--json")[0].count("[") > 600


def test_show_measures_by_definition():
    out = json.loads(call("show", "rte", "mnli", "--json")[0])
    one, other = dense(factors(1)), dense(factors(2))
    for found in out["adapters"][0]["modules"]:
        values = np.linalg.svd(one[found["path"]], compute_uv=False)[:8]
        np.testing.assert_allclose(found["singular_values"], values, rtol=1e-6)
        assert found["norm"] == pytest.approx(np.linalg.norm(values))
        shares = values / values.sum()
        assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    flat = [np.concatenate([d[m].ravel() for m in one]) for d in (one, other)]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert out["cosine"][0][1] == out["cosine"][1][0] == pytest.approx(cosine)
    assert out["cosine"][0][0] == pytest.approx(1)
    counts = {(h["target"], h["side"]): sum(h["counts"]) for h in out["adapters"][0]["histograms"]}
    assert counts == {("q_proj", "A"): 384, ("q_proj", "B"): 384, ("v_proj", "A"): 384, ("v_proj", "B"): 192}


@pytest.mark.slow
def test_show_draws_pictures():
    call("show", "rte", "mnli", "--plot", "pictures")
    assert names("pictures") == [
        "cosine.png", "norms.png", "spectrum.png", "values-mnli.png", "values-rte.png",
    ]  # fmt: skip
    assert all(Path(f"pictures/{p}").read_bytes()[:4] == b"\x89PNG" for p in names("pictures"))


def test_show_compares_adapters_that_nothing_else_would_take_together():
    make(
        "saves/wide",
        factors(1, shapes={"q_proj": (30, 24), "v_proj": (12, 24)}),
        base_model_name_or_path="x/y",
    )
    make("saves/other", {"lm_head": (np.ones((8, 24)), np.ones((50, 8)))}, target_modules=["lm_head"])
    out, _ = call("show", "rte", "wide", "other")
    last = [line.replace("|", " ").split() for line in out.splitlines()[-3:]]
    assert last[0] == ["rte", "1", "–", "0"]


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


# 440 bytes that mean 9^10 texts: a reader that builds them never comes back
ALIASES = b"adapters:\n" + b"".join(
    b"  - &%c [%s]\n" % (97 + i, b", ".join([b"*%c" % (96 + i) if i else b"x"] * 9)) for i in range(10)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"adapters: [rte=0.5\n", "not YAML"),
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
        (b"\xff\xfe", "r.yaml: not UTF-8 at byte 0"),
        (b"adapters: [rte=1]\nout: 2026-13-45\nmethod: slurp", "method"),
        (b"adapters: [rte=1]\n? [a, b]\n: 1\n", "r.yaml:2: a key that YAML does not read as text"),
        (b"adapters: " + b"[" * 5000, "r.yaml: more than 100 lists and mappings in one another"),
        (b"adapters: [rte=1]\nadapters: [mnli=1]\n", "r.yaml:2: duplicate key 'adapters'"),
        (ALIASES, "r.yaml: its aliases make more than 100,000 values of it"),
        (b'adapters: [rte=1]\nout: "x\\0y"', "expected the folder to write"),
    ],
)
def test_broken_recipes_are_refused(content, reason):
    Path("r.yaml").write_bytes(content)
    assert reason in call("merge", "r.yaml", "--out", "o", code=1)[1]
