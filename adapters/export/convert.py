"""llama.cpp's own converter and quantiser, for model types and GGUF types that are not written here."""

import subprocess
import sys
from pathlib import Path

from core.errors import ContentError, RequestError

CONVERTER = "convert_hf_to_gguf.py"
DIRECT = ("f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0")
QUANTISER = ("llama-quantize", "build/bin/llama-quantize")


def check_llama_cpp(folder: Path, kind: str) -> None:
    """Raise `RequestError` where the checkout lacks what a type needs."""
    if not (folder / CONVERTER).is_file():
        raise RequestError(f"{folder}: no {CONVERTER}: expected a checkout of llama.cpp")
    if kind not in DIRECT:
        _quantiser(folder, kind)


def convert(folder: Path, model: Path, kind: str, out: Path) -> None:
    """Write `model` as a GGUF of any type llama.cpp knows at `out`; its own output goes to stderr."""
    direct = kind if kind in DIRECT else "f16"
    written = out if kind in DIRECT else out.with_name(f"{out.name}.f16")
    _call([sys.executable, folder / CONVERTER, model, "--outfile", written, "--outtype", direct])
    if written != out:
        _call([_quantiser(folder, kind), written, out, kind])
        written.unlink()


def _quantiser(folder: Path, kind: str) -> Path:
    found = next((folder / place for place in QUANTISER if (folder / place).is_file()), None)
    if found is None:
        raise RequestError(
            f"{folder}: no {QUANTISER[0]}, which {kind} needs; build it there: cmake -B build && "
            f"cmake --build build --target {QUANTISER[0]}"
        )
    return found


def _call(command: list[Path | str]) -> None:
    done = subprocess.run([str(word) for word in command], stdout=2, check=False)  # 2: standard error
    if done.returncode:
        raise ContentError(f"{command[0]} ended with exit code {done.returncode}; its own message is above")
