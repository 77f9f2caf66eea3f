"""llama.cpp's own quantiser, for the GGUF types that the gguf package reads and cannot write (q4_k_m …)."""

import subprocess
from pathlib import Path

from core.errors import ContentError, RequestError

PLACES = ("llama-quantize", "build/bin/llama-quantize")


def find_quantiser(llama_cpp: Path) -> Path:
    """Return llama-quantize of a checkout of llama.cpp; `RequestError` where it is not there."""
    found = next((llama_cpp / place for place in PLACES if (llama_cpp / place).is_file()), None)
    if found is None:
        raise RequestError(
            f"{llama_cpp}: no {PLACES[0]}; expected a checkout of llama.cpp with it built: cmake -B build && "
            f"cmake --build build --target {PLACES[0]}"
        )
    return found.resolve()


def quantise(quantiser: Path, source: Path, out: Path, kind: str) -> None:
    """Write the f16 GGUF `source` as one of type `kind` at `out`; the program's output goes to stderr."""
    done = subprocess.run([quantiser, source, out, kind], stdout=2, check=False)  # 2: standard error
    if done.returncode:
        raise ContentError(f"{quantiser} ended with exit code {done.returncode}; its own message is above")
