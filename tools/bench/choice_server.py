"""`python -m tools.bench.choice_server [--model DIR] [--data FILE] [--rows N]`: speed of a server.

On the same rows, one after the other, with one thread each: choice mode in this process (fp32), and over a
real llama.cpp server (xllamacpp) with the same weights as GGUF. Rows a second, CPU seconds and the ratios of
both, the largest difference of a label's log-probability, and the rows whose most likely label differs.

Run it after a change of how labels are scored over a server.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from testing import ROOT
from testing.llama_server import llama_server
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.llamafactory.prompt import prompt_and_answer
from tuneyard.eval.data.prompts import choose_prompting
from tuneyard.eval.figures.labels import spellings
from tuneyard.eval.models.batch_plan import BatchPlan, Fields
from tuneyard.eval.models.connection import Connection
from tuneyard.eval.models.load import load_model, open_tokenizer
from tuneyard.eval.models.open_server import open_server
from tuneyard.eval.models.served import read_models

BUDGET = 2048


@dataclass(frozen=True, slots=True)
class Turn:
    """The fields of each row, and the wall and CPU seconds that they took."""

    fields: dict[int, Fields]
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Rows a second of wall time."""
        return len(self.fields) / self.seconds


def cpu_seconds() -> float:
    """CPU seconds of this process and of the servers that it started."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def score(make_scorer: Callable[[], BatchPlan]) -> Turn:
    """Score all rows once."""
    batch_plan = make_scorer()
    fields: dict[int, Fields] = {}
    began, cpu_began = time.perf_counter(), cpu_seconds()
    for batch in batch_plan.batches:
        fields.update(zip(batch, batch_plan.score(batch), strict=True))
    return Turn(fields, time.perf_counter() - began, cpu_seconds() - cpu_began)


def differences(here: Turn, there: Turn) -> tuple[float, list[int]]:
    """The largest difference in nats, and the rows whose most likely label differs."""
    largest, flips = 0.0, []
    for row, fields in here.fields.items():
        served = there.fields[row]
        for label, value in fields["choices"].items():
            largest = max(largest, abs(value - served["choices"][label]))
        if fields["model_output"] != served["model_output"]:
            flips.append(row)
    return largest, flips


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo-base")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "dataset_info" / "demo_rte" / "demo_rte-eval.json"
    )
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--type", dest="types", action="append", help="Of the GGUF. Repeatable. [f16]")
    parser.add_argument("--slots", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    records = json.loads(options.data.read_text(encoding="utf-8"))[: options.rows]
    examples = [prompt_and_answer(record, {}, f"row {row}") for row, record in enumerate(records)]
    labels = {label: spellings(label) for label in sorted({example.answer for example in examples})}
    model = load_model(options.model, "fp32")
    encode = choose_prompting(model.tokenizer, [], None).encode
    prompts = {row: encode(example.messages) for row, example in enumerate(examples)}
    model.budget = BUDGET
    here = score(lambda: model.choosing(prompts, labels))
    print(f"{options.model.name}, {len(prompts)} rows of {options.data.name}, one thread each", flush=True)
    print(f"  {'this process, fp32':<24} {here.rate:7.2f} rows/s {here.cpu_seconds:8.1f} CPU s", flush=True)
    tokenizer, ends = open_tokenizer(str(options.model))
    for gguf_type in options.types or ["f16"]:
        with tempfile.TemporaryDirectory() as folder:
            gguf = Path(folder) / f"{gguf_type}.gguf"
            words = ["export", str(options.model), "--to", "gguf", "--type", gguf_type, "--out", str(gguf)]
            adapters.main([*words, "-q"], standalone_mode=False)
            with llama_server(gguf, options.slots) as url:
                server = open_server(read_models(Connection(url), ""), "", False).with_labels(tokenizer, ends)
                there = score(partial(server.choosing, prompts, labels))
        largest, flips = differences(here, there)
        name = f"llama.cpp, {gguf_type}"
        print(f"  {name:<24} {there.rate:7.2f} rows/s {there.cpu_seconds:8.1f} CPU s")
        print(
            f"    against this process: rows/s {there.rate / here.rate:.2f}, CPU seconds "
            f"{there.cpu_seconds / here.cpu_seconds:.2f}"
        )
        print(f"    largest difference {largest:.5f} nats, {len(flips)} rows with another label", flush=True)


if __name__ == "__main__":
    main()
