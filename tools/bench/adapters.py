"""`python -m tools.bench.adapters [--small]`: merge and fuse beside PEFT and `cp`, whole processes.

Shapes are those of Qwen2.5-3B (36 layers, q and v, rank 8; base of 6.17 GB in bf16) and of the 7B (all
linear layers, rank 32). Everything is made in a temporary folder (15 GB; 2.5 GB with --small, which cuts
the layers to two) and deleted. Wall and CPU seconds are those of the fastest of three runs, memory is the
peak of the process; `cp` and `fuse` take turns. Elements are compared with W + ΔW in fp64, rounded once.

Run it after a change of how merge or fuse reads, computes or writes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.weights.base_models import open_base
from tuneyard.core.weights.tensors import Array, from_fp32, header_bytes, write_weights

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "base_model.model.model.layers"
SMALL = "--small" in sys.argv
QV = {"self_attn.q_proj": (2048, 2048), "self_attn.v_proj": (256, 2048)}
ALL_LINEAR = {
    "self_attn.q_proj": (3584, 3584), "self_attn.k_proj": (512, 3584), "self_attn.v_proj": (512, 3584),
    "self_attn.o_proj": (3584, 3584), "mlp.gate_proj": (18944, 3584), "mlp.up_proj": (18944, 3584),
    "mlp.down_proj": (3584, 18944),
}  # fmt: skip
PEFT = """
import sys, torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from peft import PeftModel
layers, kind, one, other, out = int(sys.argv[1]), *sys.argv[2:]
config = Qwen2Config(vocab_size=64, hidden_size=2048, intermediate_size=64, num_hidden_layers=layers,
                     num_attention_heads=16, num_key_value_heads=2, tie_word_embeddings=True)
model = PeftModel.from_pretrained(Qwen2ForCausalLM(config).bfloat16(), one)
model.load_adapter(other, "other")
options = {"svd_rank": 16} if kind == "svd" else {}
model.add_weighted_adapter(["default", "other"], [0.5, 0.5], "merged", combination_type=kind, **options)
for parameter in model.parameters():  # PEFT's svd leaves views, which safetensors refuses to write
    parameter.data = parameter.data.contiguous()
model.save_pretrained(out, selected_adapters=["merged"])
"""


FUSED_BY_PEFT = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
base, one, other, out = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), one)
model.load_adapter(other, "other")
model.add_weighted_adapter(["default", "other"], [0.5, 0.5], "merged", combination_type="cat")
model.set_adapter("merged")
model.merge_and_unload().save_pretrained(out)
"""
Made = TypeVar("Made")
Cost = tuple[float, float, float]  # wall seconds, CPU seconds, peak MB


def make_adapter(folder: Path, layers: int, shapes: dict[str, tuple[int, int]], rank: int) -> Path:
    """Write a random adapter of these shapes."""
    folder.mkdir()
    rng = np.random.default_rng(len(folder.name))
    specs = []
    for layer in range(layers):
        for name, (outputs, inputs) in shapes.items():
            specs.append((f"{PREFIX}.{layer}.{name}.lora_A.weight", "F32", (rank, inputs)))
            specs.append((f"{PREFIX}.{layer}.{name}.lora_B.weight", "F32", (outputs, rank)))
    values = (rng.standard_normal(shape, np.float32) * np.float32(0.02) for _unused, _unused, shape in specs)
    write_weights(folder / "adapter_model.safetensors", specs, values)
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    config |= {"target_modules": targets, "base_model_name_or_path": "bench"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def make_base(folder: Path, layers: int) -> Path:
    """Write a random base of Qwen2.5-3B's shapes in bf16, in two shards."""
    folder.mkdir()
    hidden, inner, kv = 2048, 11008, 256
    shapes = {"model.embed_tokens.weight": (151936, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, outputs in (("q", hidden), ("k", kv), ("v", kv)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (outputs, hidden)
            shapes[f"{at}.self_attn.{name}_proj.bias"] = (outputs,)
        shapes |= {
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
        }
        shapes |= {f"{at}.mlp.up_proj.weight": (inner, hidden), f"{at}.mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{at}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    names = list(shapes)
    places: dict[str, Any] = {}
    noise = np.random.default_rng(0).standard_normal(1 << 22, np.float32) * np.float32(0.03)
    pool = (noise.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    for number, part in enumerate((names[: len(names) * 2 // 3], names[len(names) * 2 // 3 :]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        places |= dict.fromkeys(part, file)
        with (folder / file).open("wb") as out:
            out.write(header_bytes([(name, "BF16", shapes[name]) for name in part]))
            for name in part:
                size = int(np.prod(shapes[name])) * 2
                for start in range(0, size, len(pool)):
                    out.write(pool[: min(len(pool), size - start)])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936}
    config |= {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    config |= {"num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768}
    config |= {"rms_norm_eps": 1e-6, "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def once(command: list[str], out: Path) -> Cost:
    """Run a command as a process of its own; `out` is removed before."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read() if child.stderr else b""
    _unused, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors.decode()}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def apart(work: Callable[..., Made], *arguments: object) -> Made:
    """Run a function in a process of its own: a child's peak memory counts from its parent's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(command: list[str], out: Path, times: int = 3) -> Cost:
    """Return the cost of the fastest run of a command; `out` is removed after all of them."""
    costs = [once(command, out) for _unused in range(times)]
    shutil.rmtree(out, ignore_errors=True)
    return min(costs)


def adapters(*words: object) -> list[str]:
    """Return the command line of our own command."""
    return [sys.executable, "-m", "adapters", *map(str, words)]


def line(name: str, found: Cost, against: Cost | None = None) -> None:
    """Print one row, with its ratio to the wall seconds of another where there is one."""
    ratio = f"   {found[0] / against[0]:6.2f}×" if against else ""
    print(f"{name:42} {found[0]:7.2f} s {found[1]:7.2f} s CPU {found[2]:7.0f} MB{ratio}", flush=True)


def main() -> None:
    """Make the files, run everything once more than needed, print the table."""
    with tempfile.TemporaryDirectory(prefix="bench-adapters-") as name:
        work = Path(name)
        out = work / "out"
        bench_merge(work, out)
        bench_large(work, out)
        bench_fuse(work, out)


def bench_merge(work: Path, out: Path) -> None:
    """Merge the 3B pair with ours and with PEFT, the base of which is made small where it plays no part."""
    layers = 2 if SMALL else 36
    one, other = (apart(make_adapter, work / n, layers, QV, 8) for n in ("rte", "mnli"))
    parts = [f"{one}=0.5", f"{other}=0.5", "--out", out]
    ours = measure(adapters("merge", *parts), out)
    line("merge 3B exact", ours)
    line("merge 3B svd 8", measure(adapters("merge", *parts, "--method", "svd", "--rank", 8), out))
    for kind in ("cat", "linear", "svd"):
        command = [sys.executable, "-c", PEFT, str(layers), kind, str(one), str(other), str(out)]
        line(f"  PEFT {kind} (ratio: to ours exact)", measure(command, out, 1), ours)


def bench_large(work: Path, out: Path) -> None:
    """Merge and show the 7B pair."""
    one, other = (apart(make_adapter, work / n, 2 if SMALL else 28, ALL_LINEAR, 32) for n in ("a7", "b7"))
    for weight in (0.5, 0.3):  # 0.3 is rounded in every element
        parts = [f"{one}={weight}", f"{other}=0.5", "--out", out]
        line(f"merge 7B exact, weight {weight}", measure(adapters("merge", *parts), out))
    svd = adapters("merge", *parts, "--method", "svd", "--rank", 32)
    line("merge 7B svd 64→32", measure(svd, out))
    line("show 7B", measure(adapters("show", one), out))


def bench_fuse(work: Path, out: Path) -> None:
    """Fuse the 3B pair into its base beside `cp` of the shards, and beside PEFT."""
    base, pair = apart(make_base, work / "base", 2 if SMALL else 36), [work / "rte", work / "mnli"]
    shards = " ".join(str(path) for path in sorted(base.glob("*.safetensors")))
    copy = f"mkdir {out} && cp {shards} {out}"
    ours = adapters("fuse", *(f"{path}=0.5" for path in pair), "--base", base, "--same-base", "--out", out)
    ways = (["sh", "-c", copy], ["sh", "-c", f"{copy} && sync {out}/*"], ours)
    turns = [[once(way, out) for way in ways] for _unused in range(3)]
    copied, synced, fused = (min(costs) for costs in zip(*turns, strict=True))
    line("cp of the 3B shards", copied)
    line("cp and sync, as fuse ends (ratio: to cp)", synced, copied)
    line("fuse 3B (ratio: to cp)", fused, copied)
    print(f"  {apart(deviation, base, pair, out)}", flush=True)
    theirs = once([sys.executable, "-c", FUSED_BY_PEFT, *map(str, (base, *pair, out))], out)
    line("  PEFT merge_and_unload (ratio: to ours)", theirs, fused)
    print(f"  {apart(deviation, base, pair, out)}", flush=True)


def deviation(base: Path, pair: list[Path], out: Path) -> str:
    """Return in words how many elements of the changed tensors are not W + ΔW in fp64, rounded once."""
    parts, was, found = [open_adapter(path) for path in pair], open_base(base), open_base(out)
    count = wrong = worst = 0
    for module in parts[0].modules:
        name = f"{module}.weight"
        total = was.read(name).astype(np.float64)
        for part in parts:
            a, b = part.factors(module)
            total += 0.5 * part.config.scale_of(module) * (b.astype(np.float64) @ a.astype(np.float64))
        off = np.abs(places(found.read(name)) - places(to_odd(total)))
        count, wrong, worst = count + off.size, wrong + int(np.count_nonzero(off)), max(worst, int(off.max()))
    return f"elements other than the rounded sum: {wrong:,} of {count:,}, by {worst} units at most"


def places(values: Array) -> NDArray[np.int64]:
    """Return which bf16 number each value is, counted from zero."""
    bits = from_fp32(values, "BF16").astype(np.int64)
    return np.where(bits < 0x8000, bits, 0x8000 - bits)


def to_odd(values: NDArray[np.float64]) -> Array:
    """Round fp64 to fp32 so that a second rounding is as good as one: never onto a number that is not it."""
    near = values.astype(np.float32)
    inexact = near != values
    other = np.nextafter(near, np.where(values > near, np.inf, -np.inf).astype(np.float32))
    even = near.view(np.uint32) & 1 == 0
    return np.where(inexact & even, other, near)


if __name__ == "__main__":
    main()
