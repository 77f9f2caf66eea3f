"""python -m tools.bench.verify [ROWS]: CPU seconds of verify beside its tokenizer alone (default 40,000).

Run it after a change of data verify.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from testing.real_data import DATA, QWEN, TOKENIZERS, find
from testing.tiny import make_tiny
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.verify.dataset import verify
from tuneyard.core.datasets import read_records

MNLI = 392_702


def main(rows: int) -> None:
    """Compile rows of MNLI (of the bundled sample where there are none), verify them, print ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = find(TOKENIZERS, QWEN) or make_tiny(folder / "model")
        source = make_rows(folder / "train.jsonl", rows)
        compile_dataset(CompileRequest(load_spec("mnli"), sources=(f"train={source}",), out=folder / "out"))
        settings = {"model_name_or_path": str(model), "template": "qwen", "cutoff_len": 4096}
        start, _unused = measured("importing LLaMA-Factory", import_all, 1)
        one, verdict = measured("verify", lambda: verify("alpaca_mnli_train", folder / "out", settings), rows)
        if verdict.failed or verdict.same != rows:  # type: ignore[attr-defined]  # a Verdict
            sys.exit("verify found something wrong with rows that are right")
        records = read_records(folder / "out/mnli/alpaca_mnli-train.json")
        texts = [str(record["instruction"]) for record in records]
        alone, _unused = measured("tokenizer alone, in batches", lambda: tokenise(model, texts), rows)
    print(f"verify / tokenizer alone: {one / alone:.2f} (CPU seconds)")
    print(f"at {MNLI} rows: {start + one * MNLI / rows:.0f} CPU s, {alone * MNLI / rows:.0f} the tokenizer's")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def make_rows(path: Path, rows: int) -> Path:
    """Write so many distinct rows: real pairs with a running number."""
    source = find(DATA, "mnli/dev_matched.jsonl") or Path("samples/mnli/train.jsonl")
    pairs = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    pairs = [pair for pair in pairs if pair["label"] != "-"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            pair = pairs[number % len(pairs)]
            premise = f"{pair['premise']} ({number // len(pairs)})"
            row = {
                "premise": premise,
                "hypothesis": pair["hypothesis"],
                "label": pair["label"],
                "idx": number,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def import_all() -> None:
    """Import what verify needs of LLaMA-Factory."""
    from tuneyard.core.llamafactory.loader import import_offline
    from tuneyard.core.llamafactory.processors import processor_module

    import_offline()
    processor_module("sft")


def tokenise(model: Path, texts: list[str]) -> None:
    """Tokenise all texts with the fast tokenizer, a thousand at a time."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for start in range(0, len(texts), 1000):
        tokenizer(texts[start : start + 1000], add_special_tokens=False, return_attention_mask=False)


def measured(what: str, call: Callable[[], object], rows: int) -> tuple[float, object]:
    """Call, print wall clock and CPU seconds of all threads and workers, return the latter and the result."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = call()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    each = f", {rows / cpu:,.0f} rows per CPU second" if rows > 1 else ""
    print(f"{what}: {wall:.1f} s, {cpu:.1f} CPU s{each}", flush=True)
    return cpu, result


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
