"""What this machine trains on, asked without importing torch (which takes seconds)."""

import ctypes
from dataclasses import dataclass
from pathlib import Path

from core.files import versions

_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR of the CUDA driver API


@dataclass(frozen=True, slots=True)
class Gpu:
    """A visible NVIDIA GPU: its name, its memory in bytes, the major number of its compute capability."""

    name: str
    memory: int
    generation: int


def find_gpus() -> list[Gpu]:
    """Return the GPUs that PyTorch would see, as the CUDA driver tells ([] without a driver).

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
    return [_gpu(cuda, index) for index in range(count.value)]


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, memory, major = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    return Gpu(name.value.decode(errors="replace"), memory.value, major.value)


def cpu_computes_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 itself; without that, fp32 is faster."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(words))


def describe() -> str:
    """Return the hardware in a few words, e.g. `2 × NVIDIA H200` or `CPU`."""
    gpus = find_gpus()
    return f"{len(gpus)} × {gpus[0].name}" if gpus else "CPU"
