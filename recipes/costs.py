"""Costs of a training: the trainer's steps, and memory, time and disk from a model's shapes.

Memory is a range (terms: docs/recipes.md), up to the most measured (tests/golden/recipes/published.yaml). In
LLaMA-Factory 0.9.5 stages dpo and rm put both sides of a pair through the model in one batch. For marked
answers it also reads each answer's mismatched twin (the KL term). The reference is LoRA's base, or a second
model.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tuneyard.core.errors import Problem, RequestError, counted
from tuneyard.core.files import existing
from tuneyard.core.training_stage import TRAINING_STAGES, TrainingStage
from tuneyard.recipes.hardware import GpuModel
from tuneyard.recipes.recipe import Recipe

FP32, BF16 = 4, 2
NF4 = 0.5 + 1 / 64 + 4 / 64 / 256  # 4 bits, a scale of 8 bits for 64 weights, one of 32 bits for 256 scales
CUDA = 0.8e9, 1.6e9  # context, workspaces and buffers of communication
# What is added at most: by the allocator to weights, by optimizer step and autocast's copies to a training of
# all weights, by fragments to activations.
FROZEN, STATE, FULL, ACTIVATIONS, GATHERED = 1.1, 1.15, 1.5, 1.5, 1.75
WIDEST = 1.5  # the upper end of all over the lower
PEAK = 0.75  # the share of its peak that a GPU reaches in large matrix products
SPREAD = 1.5  # of the time, to either side of its middle value
# Where the connection between GPUs counts, or the optimizer step of all weights: known less well.
LOOSE_SPREAD = 1.6, 2.2
# bytes a parameter
OPTIMIZERS = {"adafactor": 1, "sgd": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2}
WITHOUT_REFERENCE = ("orpo", "simpo")  # pref_loss of stage dpo
# What changes memory or time by an amount that is not worked out here.
UNMODELLED = (
    "enable_liger_kernel", "fsdp", "mixture_of_depths", "ray_num_workers", "shift_attn", "upcast_layernorm",
    "use_apollo", "use_badam", "use_dora", "use_galore", "use_kt", "use_llama_pro", "use_muon", "use_unsloth",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Schedule:
    """The course of a training: rows and batch of one step, steps of an epoch and in all, warm-up steps."""

    rows: int
    world_size: int
    batch: int
    steps_per_epoch: int
    steps: int
    warmup: int

    @property
    def world(self) -> dict[str, object]:
        """Processes and rows of a step, for training.json."""
        return {"world_size": self.world_size, "global_batch": self.batch}

    def line(self) -> str:
        """One line: `1200 rows, batch 16, 75 steps an epoch, 75 in all`."""
        steps = f"{counted(self.steps_per_epoch, 'step')} an epoch, {self.steps} in all"
        share = f", warm-up {self.warmup / self.steps:.0%}" if self.steps and self.warmup else ""
        return f"{counted(self.rows, 'row')}, batch {self.batch}, {steps}{share}"


def schedule_of(recipe: Recipe, rows: int, world_size: int) -> Schedule:
    """Schedule of transformers' Trainer on `rows` rows or packed blocks, of which val_size is held out."""
    rows = training_rows(recipe, rows)
    each = int(recipe.number("per_device_train_batch_size", 8))
    batches = math.ceil(rows / max(1, each * world_size))
    steps_per_epoch = max(1, math.ceil(batches / max(1, gathered(recipe))))
    limit = int(recipe.number("max_steps", -1))
    epochs = recipe.number("num_train_epochs", 3)
    steps = limit if limit > 0 else math.ceil(epochs * steps_per_epoch)
    warmup = recipe.number("warmup_steps", 0) or recipe.number("warmup_ratio", 0)
    warmup = math.ceil(steps * warmup) if warmup < 1 else int(warmup)
    batch = each * gathered(recipe) * world_size
    return Schedule(rows, world_size, batch, steps_per_epoch, steps, warmup)


def training_rows(recipe: Recipe, rows: int) -> int:
    """Rows that are left to train on once val_size (a share below 1, or a number of rows) is held out."""
    held_out = recipe.number("val_size", 0)
    if held_out < 1:
        held_out = math.ceil(rows * held_out)
    return max(0, rows - int(held_out))


def gathered(recipe: Recipe) -> int:
    """Micro batches of one step of each process."""
    return int(recipe.number("gradient_accumulation_steps", 1))


def schedule_problems(recipe: Recipe, schedule: Schedule) -> Iterator[Problem]:
    """Report events that a training of this length never reaches: saves, evaluations, the end of warm-up."""
    settings = recipe.settings
    saves = settings.get("save_strategy", "steps") == "steps" and settings.get("save_steps")
    evaluates = settings.get("eval_steps") or settings.get("logging_steps", 500)
    evaluates = settings.get("eval_strategy") == "steps" and evaluates
    never = {"save_steps": "only the end is saved", "eval_steps": "it is never evaluated"}
    for key, value in {"save_steps": saves, "eval_steps": evaluates}.items():
        if isinstance(value, int) and value > schedule.steps:
            message = f"is {value}, but the training ends after {counted(schedule.steps, 'step')}"
            yield recipe.problem("W330", key, message, never[key])
    if schedule.warmup >= schedule.steps:
        message = f"{schedule.warmup} steps of {schedule.steps}: the full learning rate is never reached"
        yield recipe.problem("W331", "warmup_steps", message)
    if not schedule.rows and settings.get("val_size"):
        message = f"takes every row, found {settings['val_size']}: none is left to train on"
        yield recipe.problem("E307", "val_size", message)
    if schedule.rows and schedule.batch > schedule.rows:
        message = f"a step takes {schedule.batch} rows, the dataset has {schedule.rows}"
        yield recipe.problem("W332", "per_device_train_batch_size", message)
    if "warmup_ratio" in settings:
        hint = f"warmup_steps: {settings['warmup_ratio']} (a share below 1 is taken too)"
        yield recipe.problem("W333", "warmup_ratio", "is deprecated in transformers 5", hint)


@dataclass(frozen=True, slots=True)
class Shapes:
    """A model's parameters in all, trainable, in linear layers and in the embedding, and its sizes."""

    parameters: int
    trainable: int
    linear: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Setup:
    """A training: tokens of a micro batch, bits of frozen parameters, ZeRO stage, ranks, recomputing.

    Of a row's `sequences` the share `learned` is trained on; each token is `read` so often without gradients.
    """

    tokens: int
    full: bool
    bits: int
    stage: int
    ranks: int
    offload_optimizer: bool
    offload_weights: bool
    recompute: bool
    optimizer_bytes: int
    trained_bytes: int = FP32  # of a trained weight and of its gradient; 2 with pure_bf16
    reference: bool = False  # a second model in bf16 is read beside the one that is trained
    sequences: int = 1
    learned: float = 1.0
    read: float = 0.0


class Memory(NamedTuple):
    """Bytes per GPU by purpose."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    fixed: float

    @property
    def total(self) -> float:
        """All bytes per GPU."""
        return sum(self)


class Pace(NamedTuple):
    """Costs of a training besides matrix products. `python -m tests.bench.plan_time` fits the values.

    `moved` is in bytes that the GPU's memory moves for each activation of a layer, `unpacked` in bytes for
    each quantised weight and micro batch. The others are in seconds for each micro batch: `launched` for a
    layer that is too small to fill the GPU, `gathered` for a weight that ZeRO-3 gathers, `updated` for a
    trained parameter.
    """

    moved: float
    unpacked: float
    launched: float
    gathered: float
    updated: float


PACE = Pace(moved=112, unpacked=70, launched=5.1e-3, gathered=1.8e-11, updated=2.4e-11)


class Duration(NamedTuple):
    """Seconds that a training takes: the most likely value between the ends of a range."""

    lower: float
    middle: float
    upper: float


def estimate(shapes: Shapes, setup: Setup) -> tuple[Memory, Memory]:
    """Bytes per GPU of a training: a lower and an upper end, which is at most half above the lower."""
    shared = split = 1  # ranks that share gradients and optimizer, and those that share the weights
    if setup.stage >= 2:
        shared = setup.ranks
    if setup.stage >= 3:
        split = setup.ranks
    rest = shapes.parameters - shapes.linear  # embedding, head, norms and biases
    each = {4: NF4, 8: 1.0}.get(setup.bits, BF16)
    frozen = 0.0
    if not setup.full:  # LoRA
        frozen = shapes.linear * each + rest * BF16
    frozen = (frozen + setup.reference * shapes.parameters * BF16) / split
    trained = shapes.trainable * setup.trained_bytes / split
    gradients = shapes.trainable * setup.trained_bytes / shared
    optimizer = shapes.trainable * setup.optimizer_bytes / shared
    if setup.full and setup.stage >= 2:  # DeepSpeed trains bf16 weights with an fp32 master copy
        trained, gradients = trained / 2, gradients / 2
        optimizer += shapes.parameters * FP32 / shared
    if setup.offload_optimizer:
        optimizer = 0
    if setup.offload_weights:
        frozen = trained = 0
    layers = 2 * shapes.linear / shapes.layers + shapes.hidden * shapes.vocabulary
    gathered = 0.0
    if split > 1:
        gathered = layers * BF16
    in_fp32 = 0.0
    if not setup.full and setup.bits < 16:  # as PEFT prepares it
        in_fp32 = rest * (FP32 - BF16)
    kept = _activations(shapes, setup)
    most = STATE
    if setup.full:
        most = FULL
    lower = Memory(frozen + trained + gathered, gradients, optimizer, kept, CUDA[0])
    upper = Memory(
        frozen * FROZEN + in_fp32 + trained * most + gathered * GATHERED,
        gradients * most, optimizer * most, kept * ACTIVATIONS, CUDA[1],
    )  # fmt: skip
    share = min(1.0, WIDEST * lower.total / upper.total)
    return lower, Memory(*(part * share for part in upper))


def _activations(shapes: Shapes, setup: Setup) -> float:
    """Bytes kept for the backward pass, and the logits (bf16, twice fp32), the largest part.

    A layer keeps about 8 tensors of the hidden size and 3 of the intermediate size in bf16. SDPA writes no
    attention. Recomputing keeps one hidden tensor for each layer, and one layer in full.
    """
    layer = setup.tokens * (8 * shapes.hidden + 3 * shapes.intermediate) * BF16
    inputs = setup.tokens * shapes.hidden * BF16 * shapes.layers
    logits = setup.tokens * shapes.vocabulary * (BF16 + 2 * FP32)
    if setup.recompute:
        return logits + inputs + layer
    return logits + layer * shapes.layers


def checkpoint_bytes(shapes: Shapes, setup: Setup, only_model: bool) -> float:
    """Bytes of one checkpoint: the trainable parameters, and Adam's state unless `only_model`."""
    weights: float = shapes.trainable * setup.trained_bytes
    if setup.full:
        weights = shapes.parameters * BF16
    if only_model:
        return weights
    size = weights + shapes.trainable * setup.optimizer_bytes
    if setup.full and setup.stage >= 2:
        size += shapes.parameters * FP32  # the master copy
    return size


def flops(shapes: Shapes, setup: Setup, tokens: float, length: float) -> float:
    """Floating-point operations of training on `tokens` in rows of `length`.

    2 a weight forward, 2 back through the activations, 2 for gradients, the forward again when recomputed
    (Kaplan et al. 2020, arXiv:2001.08361, appendix B). Attention is to half a row on average.
    """
    matrices = shapes.linear + shapes.hidden * shapes.vocabulary
    attention = length * shapes.hidden * shapes.layers
    again = 2 if setup.recompute else 0
    trained = (4 + 2 * setup.full + again) * matrices + (6 + again) * attention
    return tokens * (setup.learned * trained + setup.read * 2 * (matrices + attention))


def duration(
    shapes: Shapes,
    setup: Setup,
    work: float,
    tokens: float,
    micro_batches: float,
    gpu: GpuModel,
    pace: Pace = PACE,
) -> Duration:
    """Time of one GPU for `work` operations on `tokens` in so many micro batches.

    Matrix products run at a share of the peak, and the steps between them wait for memory. A small micro
    batch waits for the launch of its kernels instead; the cubes join both without a corner. Weights that must
    be unpacked or gathered come on top.
    """
    passes = setup.learned + setup.read / 3  # of the three times that training touches an activation
    activations = tokens * passes * shapes.layers * (8 * shapes.hidden + 3 * shapes.intermediate)
    busy = work / (gpu.operations * PEAK) + activations * pace.moved / gpu.bandwidth
    launches = micro_batches * shapes.layers * pace.launched
    middle = (busy**3 + launches**3) ** (1 / 3)
    middle += micro_batches * shapes.trainable * pace.updated
    if setup.bits < 16:
        middle += micro_batches * shapes.linear * pace.unpacked / gpu.bandwidth
    if setup.stage >= 3:
        middle += micro_batches * shapes.linear * pace.gathered
    if setup.full or setup.ranks > 1:
        return Duration(middle / LOOSE_SPREAD[0], middle, middle * LOOSE_SPREAD[1])
    return Duration(middle / SPREAD, middle, middle * SPREAD)


def shapes_of(model: dict[str, Any]) -> Shapes:
    """Shapes of a model from LLaMA-Factory's answer. `RequestError` if the answer has none."""
    if "error" in model:
        why = f"the model's config is not at hand ({model['error']})"
        raise RequestError(f"{why}; give a folder with config.json: --model DIR")
    if model["trainable"] is None:
        raise RequestError("only finetuning_type lora and full can be planned")
    return Shapes(**{name: model[name] for name in Shapes.__slots__})


def setup_of(recipe: Recipe, longest: int, ranks: int) -> Setup:
    """Setup in which a recipe trains rows of at most `longest` tokens over `ranks` processes."""
    settings, zero = recipe.settings, recipe.zero()
    stage = TRAINING_STAGES.get(str(settings.get("stage", "sft")), TrainingStage(None))
    trained = BF16 if settings.get("pure_bf16") is True else FP32
    compares = stage.reads_reference is None and settings.get("pref_loss", "sigmoid") not in WITHOUT_REFERENCE
    second = settings.get("finetuning_type", "lora") != "lora" or bool(settings.get("ref_model"))
    return Setup(
        tokens=longest * int(recipe.number("per_device_train_batch_size", 8)) * stage.sides,
        full=settings.get("finetuning_type") == "full",
        bits=int(recipe.number("quantization_bit", 16)),
        stage=int(str(zero.get("stage", 0))),
        ranks=ranks,
        offload_optimizer="offload_optimizer" in zero,
        offload_weights="offload_param" in zero,
        recompute=settings.get("disable_gradient_checkpointing") is not True,
        optimizer_bytes=OPTIMIZERS.get(str(settings.get("optim")), 2 * trained),
        trained_bytes=trained,
        reference=second and (compares or stage.reads_reference is True),
        sequences=stage.sequences,
        learned=stage.learned,
        read=stage.read + float(compares),
    )


def unmodelled(recipe: Recipe, shapes: Shapes, quantised: bool) -> list[str]:
    """List the parts of a recipe and its model (perhaps `quantised`) that the plan does not model."""
    settings = recipe.settings
    parts = [key for key in UNMODELLED if settings.get(key)]
    stage = TRAINING_STAGES.get(str(settings.get("stage", "sft")))
    if stage is None or not stage.is_planned:
        parts.append(f"stage {settings['stage']} (more than one pass, or a second model)")
    if settings.get("ref_model"):
        parts.append("ref_model (taken to be as large as the model)")
    if quantised:
        parts.append("a model that is quantised as it is (counted in 16 bits)")
    if settings.get("pure_bf16") is True and settings.get("deepspeed"):
        parts.append("pure_bf16 under DeepSpeed")
    if shapes.parameters - shapes.linear > 2.1 * shapes.hidden * shapes.vocabulary:
        parts.append("weights outside of linear layers and vocabulary (experts?)")
    return parts


def disk_of(recipe: Recipe, shapes: Shapes, setup: Setup, schedule: Schedule) -> tuple[int, int, int]:
    """Bytes of a checkpoint, number of checkpoints kept, and free bytes of their disk."""
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
