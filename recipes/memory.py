"""How much memory and time a training takes, from a model's shapes alone; docs/recipes.md explains the terms.

ZeRO-2 divides gradients and optimizer by the ranks, ZeRO-3 the weights too; offloading moves them to the
CPU. Each is a range, up to the most that was measured (tests/golden/recipes/published.yaml).
"""

from dataclasses import dataclass
from typing import NamedTuple

FP32, BF16 = 4, 2
NF4 = 0.5 + 1 / 64 + 4 / 64 / 256  # 4 bits, a scale of 8 bits for 64 weights, one of 32 bits for 256 scales
CUDA = 0.8e9, 1.6e9  # context, workspaces and buffers of communication
# What is added at most: by the allocator to weights, by optimizer step and autocast's copies to a training of
# all weights, by fragments to activations.
FROZEN, STATE, FULL, ACTIVATIONS, GATHERED = 1.1, 1.15, 1.5, 1.5, 1.75
WIDEST = 1.5  # the upper end of all over the lower
PEAK = 0.65, 0.25  # the share of its peak that a GPU reaches, at best and at worst
LAUNCH = 0.01  # seconds for a layer of a micro batch that is too small to fill the GPU, at worst
MOVED = 4.5e-11  # seconds to unpack or to gather one weight of a layer for a micro batch, at worst


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
    """Bytes per GPU by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    fixed: float

    @property
    def total(self) -> float:
        """Return all bytes per GPU."""
        return sum(self)


def estimate(shapes: Shapes, setup: Setup) -> tuple[Memory, Memory]:
    """Return the bytes per GPU that a training takes: the lower end and the upper, at most half above it."""
    shared, split = (setup.ranks if setup.stage >= stage else 1 for stage in (2, 3))
    rest = shapes.parameters - shapes.linear  # embedding, head, norms and biases
    each = {4: NF4, 8: 1.0}.get(setup.bits, BF16)
    frozen = 0 if setup.full else shapes.linear * each + rest * BF16  # of LoRA: the model's
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
    gathered = layers * BF16 if split > 1 else 0
    in_fp32 = 0 if setup.full or setup.bits >= 16 else rest * (FP32 - BF16)  # as PEFT prepares it
    kept, most = _activations(shapes, setup), FULL if setup.full else STATE
    lower = Memory(frozen + trained + gathered, gradients, optimizer, kept, CUDA[0])
    upper = Memory(
        frozen * FROZEN + in_fp32 + trained * most + gathered * GATHERED,
        gradients * most, optimizer * most, kept * ACTIVATIONS, CUDA[1],
    )  # fmt: skip
    share = min(1.0, WIDEST * lower.total / upper.total)
    return lower, Memory(*(part * share for part in upper))


def _activations(shapes: Shapes, setup: Setup) -> float:
    """Return the bytes kept for the backward pass, and the logits (bf16, twice fp32), which are largest.

    A layer keeps about 8 tensors of the hidden size and 3 of the intermediate size in bf16 (SDPA writes no
    attention); recomputing keeps one hidden tensor for each layer, and one layer in full.
    """
    layer = setup.tokens * (8 * shapes.hidden + 3 * shapes.intermediate) * BF16
    inputs = setup.tokens * shapes.hidden * BF16 * shapes.layers
    logits = setup.tokens * shapes.vocabulary * (BF16 + 2 * FP32)
    return logits + (inputs + layer if setup.recompute else layer * shapes.layers)


def checkpoint_bytes(shapes: Shapes, setup: Setup, only_model: bool) -> float:
    """Return the size of one checkpoint: the trainable parameters, and Adam's state unless `only_model`."""
    weights = shapes.parameters * BF16 if setup.full else shapes.trainable * setup.trained_bytes
    if only_model:
        return weights
    master = shapes.parameters * FP32 if setup.full and setup.stage >= 2 else 0
    return weights + shapes.trainable * setup.optimizer_bytes + master


def flops(shapes: Shapes, setup: Setup, tokens: float, length: float) -> float:
    """Return the floating-point operations of training on `tokens` in rows of `length`.

    2 a weight forward, 2 back through the activations, 2 for trained weights' gradients, the forward again if
    recomputed (Kaplan et al. 2020, arXiv:2001.08361, appendix B). Attention is to half a row on average.
    """
    matrices = shapes.linear + shapes.hidden * shapes.vocabulary
    attention = length * shapes.hidden * shapes.layers
    again = 2 if setup.recompute else 0
    return tokens * ((4 + 2 * setup.full + again) * matrices + (6 + again) * attention)


def read_flops(shapes: Shapes, tokens: float, length: float) -> float:
    """Return the operations of reading `tokens` in rows of `length` once, without gradients."""
    matrices = shapes.linear + shapes.hidden * shapes.vocabulary
    return tokens * 2 * (matrices + length * shapes.hidden * shapes.layers)


def seconds(
    shapes: Shapes, setup: Setup, work: float, micro_batches: float, peak: float
) -> tuple[float, float]:
    """Return the shortest and the longest time of one GPU for `work` operations, `peak` a second.

    At worst every layer of each of its micro batches waits for kernels and for weights unpacked or gathered.
    """
    moved = MOVED * shapes.linear / shapes.layers if setup.bits < 16 or setup.stage >= 3 else 0
    waits = micro_batches * shapes.layers * (LAUNCH + moved)
    return work / (peak * PEAK[0]), work / (peak * PEAK[1]) + waits
