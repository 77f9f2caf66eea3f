"""Machines to train on: this one, inspected without importing torch (which takes seconds), or another."""

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from tuneyard.core.errors import RequestError, nearest
from tuneyard.core.files import versions
from tuneyard.core.language.message import _, joined
from tuneyard.recipes.recipe import Recipe


class GpuModel(NamedTuple):
    """A GPU by its maker's data sheet: dense bf16 operations a second, bytes, bytes moved a second.

    `generation` is the major number of the compute capability, as `torch.cuda.get_device_capability` has it.
    """

    operations: float
    memory: float
    bandwidth: float
    generation: int


GPUS = {
    "T4": GpuModel(65e12, 16e9, 320e9, 7),
    "V100": GpuModel(125e12, 32e9, 900e9, 7),
    "A10": GpuModel(125e12, 24e9, 600e9, 8),
    "L4": GpuModel(121e12, 24e9, 300e9, 8),
    "RTX3090": GpuModel(71e12, 24e9, 936e9, 8),
    "RTX4090": GpuModel(165e12, 24e9, 1008e9, 8),
    "L40S": GpuModel(362e12, 48e9, 864e9, 8),
    "A6000": GpuModel(155e12, 48e9, 768e9, 8),
    "A100-40": GpuModel(312e12, 40e9, 1555e9, 8),
    "A100-80": GpuModel(312e12, 80e9, 2039e9, 8),
    "A100": GpuModel(312e12, 80e9, 2039e9, 8),
    "H100": GpuModel(989e12, 80e9, 3350e9, 9),
    "H200": GpuModel(989e12, 141e9, 4800e9, 9),
    # DGX B200 data sheet: 8 GPUs have 1,440 GB and 64 TB/s; HGX B200: 36 PFLOPS of bf16, with sparsity.
    "B200": GpuModel(2250e12, 180e9, 8000e9, 10),
    # NVIDIA RTX Blackwell GPU Architecture, appendix A: bf16 with accumulation in fp32, without sparsity.
    "RTX5090": GpuModel(209.5e12, 32e9, 1792e9, 12),
    # AMD Instinct MI300X data sheet: bfloat16 matrix operations. PyTorch for ROCm reports gfx942 as 9.4.
    "MI300X": GpuModel(1307.4e12, 192e9, 5300e9, 9),
}
_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR of the CUDA driver API


@dataclass(frozen=True, slots=True)
class Gpu:
    """A visible NVIDIA GPU: its name, and the major number of its compute capability."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a recipe is to be trained: its GPUs, whether it is this machine, and its name (`--for`)."""

    gpus: tuple[Gpu, ...]
    here: bool = False
    name: str = ""


def target_option(description: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Option `--for` of a command, as `trains_on`: the name of one machine, for `machine`."""
    return click.option(
        "--for",
        "trains_on",
        default="gpu",
        show_default=True,
        metavar="gpu|cpu|this|4xA100-80",
        help=description,
    )


def machine(name: str) -> Machine:
    """Machine named `this`, `cpu`, `gpu` (one A100-80) or `4xA100-80`. `RequestError` for another name."""
    if name in ("this", "cpu"):
        return Machine(tuple(find_gpus()), here=True, name=name) if name == "this" else Machine((), name=name)
    parts = re.fullmatch(r"(?:([1-9]\d{0,3})x)?(.+)", "A100-80" if name == "gpu" else name, re.IGNORECASE)
    model = parts[2].upper() if parts else ""
    if parts is None or model not in GPUS:
        digits = re.sub(r"\D", "", model)
        near = [known for known in GPUS if digits in known.replace("-", "")]  # an H800 is no H200
        hint = nearest(model, near, _("for another GPU take one of its memory"))
        raise RequestError(
            _(
                "{name!r}: expected this, cpu, gpu, or GPUs such as 4xA100-80 (known are {gpus}); {hint}",
                name=name,
                gpus=joined(GPUS),
                hint=hint,
            )
        )
    return Machine((Gpu(model, GPUS[model].generation),) * int(parts[1] or 1), name=name)


def gpu_model(name: str) -> str:
    """Key in `GPUS` of a name such as `A100-80`, or of a driver's name such as `NVIDIA A100-SXM4-80GB`.

    `RequestError` for a GPU whose figures are not known. Laptop GPUs differ from those of the same number.
    """
    if name in GPUS:
        return name
    words = set(re.findall(r"[A-Z0-9]+", name.upper().replace("RTX ", "RTX").replace("RTXA", "A")))
    sizes = {word.removesuffix("GB") for word in words if re.fullmatch(r"\d+GB", word)}
    models = [
        model
        for model, figures in GPUS.items()
        if set(model.split("-")) <= words | sizes and sizes <= {f"{figures.memory / 1e9:.0f}"}
    ]
    if not models or "LAPTOP" in words:
        choices = joined(GPUS, _(" or "))
        raise RequestError(
            _(
                "{name}: its speed and memory are not known; name a similar one: --for {names}",
                name=name,
                names=choices,
            )
        )
    return max(models, key=len)


def find_gpus() -> list[Gpu]:
    """GPUs that PyTorch would see, from the CUDA driver ([] without a driver).

    CUDA_VISIBLE_DEVICES counts, since the driver itself obeys it; so does a torch built for CPUs alone.
    """
    if "+cpu" in versions("torch").get("torch", ""):
        return []
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    gpus = []
    for index in range(count.value):
        device, major, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(128)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        gpus.append(Gpu(name.value.decode(errors="replace"), major.value))
    return gpus


def cpu_computes_bf16() -> bool:
    """True if the CPU multiplies bfloat16 itself. On other CPUs fp32 is faster."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(words))


def is_set(variable: str) -> bool:
    """True if LLaMA-Factory takes an environment variable as set (USE_RAY: Ray trains)."""
    return os.environ.get(variable, "0").lower() in {"1", "true", "y"}


def uses_torchrun(recipe: Recipe, gpus: Sequence[Gpu]) -> bool:
    """True if LLaMA-Factory trains this recipe under torchrun: DeepSpeed, several GPUs, or forced."""
    many = is_set("FORCE_TORCHRUN") or bool(recipe.settings.get("deepspeed")) or len(gpus) > 1
    return many and not is_set("USE_RAY")


def world_size(recipe: Recipe, gpus: Sequence[Gpu]) -> int:
    """Number of processes of a training. Under torchrun NNODES and NPROC_PER_NODE count."""
    if not uses_torchrun(recipe, gpus):
        return _count(recipe.settings.get("ray_num_workers")) if is_set("USE_RAY") else 1
    here = len(gpus) if gpus and recipe.settings.get("use_cpu") is not True else 1
    return _count(os.environ.get("NNODES")) * _count(os.environ.get("NPROC_PER_NODE") or here)


def _count(value: object) -> int:
    """Read a number of processes; 1 if it is not a whole number."""
    if not str(value).isdigit():
        return 1
    return max(1, int(str(value)))
