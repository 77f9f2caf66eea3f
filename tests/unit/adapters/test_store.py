"""Opening adapters: what fits is read as PEFT means it, what does not is refused by name and reason."""

import json
import shutil
from pathlib import Path

import pytest

from tests.messages import printed, raises
from tests.unit.adapters.make import CONFIG, PREFIX, factors, make
from tuneyard.adapters.fuse import parse_size
from tuneyard.adapters.store import open_adapter, open_any
from tuneyard.adapters.weighted import (
    check_inputs,
    check_together,
    open_weighted,
    parse_optional_weight,
    parse_reference_weight,
)
from tuneyard.core.errors import ContentError, RequestError

Q0 = "model.layers.0.self_attn.q_proj"
A0, B0 = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"


def test_layers_come_in_the_order_of_their_numbers(tmp_path):
    layers = [int(m.split(".")[2]) for m in open_adapter(make(tmp_path / "a", factors(layers=12))).modules]
    assert layers == sorted(layers)


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


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [
        ({"proj": 4}, 2),  # names match whole parts only, as in PEFT
        ({r"layers\.0\..*": 4, "q_proj": 1}, 0.5),  # the first that fits
    ],
)
def test_the_pattern_that_gives_a_module_its_scale(tmp_path, pattern, scale):
    assert open_adapter(make(tmp_path / "a", alpha_pattern=pattern)).config.scale_of(Q0) == scale


REFUSED_FIELDS = [
    ({"peft_type": "LOHA"}, "LOHA; peft_type; LoRA"),
    ({"use_dora": True}, "use_dora true; DoRA"),
    ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
    ({"init_lora_weights": "olora"}, "changed base"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights"),
    ({"init_lora_weights": "new_idea"}, "an unknown start"),
    ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
    ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters; merge_and_unload"),
    ({"lora_bias": True}, "B·A"),
    ({"use_something_new": True}, "use_something_new"),
    ({"r": 0}, "0"),
    ({"r": 8.0}, "8.0"),
    ({"lora_alpha": "16"}, "16; lora_alpha"),
    ({"alpha_pattern": {"q_proj": 0}}, "alpha_pattern q_proj 0"),
    ({"alpha_pattern": {"q_(": 1}}, "alpha_pattern"),
    ({"rank_pattern": {"q_proj": -1}}, "rank_pattern q_proj -1"),
    ({"rank_pattern": [1]}, "rank_pattern [1]"),
    ({"target_modules": "q_(proj"}, "target_modules"),
    ({"target_modules": 3}, "target_modules 3"),
    ({"base_model_name_or_path": 3}, "base_model_name_or_path 3"),
    ({"bias": "some"}, "some"),
    ({"bias": "lora_only"}, "bias"),
    ({"modules_to_save": ["lm_head"]}, "lm_head; modules_to_save"),
    ({"target_modules": ["q_proj"]}, "v_proj; adapter_config.json"),
    ({"target_modules": r".*\.0\..*"}, "layers.1.self_attn.q_proj"),
    ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "k_proj"),
    ({"exclude_modules": ["v_proj"]}, "v_proj"),
    ({"layers_to_transform": 0}, "layers.1.self_attn.q_proj"),
    ({"r": 4}, "8; adapter_config.json; 4"),
    ({"lora_alpha": 1e160}, "lora_alpha"),
    ({"rank_pattern": {"(?i)q_proj": 8}}, "rank_pattern"),
    ({"layers_to_transform": [0, 1], "layers_pattern": ["("]}, "layers_pattern"),
    ({"modules_to_save": ["lm_head("]}, "modules_to_save"),
    ({"use_rslora": "false"}, "use_rslora"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "facts"), REFUSED_FIELDS, ids=str)
def test_configs_that_mean_something_else_are_refused(tmp_path, fields, facts):
    folder = make(tmp_path / "a", **fields)
    with raises(ContentError, facts) as raised:
        open_adapter(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("name", ["", "checkpoint-4", "pissa_init", "pissa_backup"])
def test_an_adapter_that_began_as_pissa_names_its_conversion(tmp_path, name):
    start = True if name.startswith("pissa") else "pissa_niter_16"
    folder = make(tmp_path / "run" / name, init_lora_weights=start)
    with raises(ContentError, "pissa_convert: true"):
        open_adapter(folder)
    assert open_adapter(make(tmp_path / "run" / "pissa_converted")).modules
    with raises(ContentError, f"use {tmp_path}/run/pissa_converted"):
        open_any(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"model\.layers\.\d+\.self_attn\.[qv]_proj"},
        {"target_modules": sorted(factors())},
        {"target_modules": "all-linear"},
        {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"exclude_modules": ["k_proj"]},
        *({"init_lora_weights": start} for start in (True, False, None, "gaussian", "eva", "orthogonal")),
    ],
)
def test_other_ways_to_name_targets_and_starts_that_leave_the_base_alone_are_understood(tmp_path, fields):
    assert len(open_adapter(make(tmp_path / "a", **fields)).modules) == 4


def broken(tmp_path, change):
    """Make an adapter, let `change` act on {tensor: values}, and return its folder."""
    from tests.unit.adapters.make import tensors_of, write_file

    folder = make(tmp_path / "a")
    tensors = tensors_of(factors())
    change(tensors)
    write_file(folder / "adapter_model.safetensors", tensors)
    return folder


def rename(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


BROKEN_TENSORS = [
    (lambda t: t.pop(B0), "its B is missing"),
    (lambda t: t.pop(A0), "its A is missing"),
    (lambda t: [t.pop(k) for k in list(t)], "no LoRA factors"),
    (lambda t: t.update({A0: t[A0][:4]}), ""),
    (lambda t: t.update({A0: t[A0][:0], B0: t[B0][:, :0]}), "are empty"),
    (lambda t: t.update({A0: t[A0][..., None]}), ""),
    (lambda t: t.update({"extra.weight": t[A0]}), "base_model.model"),
    (lambda t: t.update({f"{PREFIX}lm_tail.weight": t[A0]}), ""),
    (lambda t: t.update({f"{PREFIX}{Q0}.lora_magnitude_vector": t[A0][0]}), ""),
    (lambda t: t.update({f"{PREFIX}{Q0}.lora_B.bias": t[A0][0]}), ""),
    (
        lambda t: [rename(k, k.removeprefix("base_model."))(t) for k in list(t)],
        "",
    ),
    (lambda t: [rename(k, k.replace("lora_A", "lora_A.default"))(t) for k in list(t)], ""),
]


@pytest.mark.parametrize(("change", "facts"), BROKEN_TENSORS)
def test_files_that_the_config_does_not_explain_are_refused(tmp_path, change, facts):
    with raises(ContentError, facts):
        open_adapter(broken(tmp_path, change))


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
    with raises(ContentError, "adapter_config.json", "adapter_model.safetensors"):
        open_adapter(folder)
    folder = make(tmp_path / "torn")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG)[:-5])
    with raises(ContentError, "JSON"):
        open_adapter(folder)


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


def test_parts_are_parsed(tmp_path):
    assert parse_reference_weight("a=b=-0.5") == ("a=b", -0.5)
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
    assert parse_size("1.5gb") == 1_500_000_000
    for text in ("5", "GB", "-1GB", "5 TB", "0.0001KB", "1" * 400 + "GB"):
        with raises(RequestError):
            parse_size(text)


def test_weights_that_leave_nothing(tmp_path):
    make(tmp_path / "a")
    with raises(RequestError, "0"):
        open_weighted([(tmp_path / "a", 0)], open_adapter)
    with raises(RequestError):
        open_weighted([], open_adapter)


def test_opening_reads_no_pickle_and_follows_no_name_out_of_the_folder(tmp_path):
    folder = make(tmp_path / "a")
    shutil.copy(folder / "adapter_model.safetensors", folder / "adapter_model.bin")
    assert open_adapter(folder).weights.path.suffix == ".safetensors"


def test_names_that_no_file_can_hold_are_refused(tmp_path):
    folder = make(tmp_path / "a", target_modules=".*")
    path = folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"layers.1.self_attn.q_", rb"layers.1.sel\ud800.q_"))
    with raises(ContentError):
        open_adapter(folder)
    with raises(ContentError, "half a character"):
        open_adapter(make(tmp_path / "b", task_type="\ud800"))
    with raises(RequestError, "UTF-8"):
        open_adapter("saves/a\udcff")


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


FOR_EVER = "(.*.*)*.*.*.*.*.*.*.*x"


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": FOR_EVER},
        {"exclude_modules": FOR_EVER},
        {"alpha_pattern": {FOR_EVER: 3}},
        {"rank_pattern": {FOR_EVER: 3}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_an_expression_that_would_take_for_ever_is_stopped(tmp_path, monkeypatch, fields):
    monkeypatch.setattr("tuneyard.core.execution.time_limit.SECONDS", 0.1)
    with raises(ContentError, "0.1"):
        open_adapter(make(tmp_path / "a", **fields))


def test_eval_adds_only_adapters_that_belong_together(tmp_path):
    from types import SimpleNamespace

    from tuneyard.eval.scoring.candidates import open_adapters

    one, other = make(tmp_path / "x"), make(tmp_path / "y", revision="v2")
    request = SimpleNamespace(model="base", no_base=False, adapters=[f"half={one}:0.5+{other}:0.5"])
    with raises(ContentError, "main", "v2"):
        open_adapters(request)
