"""How much memory a training takes, from a model's shapes alone; every term is explained in docs/recipes.md.

Bytes per GPU: weights, gradients, optimizer, activations, and a fixed share for CUDA itself. ZeRO-2 divides
gradients and optimizer by the ranks, ZeRO-3 the weights too; offloading moves them to the CPU.
"""

from dataclasses import dataclass

FP32, BF16 = 4, 2
NF4 = (
    0.5 + 4 / 64 / 4 + 4 / 64 / 256
)  # 4 bits, a scale of 8 bits for 64 weights, one of 32 bits for 256 scales
CUDA = 0.8e9  # context, cuBLAS workspace and fragments; measured values are 0.5-1.2 GB


@dataclass(frozen=True, slots=True)
class Shapes:
    """A model's parameters in all, trainable, in linear layers and in the embedding, and its sizes."""

    parameters: int
    trainable: int
    linear: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Setup:
    """How it is trained: tokens of a micro batch, bits of frozen weights, ZeRO stage, ranks, recomputing."""

    tokens: int
    full: bool
    bits: int
    stage: int
    ranks: int
    offload: bool
    recompute: bool
    optimizer_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes per GPU by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    fixed: float

    @property
    def total(self) -> float:
        """Return all bytes per GPU."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.fixed


def estimate(shapes: Shapes, setup: Setup) -> Memory:
    """Return the bytes per GPU that a training takes."""
    shared = setup.ranks if setup.stage >= 2 else 1
    weights = _weights(shapes, setup) / (setup.ranks if setup.stage >= 3 else 1)
    gradients = shapes.trainable * FP32 / shared
    optimizer = shapes.trainable * setup.optimizer_bytes / shared
    if setup.full and setup.stage >= 2:  # without it LLaMA-Factory keeps the weights themselves in fp32
        gradients, weights = shapes.parameters * BF16 / shared, weights / 2
        optimizer += (
            shapes.parameters * FP32 / shared
        )  # DeepSpeed trains bf16 weights with an fp32 master copy
    if setup.offload:
        optimizer = 0
        weights = 2 * _layer(shapes) * BF16
    return Memory(weights, gradients, optimizer, _activations(shapes, setup), CUDA)


def _weights(shapes: Shapes, setup: Setup) -> float:
    if setup.full:
        return shapes.parameters * FP32
    rest = (shapes.parameters - shapes.linear) * BF16
    each = {4: NF4, 8: 1.0}.get(setup.bits, BF16)
    return shapes.linear * each + rest + shapes.trainable * FP32


def _layer(shapes: Shapes) -> float:
    return shapes.linear / shapes.layers


def _activations(shapes: Shapes, setup: Setup) -> float:
    """Return the bytes kept for the backward pass, and the logits, which are largest at the end.

    One layer keeps about 8 tensors of the hidden size and 3 of the intermediate size in bf16 (attention is
    never written out: SDPA); recomputing keeps one hidden tensor for each layer, and one layer in full.
    Logits stand in bf16 and twice in fp32 (the cast, and its gradient).
    """
    layer = setup.tokens * (8 * shapes.hidden + 3 * shapes.intermediate) * BF16
    kept = (
        setup.tokens * shapes.hidden * BF16 * shapes.layers + layer
        if setup.recompute
        else layer * shapes.layers
    )
    logits = setup.tokens * shapes.vocabulary * (BF16 + 2 * FP32)
    return kept + logits


def checkpoint_bytes(shapes: Shapes, setup: Setup, only_model: bool) -> float:
    """Return the size of one checkpoint: the trained weights, and Adam's state unless `only_model`."""
    weights = shapes.parameters * BF16 if setup.full else shapes.trainable * FP32
    if only_model:
        return weights
    master = shapes.parameters * FP32 if setup.full and setup.stage >= 2 else 0
    return weights + shapes.trainable * setup.optimizer_bytes + master


def flops(shapes: Shapes, setup: Setup, tokens: float) -> float:
    """Return the floating-point operations of training on `tokens`.

    2 a weight forward, 2 back through the activations, 2 for the weights' gradients where they are trained,
    and the forward again when it is recomputed (Kaplan et al. 2020, arXiv:2001.08361, appendix B).
    """
    matrices = shapes.linear + shapes.hidden * shapes.vocabulary
    passes = 2 + 2 + (2 if setup.full else 0) + (2 if setup.recompute else 0)
    return passes * matrices * tokens
