"""Costs of a training: memory, time and disk from a model's shapes.

Memory is a range (terms: docs/recipes.md), up to the most measured (tests/golden/recipes/published.yaml). In
LLaMA-Factory 0.9.5 stages dpo and rm put both sides of a pair through the model in one batch. For marked
answers it also reads each answer's mismatched twin (the KL term). The reference is LoRA's base, or a second
model.
"""

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tuneyard.core.files import existing
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.stages import TRAINING_STAGES, UNKNOWN_STAGE, WITHOUT_REFERENCE
from tuneyard.recipes.machine.hardware import GpuModel
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import Schedule, splits_batches

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
# What changes memory or time by an amount that is not worked out here.
UNMODELLED = (
    "fsdp", "mixture_of_depths", "ray_num_workers", "shift_attn", "upcast_layernorm", "use_adam_mini",
    "use_apollo", "use_badam", "use_dora", "use_galore", "use_hyper_parallel", "use_kt", "use_mca",
    "use_muon", "use_unsloth", "use_unsloth_gc",
)  # fmt: skip
OWN_LOSSES = ("use_asft_loss", "use_dft_loss", "use_eaft_loss")  # which need logits
LIGER_MODELS = (
    "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4", "glm4v", "granite", "llama", "llava",
    "mistral", "mixtral", "mllama", "olmo2", "paligemma", "phi3", "qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3",
    "qwen3_moe", "qwen3_next", "qwen3_5", "gpt_oss",
)  # fmt: skip
"""Model types that LLaMA-Factory 0.9.5 gives Liger's kernels. It trains others without, with a warning."""
# Values of 2 bytes that a layer keeps for each token: multiples of the hidden and of the intermediate size.
# Counted in transformers 5.6 with PEFT 0.18 under autocast (tests/integration/test_plan_memory.py).
KEPT_BY_ADAPTER, KEPT_WITH_DROPOUT, KEPT_BY_WEIGHTS = (14, 4), (26, 6), (17, 4)
KEPT_UNTRAINED = (8, 3)
# Bytes for each token and entry of the vocabulary, counted there too. With a reference model, the log
# probabilities of the trained model are kept while it reads; kto reads a third time.
LOGITS, LOGITS_WITH_REFERENCE, LOGITS_OF_KTO = 10, 16, 20


@dataclass(frozen=True, slots=True)
class Shapes:
    """A model's parameters in all, trainable, in linear layers and in the embedding, and its sizes.

    `stored`: bytes of a parameter in the model's files. LLaMA-Factory loads it so, but for quantisation and
    DeepSpeed.
    Sizes and layers are the text model's, also of one that `sees`: with a tower for images, audio or video.
    `layers_below` are below the lowest layer that is trained, `layers_between` untrained ones above it.
    """

    parameters: int = 0
    trainable: int = 0
    linear: int = 0
    hidden: int = 0
    intermediate: int = 0
    layers: int = 0
    vocabulary: int = 0
    layers_below: int = 0
    layers_between: int = 0
    sees: bool = False
    model_type: str = ""
    stored: int = BF16


@dataclass(frozen=True, slots=True)
class Setup:
    """A training: tokens of a micro batch, bits of frozen parameters, ZeRO stage, ranks, recomputing.

    `full`: the model's own parameters are trained (full, freeze), and not an adapter. Of a row's `sequences`
    the share `learned` is trained on; each token is `read` so often without gradients.
    """

    tokens: int
    full: bool
    bits: int
    stage: int
    ranks: int
    offload_optimizer: bool
    offload_weights: bool
    recompute: bool
    optimizer_bytes: int  # of its state for a trained weight, with DeepSpeed's fp32 master copy
    trained_bytes: int = FP32  # of a trained weight and of its gradient; 2 if they are in bf16
    reference: bool = False  # a second model in bf16 is read beside the one that is trained
    sequences: int = 1
    learned: float = 1.0
    read: float = 0.0
    kept: tuple[int, int] = KEPT_BY_ADAPTER  # by a layer for each token
    logits: int = LOGITS
    fused_loss: bool = False  # Liger's, which computes the logits in chunks
    input_gradients: bool = False  # PEFT lets gradients flow down to the embedding


class Term(NamedTuple):
    """Bytes of a GPU that a training takes: the purpose that the plan prints, both ends, and their source."""

    name: str
    lower: float
    upper: float
    source: str


class Pace(NamedTuple):
    """Costs of a training besides matrix products. `python -m tools.bench.plan_time` fits the values.

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


def estimate(shapes: Shapes, setup: Setup) -> list[Term]:
    """Terms of the memory of a GPU. Their upper ends are together at most half above the lower ones."""
    terms = [*_weights(shapes, setup), *_state(shapes, setup)]
    kept = _activations(shapes, setup)
    terms.append(Term("activations", kept, kept * ACTIVATIONS, "what the layers keep, and the logits"))
    terms.append(Term("fixed", *CUDA, "context, workspaces and buffers of communication"))
    lower, upper = total_bytes(terms)
    share = min(1.0, WIDEST * lower / upper)
    return [term._replace(upper=term.upper * share) for term in terms]


def total_bytes(terms: Iterable[Term], name: str | None = None) -> tuple[float, float]:
    """Both ends of all terms, or of those with a name."""
    chosen = [term for term in terms if name in (None, term.name)]
    return sum(term.lower for term in chosen), sum(term.upper for term in chosen)


def _weights(shapes: Shapes, setup: Setup) -> Iterator[Term]:
    split = 1  # ranks that share the weights
    if setup.stage >= 3:
        split = setup.ranks
    rest = shapes.parameters - shapes.linear  # embedding, head, norms and biases
    loaded = BF16
    if setup.bits == 16 and setup.stage == 0:
        loaded = shapes.stored
    each = {4: NF4, 8: 1.0}.get(setup.bits, loaded)
    frozen = shapes.linear * each + rest * loaded
    if setup.full:
        frozen = float((shapes.parameters - shapes.trainable) * loaded)
    frozen = (frozen + setup.reference * shapes.parameters * loaded) / split
    trained = shapes.trainable * setup.trained_bytes / split
    if not setup.offload_weights:
        yield Term("weights", frozen, frozen * FROZEN, "frozen parameters and a reference model")
        yield Term("weights", trained, trained * _most(setup), "trained parameters")
    if split > 1:
        layers = 2 * shapes.linear / shapes.layers + shapes.hidden * shapes.vocabulary
        yield Term("weights", layers * BF16, layers * BF16 * GATHERED, "layers that ZeRO-3 gathers")
    if loaded == FP32 and not setup.full:
        rounded = shapes.linear
        if setup.recompute:
            rounded //= shapes.layers
        copies = (rounded + shapes.hidden * shapes.vocabulary) * BF16
        yield Term("weights", copies, copies, "copies in bf16 that autocast keeps of fp32 weights")
    if not setup.full and setup.bits < 16:
        yield Term("weights", 0, rest * (FP32 - BF16), "what PEFT turns into fp32")


def _state(shapes: Shapes, setup: Setup) -> Iterator[Term]:
    shared = 1  # ranks that share gradients and optimizer
    if setup.stage >= 2:
        shared = setup.ranks
    gradients = shapes.trainable * setup.trained_bytes / shared
    yield Term("gradients", gradients, gradients * _most(setup), "of trained parameters")
    optimizer = shapes.trainable * setup.optimizer_bytes / shared
    if not setup.offload_optimizer:
        yield Term("optimizer", optimizer, optimizer * _most(setup), "its state")


def _most(setup: Setup) -> float:
    """What the state of a training takes at most, as a multiple of its size."""
    if setup.full:
        return FULL
    return STATE


def _activations(shapes: Shapes, setup: Setup) -> float:
    """Bytes kept for the backward pass, and the logits, the largest part.

    SDPA writes no attention. LLaMA-Factory recomputes only layers with trained parameters: each keeps its
    input, and the one that is recomputed all. An untrained layer keeps all if gradients flow through it.
    """

    def layer_bytes(kept: tuple[int, int]) -> float:
        hidden, intermediate = kept
        return setup.tokens * (hidden * shapes.hidden + intermediate * shapes.intermediate) * BF16

    layer, untrained = layer_bytes(setup.kept), layer_bytes(KEPT_UNTRAINED)
    inputs = setup.tokens * shapes.hidden * BF16
    logits: float = setup.tokens * shapes.vocabulary * setup.logits
    if setup.fused_loss and shapes.model_type in LIGER_MODELS:
        logits = _fused_loss_bytes(shapes, setup.tokens)
    below, between = shapes.layers_below, shapes.layers_between
    trained = shapes.layers - below - between
    if not setup.recompute:
        return logits + layer * trained + untrained * between
    if setup.input_gradients:
        between += below
    return logits + inputs * trained + layer * bool(trained) + untrained * between


def _fused_loss_bytes(shapes: Shapes, tokens: int) -> float:
    """Bytes of Liger's loss: the gradient of its input, and the bf16 logits of one chunk of tokens.

    Source: liger_kernel/ops/fused_linear_cross_entropy.py, release 0.8.5.
    """
    chunks = math.ceil(shapes.vocabulary / shapes.hidden)
    chunk = min(tokens, 1 << (max(1, math.ceil(tokens / chunks)) - 1).bit_length())
    return (tokens * shapes.hidden + 2 * chunk * shapes.vocabulary) * BF16


def checkpoint_bytes(shapes: Shapes, setup: Setup, only_model: bool) -> float:
    """Bytes of one checkpoint: the parameters that are saved, and the optimizer's state unless `only_model`.

    An adapter is saved alone. A model is saved in the type of its training: trained parameters in fp32,
    frozen ones in bf16. Under DeepSpeed all are in bf16.
    """
    weights: float = shapes.trainable * setup.trained_bytes
    if setup.full:
        weights += (shapes.parameters - shapes.trainable) * BF16
    if only_model:
        return weights
    return weights + shapes.trainable * setup.optimizer_bytes


def flops(shapes: Shapes, setup: Setup, tokens: float, length: float) -> float:
    """Floating-point operations of training on `tokens` in rows of `length`.

    2 a weight forward, 2 back through the activations, 2 for gradients, the forward again when recomputed
    (Kaplan et al. 2020, arXiv:2001.08361, appendix B). Attention is to half a row on average.
    """
    head = shapes.hidden * shapes.vocabulary
    matrices = shapes.linear + head
    attention = length * shapes.hidden * shapes.layers
    below = shapes.layers_below
    recomputed = shapes.layers - below - shapes.layers_between
    if setup.input_gradients:
        below = 0
    back = 1 - below / shapes.layers
    again = 0.0
    if setup.recompute:
        again = 2 * recomputed / shapes.layers
    share = 0.0  # of the weights that get gradients; an adapter's are few
    if setup.full:
        share = min(1, shapes.trainable / shapes.parameters)
    layers = (2 + 2 * back + again) * shapes.linear
    products = layers + (4 + again) * head + 2 * share * matrices + (2 + 4 * back + again) * attention
    return tokens * (setup.learned * products + setup.read * 2 * (matrices + attention))


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


def setup_of(recipe: Recipe, longest: int, ranks: int) -> Setup:
    """Setup in which a recipe trains rows of at most `longest` tokens over `ranks` processes."""
    settings, zero = recipe.settings, recipe.zero()
    method = recipe.method
    stage = TRAINING_STAGES.get(recipe.stage, UNKNOWN_STAGE)
    zero_stage = int(str(zero.get("stage", 0)))
    trained = BF16 if settings.get("pure_bf16") is True else FP32
    optimizer = OPTIMIZERS.get(str(settings.get("optim")), 2 * trained)
    compares = stage.reads_reference is None and settings.get("pref_loss", "sigmoid") not in WITHOUT_REFERENCE
    second = method != "lora" or bool(settings.get("ref_model"))
    is_adapter = method in ("lora", "oft")
    if not is_adapter and zero_stage >= 2:  # DeepSpeed trains bf16 weights with an fp32 master copy
        trained, optimizer = BF16, optimizer + FP32
    kept = KEPT_BY_WEIGHTS
    if is_adapter:
        kept = KEPT_WITH_DROPOUT if recipe.number("lora_dropout", 0) and method == "lora" else KEPT_BY_ADAPTER
    logits = LOGITS
    if recipe.stage == "kto":
        logits = LOGITS_OF_KTO
    elif compares:
        logits = LOGITS_WITH_REFERENCE
    recompute = settings.get("disable_gradient_checkpointing") is not True
    recompute = recompute or settings.get("gradient_checkpointing") is True
    bits = int(recipe.number("quantization_bit", 16))
    needs_logits = recipe.stage not in ("pt", "sft") or any(map(settings.get, OWN_LOSSES))
    batch = int(recipe.number("per_device_train_batch_size", 8))
    if splits_batches(recipe):
        batch = math.ceil(batch / ranks)
    return Setup(
        tokens=longest * batch * stage.sides,
        full=not is_adapter,
        bits=bits,
        stage=zero_stage,
        ranks=ranks,
        offload_optimizer="offload_optimizer" in zero,
        offload_weights="offload_param" in zero,
        recompute=recompute,
        optimizer_bytes=optimizer,
        trained_bytes=trained,
        reference=second and (compares or stage.reads_reference is True),
        sequences=stage.sequences,
        learned=stage.learned,
        read=stage.read + float(compares),
        kept=kept,
        logits=logits,
        fused_loss=settings.get("enable_liger_kernel") is True and not needs_logits,
        input_gradients=is_adapter and recompute and bits == 16,
    )


def unmodelled(recipe: Recipe, shapes: Shapes, quantised: bool) -> list[str]:
    """List the parts of a recipe and its model (perhaps `quantised`) whose memory is not modelled."""
    settings = recipe.settings
    parts = [key for key in UNMODELLED if settings.get(key)]
    if not TRAINING_STAGES.get(recipe.stage, UNKNOWN_STAGE).is_planned:
        parts.append(_("stage {stage} (more than one pass, or a second model)", stage=recipe.stage))
    if settings.get("ref_model"):
        parts.append(_("ref_model (taken to be as large as the model)"))
    if quantised:
        parts.append(_("a model that is quantised as it is (counted in 16 bits)"))
    if settings.get("pure_bf16") is True and settings.get("deepspeed"):
        parts.append(_("pure_bf16 under DeepSpeed"))
    if shapes.sees:
        parts.append(_("images, audio or video of {model_type}", model_type=shapes.model_type))
    elif shapes.parameters - shapes.linear > 2.1 * shapes.hidden * shapes.vocabulary:
        parts.append(_("weights outside of linear layers and vocabulary (experts?)"))
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
