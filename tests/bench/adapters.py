"""`python -m tests.bench.adapters [--small]`: merge and fuse beside PEFT and `cp`, whole processes.

Shapes are those of Qwen2.5-3B (36 layers, q and v, rank 8; base of 6.17 GB in bf16) and of the 7B (all
linear layers, rank 32). Everything is made in a temporary folder (15 GB; 0.5 GB with --small, which cuts
the layers to two) and deleted. Wall seconds are the best of three, memory is the peak of the process.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from core.weights import header_bytes, write_weights

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


def make_adapter(folder: Path, layers: int, shapes: dict[str, tuple[int, int]], rank: int) -> Path:
    """Write a random adapter of these shapes."""
    folder.mkdir()
    rng = np.random.default_rng(len(folder.name))
    specs = []
    for layer in range(layers):
        for name, (outputs, inputs) in shapes.items():
            specs.append((f"{PREFIX}.{layer}.{name}.lora_A.weight", "F32", (rank, inputs)))
            specs.append((f"{PREFIX}.{layer}.{name}.lora_B.weight", "F32", (outputs, rank)))
    values = (rng.standard_normal(shape, np.float32) * np.float32(0.02) for _, _, shape in specs)
    write_weights(folder / "adapter_model.safetensors", specs, values, {"format": "pt"})
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
    names, places = list(shapes), {}
    noise = np.random.default_rng(0).standard_normal(1 << 22, np.float32) * np.float32(0.03)
    pool = (noise.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    for number, part in enumerate((names[: len(names) * 2 // 3], names[len(names) * 2 // 3 :]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        places |= dict.fromkeys(part, file)
        with (folder / file).open("wb") as out:
            out.write(header_bytes([(name, "BF16", shapes[name]) for name in part], {"format": "pt"}))
            for name in part:
                size = int(np.prod(shapes[name])) * 2
                for start in range(0, size, len(pool)):
                    out.write(pool[: min(len(pool), size - start)])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {"model_type": "qwen2", "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def measure(command: list[str], out: Path, times: int = 3) -> tuple[float, float]:
    """Run a command and return (best wall seconds, peak MB); `out` is removed before each run and after."""
    best, peak = float("inf"), 0.0
    for _ in range(times):
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors = child.stderr.read() if child.stderr else b""
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)}\n{errors.decode()}")
        best, peak = min(best, time.perf_counter() - started), max(peak, usage.ru_maxrss / 1024)
    shutil.rmtree(out, ignore_errors=True)
    return best, peak


def adapters(*words: object) -> list[str]:
    """Return the command line of our own command."""
    return [sys.executable, "-m", "adapters", *map(str, words)]


def line(name: str, found: tuple[float, float], against: tuple[float, float] | None = None) -> None:
    """Print one row, with its ratio to another where there is one."""
    ratio = f"   {found[0] / against[0]:6.2f}×" if against else ""
    print(f"{name:44} {found[0]:7.2f} s {found[1]:7.0f} MB{ratio}", flush=True)


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
    one, other = (make_adapter(work / n, layers, QV, 8) for n in ("rte", "mnli"))
    ours = measure(adapters("merge", f"{one}=0.5", f"{other}=0.5", "--out", out), out)
    line("merge 3B exact", ours)
    line("merge 3B svd 8", measure(
        adapters("merge", f"{one}=0.5", f"{other}=0.5", "--method", "svd", "--rank", 8, "--out", out), out
    ))  # fmt: skip
    for kind in ("cat", "linear", "svd"):
        command = [sys.executable, "-c", PEFT, str(layers), kind, str(one), str(other), str(out)]
        line(f"  PEFT {kind} (ratio: to ours exact)", measure(command, out, 1), ours)


def bench_large(work: Path, out: Path) -> None:
    """Merge and show the 7B pair."""
    one, other = (make_adapter(work / n, 2 if SMALL else 28, ALL_LINEAR, 32) for n in ("a7", "b7"))
    parts = [f"{one}=0.5", f"{other}=0.5"]
    line("merge 7B exact", measure(adapters("merge", *parts, "--out", out), out))
    line(
        "merge 7B svd 64→32",
        measure(adapters("merge", *parts, "--method", "svd", "--rank", 32, "--out", out), out),
    )
    line("show 7B", measure(adapters("show", one), out))


def bench_fuse(work: Path, out: Path) -> None:
    """Fuse the 3B pair into its base beside `cp` of the shards."""
    base = make_base(work / "base", 2 if SMALL else 36)
    shards = " ".join(str(path) for path in sorted(base.glob("*.safetensors")))
    copied = measure(["sh", "-c", f"mkdir {out} && cp {shards} {out}"], out)
    line("cp of the 3B shards", copied)
    parts = [f"{work / 'rte'}=0.5", f"{work / 'mnli'}=0.5"]
    line(
        "fuse 3B (ratio: to cp)", measure(adapters("fuse", *parts, "--base", base, "--out", out), out), copied
    )


if __name__ == "__main__":
    main()
