"""What this process may use of its machine: cores and memory, within a container's limits, and GPUs."""

import contextlib
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # limits of a container (cgroup v2)


def available_cores() -> int:
    """Cores that this process may use: fewer than the machine has if they or its container are limited."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    quota = _limits("cpu.max")
    if len(quota) == 2:
        cores = min(cores, max(1, quota[0] // quota[1]))
    return cores


def visible_gpus(count: int) -> list[str]:
    """Names of `count` visible GPUs for CUDA_VISIBLE_DEVICES: those that it has already, or numbers."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in listed.split(",")]
    return names[:count]  # an unknown name hides those that follow it


def available_memory() -> float:
    """Bytes of memory that programs can still take, roughly."""
    available = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    in_proc = _amount(Path("/proc/meminfo"), "MemAvailable:")
    if in_proc:
        available = in_proc * 1024.0
    limit, used = _limits("memory.max"), _limits("memory.current")
    if limit and used:
        # What only caches files counts as used, and programs can take it.
        available = min(available, limit[0] - used[0] + _amount(CGROUP / "memory.stat", "inactive_file"))
    return available


def _amount(file: Path, name: str) -> int:
    """The number after a name, of which each line of a file has one; 0 without it (on macOS)."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] == [name]:
                return int(words[1])
    return 0


def _limits(name: str) -> list[int]:
    """Numbers in a file of the control group; [] without a limit."""
    try:
        words = (CGROUP / name).read_text(encoding="utf-8").split()
    except OSError:
        return []
    if not all(map(str.isdigit, words)):  # "max": no limit
        return []
    return [int(word) for word in words]
