"""Adapters with their weights: as they are written, and only those that can be added."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.json_files import write_json
from tests.messages import printed, printed_line, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import (
    check_inputs,
    check_together,
    open_weighted,
    parse_named,
    parse_optional_weight,
    parse_reference_weight,
)
from tuneyard.core.errors import ContentError, RequestError


def pair(tmp_path, one, other):
    """Open two adapters together: keywords of `make` for each."""
    folders = [make(tmp_path / name, **fields) for name, fields in (("x", one), ("y", other))]
    parts = open_weighted([(folder, 0.5) for folder in folders], open_adapter)
    check_inputs(parts, None, same_base=False)
    return parts


NARROW = {"q_proj": (24, 24), "v_proj": (6, 24)}
DIFFERENT = [
    ({"base_model_name_or_path": "org/other"}, "x; org/base; y; org/other"),
    ({"revision": "v2"}, "x; main; y; v2"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"pairs": factors(shapes=NARROW)}, "v_proj; linear 12×24 in x; linear 6×24 in y"),
    ({"pairs": factors(layers=3)}, "layers.2.self_attn.q_proj; y"),
    ({"pairs": factors(layers=1)}, "layers.1.self_attn.q_proj; x"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "facts"), DIFFERENT, ids=str)
def test_adapters_of_different_bases_are_refused(tmp_path, fields, facts):
    with raises(ContentError, facts):
        pair(tmp_path, {}, fields)


def test_a_base_may_be_named_by_two_paths_to_one_folder(tmp_path):
    (tmp_path / "base").mkdir()
    names = [str(tmp_path / "base"), f"{tmp_path}/x/../base/"]
    (tmp_path / "x").mkdir()
    assert pair(tmp_path, *({"base_model_name_or_path": name} for name in names))


@pytest.mark.parametrize("text", ["rte", "=0.5", "rte=", "rte=half", "rte=nan", "rte=1e160", ""])
def test_parts_that_are_no_name_with_a_weight(text):
    with raises(RequestError):
        parse_reference_weight(text)


def test_parts_are_parsed(tmp_path, capsys):
    assert parse_reference_weight("a=b=-0.5") == ("a=b", -0.5)
    assert parse_reference_weight("rte=9") == ("rte", 9.0) and not capsys.readouterr().err
    assert parse_reference_weight("rte=50") == ("rte", 50.0) and "50 % is 0.5" in capsys.readouterr().err
    assert parse_optional_weight("rte") == ("rte", 1.0)
    assert parse_optional_weight("rte=2") == ("rte", 2.0)
    assert parse_reference_weight("rte:0.5") == parse_optional_weight("rte:0.5") == ("rte", 0.5)
    assert parse_reference_weight("a:b=0.5") == ("a:b", 0.5)
    assert parse_reference_weight("lr=1e-4:-2") == ("lr=1e-4", -2.0)
    with raises(RequestError, "rte", "e.g", "rte=0.5"):
        parse_reference_weight("rte")
    (tmp_path / "lr=1e-4").mkdir()
    assert parse_optional_weight(str(tmp_path / "lr=1e-4")) == (str(tmp_path / "lr=1e-4"), 1.0)
    assert parse_optional_weight(f"r={tmp_path}") == (f"r={tmp_path}", 1.0)
    with raises(RequestError, "both=a:0.5+b:0.5"):
        parse_named("a+b")
    assert parse_named("both=a:0.5+s/b:1") == ("both", [("a", 0.5), ("s/b", 1.0)])
    assert parse_named("a:0.5+s/b=-1") == ("a:0.5+b=-1", [("a", 0.5), ("s/b", -1.0)])


def test_weights_that_leave_nothing(tmp_path):
    folder = make(tmp_path / "a")
    for references in ([(folder, 0)], [(folder, 0.5), (folder, -0.5)], []):
        with raises(RequestError):
            open_weighted(references, open_adapter)


def test_every_two_adapters_are_compared_and_not_each_with_the_first(tmp_path):
    bases = {"unnamed": None, "one": "org/one", "two": "org/two"}
    for name, base in bases.items():
        make(tmp_path / name, base_model_name_or_path=base)
    with raises(ContentError, "org/one", "org/two"):
        opened = open_weighted([(tmp_path / name, 1.0) for name in bases], open_adapter)
        check_inputs(opened, None, same_base=False)
    small = factors(shapes={"k_proj": (6, 24)}), factors(shapes={"k_proj": (12, 24)})
    for name, pairs in zip("ab", small, strict=True):
        make(tmp_path / name, pairs, base_model_name_or_path=None, target_modules=["k_proj"])
    with raises(ContentError, "k_proj", "6×24", "12×24"):
        references = [(str(tmp_path / name), 1.0) for name in ("one", "a", "b")]
        check_together(open_weighted(references, open_adapter))


def test_eval_adds_only_adapters_that_belong_together(tmp_path):
    from types import SimpleNamespace

    from tuneyard.eval.scoring.candidates import open_adapters

    one, other = make(tmp_path / "x"), make(tmp_path / "y", revision="v2")
    request = SimpleNamespace(model="base", no_base=False, adapters=[f"half={one}:0.5+{other}:0.5"])
    with raises(ContentError, "main", "v2"):
        open_adapters(request)


@pytest.mark.usefixtures("two_adapters")
def test_bases_are_not_checked_where_one_of_several_names_none():
    make("saves/unnamed", factors(3), base_model_name_or_path=None)
    assert "not checked: unnamed names no base" in call("merge", "unnamed=1", "rte=1", "--out", "x")[1]
    assert "not checked" not in call("merge", "unnamed=1", "--out", "y")[1]


@pytest.mark.usefixtures("two_adapters")
def test_an_adapter_given_twice_is_said():
    _, notes = call("merge", "rte=0.5", "saves/../saves/rte=-0.2", "mnli=1", "--out", "x", "--dry-run")
    printed_line(notes, "rte", "2 times", "0.3")


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


@pytest.mark.usefixtures("two_adapters")
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


@pytest.mark.usefixtures("two_adapters")
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


@pytest.mark.usefixtures("two_adapters")
def test_a_base_in_the_hub_s_cache_has_the_name_of_its_repository():
    cached = "hub/models--org--base/snapshots/0123abcd"
    make_base(cached, base_tensors())
    call("fuse", "rte", "--base", cached, "--out", "x", "--dry-run")
    make("saves/a", factors(1), base_model_name_or_path="org/chat")
    call("fuse", "a", "--base", cached, "--out", "x", "--dry-run", code=1)


@pytest.mark.usefixtures("two_adapters")
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
