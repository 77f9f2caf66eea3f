"""`python -m tools.bench.nli [--model DIR] [--rows N] [--dtype fp32]`: how fast labels are scored, as ratios.

In one process, on the same rows and dtype, each the best of two turns taken in turn:
 choice mode against a plain loop that generates 16 tokens one prompt at a time;
 choice mode's tokens per second against the bare forward on random tokens of the same batches;
 the base with a live adapter (rank 16 on every linear) against the base alone.

Run it after a change of the backend hf or of the plan of its batches.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from testing import ROOT
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.llamafactory.prompt import prompt_and_answer
from tuneyard.eval.data.prompts import choose_prompting
from tuneyard.eval.figures.labels import spellings
from tuneyard.eval.models.apply import applied
from tuneyard.eval.models.generate import generate
from tuneyard.eval.models.likelihood import shared_prefix
from tuneyard.eval.models.load import Model, load_model

BUDGET = 2048
SLOW_ROWS = 6  # the plain loop is timed on these


def seconds(*works: Callable[[], object], turns: int = 2) -> list[float]:
    """Return the best wall time of each piece of work; they take turns, so that a busy machine slows all."""
    best = [float("inf")] * len(works)
    for _unused in range(turns):
        for i, work in enumerate(works):
            began = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - began)
    return best


def random_adapter(model: Model, folder: Path, rank: int = 16) -> Path:
    """Write a small random LoRA on every linear but the head."""
    import torch
    from safetensors.torch import save_file

    tensors, targets = {}, set()
    for path, module in model.net.named_modules():
        if isinstance(module, torch.nn.Linear) and path != "lm_head":
            name = f"base_model.model.{path}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, module.in_features) * 0.02
            tensors[f"{name}.lora_B.weight"] = torch.randn(module.out_features, rank) * 0.02
            targets.add(path.rpartition(".")[2])
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": sorted(targets)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def bare(model: Model, batches: list[list[int]], prompts: dict[int, list[int]]) -> None:
    """Run the model's body on random tokens of the shapes that choice mode computes."""
    import torch

    with torch.inference_mode():
        for batch in batches:
            width = max(len(prompts[row]) for row in batch) - shared_prefix(prompts.values())
            ids = torch.randint(0, model.net.config.vocab_size, (len(batch), width), device=model.device)
            model.net.model(input_ids=ids, use_cache=False)


def measure(model: Model, rows: list[dict[str, object]], folder: Path) -> dict[str, float]:
    """Return items per second and the three ratios."""
    encode = choose_prompting(model.tokenizer, [], None).encode
    prompts = {i: encode(prompt_and_answer(row, {}, f"row {i}").messages) for i, row in enumerate(rows)}
    labels = sorted({str(row["output"]) for row in rows})
    model.budget = BUDGET
    asker = model.choosing(prompts, {label: spellings(label) for label in labels})
    adapter = open_adapter(random_adapter(model, folder))

    def choose() -> None:
        for batch in asker.batches:
            asker.score(batch)

    def loop() -> None:
        for row in range(SLOW_ROWS):
            generate(model, [prompts[row]], 16)

    def live() -> None:
        with applied(model, [WeightedAdapter(adapter, 1.0)]):
            choose()

    chosen, looped, forward, beside = seconds(choose, loop, lambda: bare(model, asker.batches, prompts), live)
    return {
        "choice, items/s": len(rows) / chosen,
        "plain loop, items/s": SLOW_ROWS / looped,
        "choice against the plain loop": len(rows) / chosen / (SLOW_ROWS / looped),
        "choice against the bare forward, tokens/s": forward / chosen,
        "live adapter against the base": chosen / beside,
    }


def as_record(row: dict[str, str]) -> dict[str, object]:
    """Return a raw pair as the record that is asked."""
    question = f'Does "{row["premise"]}" imply that "{row["hypothesis"]}"? Please answer yes or no or maybe.'
    return {
        "instruction": f"{question}You only need to answer one word, no explanation",
        "output": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"}[row["label"]],
    }


def sample_rows(count: int) -> list[dict[str, object]]:
    """Records of the first rows of the MNLI sample."""
    lines = (ROOT / "samples" / "mnli" / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    return [as_record(json.loads(line)) for line in lines[:count]]


def print_figures(title: str, figures: Mapping[str, float]) -> None:
    """Print a title and a line for each figure."""
    print(title)
    for name, value in figures.items():
        print(f"  {name:<42} {value:8.2f}")


def main() -> None:
    """Print the figures."""
    import tempfile

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo-base")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--dtype", default="fp32")
    given = parser.parse_args()
    rows = sample_rows(given.rows)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(load_model(given.model, given.dtype), rows, Path(folder))
    print_figures(f"eval.nli, {given.model.name}, {len(rows)} rows, {given.dtype}", figures)


if __name__ == "__main__":
    main()
