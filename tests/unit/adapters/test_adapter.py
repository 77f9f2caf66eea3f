"""Adapters of the kind LoRA: what fits is read as PEFT means it, the rest is refused with its reason."""

import pytest

from tests.messages import raises
from tests.unit.adapters.make import PREFIX, factors, make
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.errors import ContentError, RequestError

Q0 = "model.layers.0.self_attn.q_proj"
A0, B0 = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"


def test_layers_come_in_the_order_of_their_numbers(tmp_path):
    layers = [int(m.split(".")[2]) for m in open_adapter(make(tmp_path / "a", factors(layers=12))).modules]
    assert layers == sorted(layers)


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
    ({"use_something_new": True}, "use_something_new"),
    ({"r": 8.0}, "8.0"),
    (
        {"r": True, "lora_alpha": "16", "alpha_pattern": {"q_proj": 0}},
        "r true; 16; lora_alpha; alpha_pattern q_proj 0",
    ),
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
    ({"r": 4}, "8; adapter_config.json; 4; train again"),
    ({"lora_alpha": 1e160}, "lora_alpha"),
    ({"rank_pattern": {"(?i)q_proj": 8}}, "rank_pattern"),
    ({"layers_to_transform": [0, 1], "layers_pattern": ["("]}, "layers_pattern"),
    ({"use_rslora": "false"}, "use_rslora"),
]


@pytest.mark.parametrize(("fields", "facts"), REFUSED_FIELDS, ids=str)
def test_configs_that_mean_something_else_are_refused(tmp_path, fields, facts):
    folder = make(tmp_path / "a", **fields)
    with raises(ContentError, facts) as raised:
        open_adapter(folder)
    assert str(folder) in str(raised.value)


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
    (lambda t: t.update({A0: t[A0][:0], B0: t[B0][:, :0]}), "is empty"),
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
    monkeypatch.setattr("tuneyard.core.errors.TIME_LIMIT", 0.1)
    with raises(ContentError, "0.1"):
        open_adapter(make(tmp_path / "a", **fields))
