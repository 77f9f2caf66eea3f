"""PEFT as it is: adapters as it saves them, its own ΔW, its own merges.

PEFT is imported where it is used, since every worker collects the files that import this one.
"""

import copy

import torch

from tuneyard.adapters.fuse.fuse import FuseRequest, plan_fusing, write_model
from tuneyard.adapters.merge.merge import MergeRequest, plan_merging, write_merge

IDS = torch.arange(60).reshape(3, 20)
"""Token ids of three texts, of which models are asked."""
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""All linear modules of a layer."""


def save_adapter(base, model, folder, *, seed=1, config="LoraConfig", **fields):
    """Write an adapter of a model with random factors; `fields` are those of `config`, a class of PEFT."""
    import peft

    fields = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **fields}
    if config == "LoraConfig":
        fields = {"r": 4, "lora_alpha": 8, **fields}
    tuned = peft.get_peft_model(copy.deepcopy(base), getattr(peft, config)(**fields))
    tuned.peft_config["default"].base_model_name_or_path = str(model)
    torch.manual_seed(seed)
    for key, parameter in tuned.named_parameters():
        if parameter.requires_grad and "default" in key:
            parameter.data += torch.randn_like(parameter) * 0.1
    tuned.save_pretrained(folder, save_embedding_layers="auto")
    return folder


def ours(wanted, out, **how):
    fields = {name: how.pop(name) for name in ("method", "dtype", "base", "same_base") if name in how}
    plan = plan_merging(MergeRequest(list(wanted), out, parameters=how, **fields))
    write_merge(plan, lambda _: None, [])
    return out


def fused(wanted, folder, out, **options):
    """The model that our fuse writes, and how much of ΔW it retains."""
    from transformers import AutoModelForCausalLM

    retained = write_model(plan_fusing(FuseRequest(list(wanted), folder, out, **options)), lambda _: None, [])
    return AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval(), retained


def load(base, folder, **others):
    """Load adapters with PEFT: the first as default, others by name."""
    import peft

    model = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
    for name, other in others.items():
        model.load_adapter(other, name)
    return model.eval()


def deltas(model, name="default"):
    """{module: ΔW} as PEFT computes it for one adapter."""
    import peft

    found = {}
    for path, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and name in (
            *module.lora_A,
            *module.lora_embedding_A,
        ):
            found[path] = module.get_delta_weight(name).detach().double()
    return found


def exact(base, wanted):
    """Return Σ wᵢ·ΔWᵢ from PEFT's own ΔW of each adapter alone."""
    total = {}
    for folder, weight in wanted:
        for path, delta in deltas(load(base, folder)).items():
            total[path] = total.get(path, 0) + weight * delta
    return total


def error(found, expected):
    """Return the relative Frobenius distance over all modules."""
    assert found.keys() == expected.keys()
    missing = sum((found[m] - expected[m]).norm() ** 2 for m in expected)
    return float((missing / sum(d.norm() ** 2 for d in expected.values())) ** 0.5)


def peft_merge(base, wanted, kind, **options):
    """Return ΔW of PEFT's add_weighted_adapter."""
    (first, *rest), weights = [f for f, _ in wanted], [w for _, w in wanted]
    names = ["default", *(f"a{i}" for i in range(len(rest)))]
    model = load(base, first, **dict(zip(names[1:], rest, strict=True)))
    model.add_weighted_adapter(names, weights, "mixed", combination_type=kind, **options)
    return deltas(model, "mixed")


def weights_of(model):
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def distance(found, expected, start):
    """‖found − expected‖ over ‖expected − start‖, of all tensors together."""
    missing = sum(float((found[name] - expected[name]).norm() ** 2) for name in expected)
    change = sum(float((expected[name] - start[name]).norm() ** 2) for name in expected)
    assert change > 0
    return (missing / change) ** 0.5


def in_4_bits(base):
    """The base as a QLoRA training sees it."""
    from bitsandbytes import functional

    seen = copy.deepcopy(base)
    for name, module in seen.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed, state = functional.quantize_4bit(module.weight.data, quant_type="nf4", blocksize=64)
            module.weight.data = functional.dequantize_4bit(packed, state).float()
    return seen
