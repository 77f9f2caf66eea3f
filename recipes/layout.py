"""Facts about the parameters of a model that LLaMA-Factory has laid out, for recipes/costs.py.

Runs in the subprocess of recipes/inspection.py, on parameters without values.
"""

import re
from typing import Any

LAYER = re.compile(r"\b(?:layers|layer|h|blocks)\.(\d+)\.")
SQUARE_TOWERS = ("llava", "llava_next", "paligemma")  # an image token for each patch


def trained_facts(model: Any, config: Any, finetuning_args: Any) -> dict[str, Any]:
    """Trainable parameters, where they are, and the values that their optimizer keeps.

    - `trainable`, `largest`: parameters that are trained, and those of the largest of their tensors.
    - `layers_below`: text layers below the lowest that is trained. `layers_between`: untrained ones above it.
    - `block`: trained parameters of the largest layer, the most that BAdam trains at once.
    - `optimizer_values`: values in the state of Muon, GaLore or APOLLO; None for other optimizers.
    """
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    tower_keys = _tower_keys(config)
    by_layer: dict[int, int] = {}
    starts_below = False  # gradients flow through every text layer
    for name, parameter in trained.items():
        number = LAYER.search(name)
        is_of_tower = any(key in name for key in tower_keys)
        if number is not None and not is_of_tower:
            layer = int(number[1])
            by_layer[layer] = by_layer.get(layer, 0) + parameter.numel()
        elif is_of_tower or "embed" in name:
            starts_below = True
    layers = config.get_text_config().num_hidden_layers
    lowest = 0
    if not starts_below:
        lowest = min(by_layer, default=layers)
    return {
        "trainable": int(sum(parameter.numel() for parameter in trained.values())),
        "largest": max((parameter.numel() for parameter in trained.values()), default=0),
        "layers_below": lowest,
        "layers_between": layers - lowest - len(by_layer),
        "block": max(by_layer.values(), default=0),
        "optimizer_values": optimizer_values(model, finetuning_args),
    }


def optimizer_values(model: Any, finetuning_args: Any) -> int | None:
    """Values in the state of Muon, GaLore or APOLLO, as LLaMA-Factory sets them up; None for others.

    Muon keeps one value for each entry of a matrix. GaLore and APOLLO keep two for each entry of a matrix's
    projected gradient, and the projection. All others are trained by AdamW, which keeps two.
    """
    if finetuning_args.use_muon:
        return _muon_values(model)
    if finetuning_args.use_galore:
        targets, rank = finetuning_args.galore_target, finetuning_args.galore_rank
        side = finetuning_args.galore_proj_type
        is_random = False
    elif finetuning_args.use_apollo:
        targets, rank = finetuning_args.apollo_target, finetuning_args.apollo_rank
        side = finetuning_args.apollo_proj_type
        is_random = finetuning_args.apollo_proj == "random"
    else:
        return None
    projected = _projected_parameters(model, targets, finetuning_args.freeze_vision_tower)
    is_half = bool(finetuning_args.pure_bf16)
    values = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in projected:
            rows, columns = parameter.shape
            values += projected_values(rows, columns, rank, side, whole=not is_random and not is_half)
        else:
            values += 2 * parameter.numel()
    return values


def _muon_values(model: Any) -> int:
    values = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            values += parameter.numel() if is_matrix else 2 * parameter.numel()
    return values


def _projected_parameters(model: Any, targets: list[str], freeze_vision_tower: bool) -> set[int]:
    """Identities of the matrices whose gradients are projected: those of target modules that are trained."""
    from llamafactory.model.model_utils.misc import find_all_linear_modules
    from torch.nn import Linear

    if targets == ["all"]:
        targets = find_all_linear_modules(model, freeze_vision_tower)
    identities = set()
    for name, module in model.named_modules():
        is_target = any(target in name for target in targets)
        if isinstance(module, Linear) and is_target and module.weight.requires_grad:
            identities.add(id(module.weight))
    return identities


def projected_values(rows: int, columns: int, rank: int, side: str, *, whole: bool) -> int:
    """Values that GaLore or APOLLO keeps for a matrix: two for each projected entry, and the projection.

    `side` is the value of galore_proj_type. A projection is a slice of a singular value decomposition. In
    fp32 the slice is a view, so that the `whole` factor stays in memory. A random one has its own size.
    """
    smaller = min(rows, columns)
    if whole:
        rank = min(rank, smaller)
    kept = smaller if whole else rank
    if side == "full":
        return 2 * rank**2 + kept * (rows + columns)
    is_right = side == "right"
    if side in ("std", "reverse_std"):
        is_right = (rows >= columns) == (side == "std")
    if is_right:
        return 2 * rows * rank + kept * columns
    return 2 * rank * columns + rows * kept


def tower_facts(model: Any, config: Any) -> dict[str, Any] | None:
    """Sizes of the tower that reads images, with its projector; None for a model that reads text alone.

    `patches` is the number of patches for each image token, None if it is not known.
    """
    keys = _tower_keys(config)
    vision = getattr(config, "vision_config", None)
    if not keys:
        return None
    parameters = linear = 0
    for name, module in model.named_modules():
        if any(key in f"{name}." for key in keys):
            parameters += sum(parameter.numel() for parameter in module.parameters(recurse=False))
            if type(module).__name__ == "Linear":
                linear += module.weight.numel()
    hidden: Any = getattr(vision, "embed_dim", None) or getattr(vision, "hidden_size", 0)
    ratio: Any = getattr(vision, "mlp_ratio", None) or 4
    side = getattr(vision, "patch_size", 0)
    frames = getattr(vision, "temporal_patch_size", 1)
    return {
        "parameters": parameters,
        "linear": linear,
        "hidden": hidden,
        "intermediate": getattr(vision, "intermediate_size", None) or int(ratio * hidden),
        "layers": getattr(vision, "depth", None) or getattr(vision, "num_hidden_layers", 0),
        "patch": 3 * frames * side**2,
        "patches": _patches_for_token(config, vision),
    }


def _tower_keys(config: Any) -> list[str]:
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS

    parts = COMPOSITE_MODELS.get(getattr(config, "model_type", None))
    if parts is None:
        return []
    return [f"{key}." for key in (*parts.vision_model_keys, *parts.projector_keys)]


def _patches_for_token(config: Any, vision: Any) -> float | None:
    """Patches that a tower reads for each token that the text model gets; None if it is not known."""
    merged = getattr(vision, "spatial_merge_size", None) or getattr(config, "spatial_merge_size", None)
    if merged:
        return int(merged) ** 2
    if getattr(config, "downsample_ratio", None):
        return float(config.downsample_ratio) ** -2
    tokens = getattr(config, "mm_tokens_per_image", None)
    if tokens and vision is not None:
        return float((vision.image_size // vision.patch_size) ** 2 / tokens)
    if getattr(config, "model_type", None) in SQUARE_TOWERS:
        return 1
    return None
