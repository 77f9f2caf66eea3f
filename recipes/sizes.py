"""How large a training is: shapes and setup for recipes/memory.py, and what its checkpoints take.

Stages are LLaMA-Factory 0.9.5's: dpo and rm put both sides of a pair through the model in one batch; kto also
reads each answer's mismatched twin (its KL term); the reference is LoRA's base, else a second model.
"""

import shutil
from pathlib import Path
from typing import Any

from core.errors import RequestError
from recipes.memory import BF16, FP32, Setup, Shapes, checkpoint_bytes
from recipes.recipe import Recipe
from recipes.schedule import Schedule

# bytes a parameter
OPTIMIZERS = {"adafactor": 1, "sgd": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2}


PAIRS = ("dpo", "rm")
MODELLED = ("pt", "sft", "kto", *PAIRS)
WITHOUT_REFERENCE = ("orpo", "simpo")  # pref_loss of stage dpo


def shapes_of(model: dict[str, Any]) -> Shapes:
    """Return the shapes in LLaMA-Factory's answer about a model; `RequestError` where it has none."""
    if "error" in model:
        why = f"the model's config is not at hand ({model['error']})"
        raise RequestError(f"{why}; give a folder with config.json: --model DIR")
    if model["trainable"] is None:
        raise RequestError("only finetuning_type lora and full can be planned")
    return Shapes(**{name: model[name] for name in Shapes.__slots__})


def setup_of(recipe: Recipe, longest: int, ranks: int) -> Setup:
    """Return how a recipe trains rows of at most `longest` tokens over `ranks` processes."""
    settings, zero, stage = recipe.settings, recipe.zero(), recipe.settings.get("stage", "sft")
    trained = BF16 if settings.get("pure_bf16") is True else FP32
    compares = stage == "dpo" and settings.get("pref_loss", "sigmoid") not in WITHOUT_REFERENCE
    second = settings.get("finetuning_type", "lora") != "lora" or bool(settings.get("ref_model"))
    together = 2 if stage in PAIRS else 1  # sides of a row in one micro batch
    return Setup(
        tokens=longest * int(recipe.number("per_device_train_batch_size", 8)) * together,
        full=settings.get("finetuning_type") == "full",
        bits=int(recipe.number("quantization_bit", 16)),
        stage=int(str(zero.get("stage", 0))),
        ranks=ranks,
        offload_optimizer="offload_optimizer" in zero,
        offload_weights="offload_param" in zero,
        recompute=settings.get("disable_gradient_checkpointing") is not True,
        optimizer_bytes=OPTIMIZERS.get(str(settings.get("optim")), 2 * trained),
        trained_bytes=trained,
        reference=second and (compares or stage == "kto"),
        sequences=2 if stage == "kto" else together,
        learned=0.5 if stage == "kto" else 1.0,
        read=1.5 if stage == "kto" else float(compares),
    )


# What changes memory or time by an amount that is not worked out here.
UNMODELLED = (
    "enable_liger_kernel", "fsdp", "mixture_of_depths", "ray_num_workers", "shift_attn", "upcast_layernorm",
    "use_apollo", "use_badam", "use_dora", "use_galore", "use_kt", "use_llama_pro", "use_muon", "use_unsloth",
)  # fmt: skip


def unmodelled(recipe: Recipe, shapes: Shapes, quantised: bool) -> list[str]:
    """Return what of a recipe and its model, which may come `quantised`, no term of the plan stands for."""
    settings = recipe.settings
    found = [key for key in UNMODELLED if settings.get(key)]
    if settings.get("stage", "sft") not in MODELLED:
        found.append(f"stage {settings['stage']} (more than one pass, or a second model)")
    if settings.get("ref_model"):
        found.append("ref_model (taken to be as large as the model)")
    if quantised:
        found.append("a model that is quantised as it is (counted in 16 bits)")
    if settings.get("pure_bf16") is True and settings.get("deepspeed"):
        found.append("pure_bf16 under DeepSpeed")
    if shapes.parameters - shapes.linear > 2.1 * shapes.hidden * shapes.vocabulary:
        found.append("weights outside of linear layers and vocabulary (experts?)")
    return found


def disk_of(recipe: Recipe, shapes: Shapes, setup: Setup, schedule: Schedule) -> tuple[int, int, int]:
    """Return the bytes of a checkpoint, how many are kept, and the bytes free where they go."""
    settings = recipe.settings
    every, limit = settings.get("save_steps", 500), settings.get("save_total_limit")
    saves = settings.get("save_strategy", "steps")
    count = 0
    if saves == "steps" and isinstance(every, int):
        count = -(-schedule.steps // every)
    elif saves == "epoch":
        count = -(-schedule.steps // schedule.steps_per_epoch)
    if isinstance(limit, int):
        count = min(count, limit + bool(settings.get("load_best_model_at_end")))
    each = checkpoint_bytes(shapes, setup, settings.get("save_only_model") is True)
    return round(each), count, shutil.disk_usage(existing(recipe.output_dir)).free


def existing(path: Path) -> Path:
    """Return a path where it exists, else the nearest folder above it that does."""
    return next(one for one in [path.absolute(), *path.absolute().parents] if one.exists())
