"""`python -m tools.bench.nli_processes [--model DIR] [--rows N] …`: whole commands, start-up and all.

eval.nli on one set against lm-evaluation-harness 0.4.13 (batch 16), scoring and whole process;
4 models on 2 sets in one process against 8 processes, with the peak memory of each.

Run it after a change of what scoring commands import or load.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from testing import ROOT
from testing.peer_lm_eval import lm_eval, lm_eval_environment
from tools.bench.nli import print_figures, random_adapter, sample_rows
from tuneyard.eval.models.load import load_model

TASK = """task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{instruction}}}}"
doc_to_choice: {labels}
doc_to_target: output
metric_list: [{{metric: acc}}]
"""
HARNESS = {"fp32": "float32", "bf16": "bfloat16"}
NAMES = ("base", "one", "two", "three")


def spent(*arguments: object, module: str = "eval.nli") -> tuple[float, float, float, str]:
    """Run a module as a command; return wall seconds, CPU seconds, peak memory in GB and what it printed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, env=lm_eval_environment())
        _unused, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command} failed")
        said.seek(0)
        text = said.read()
    wall = time.perf_counter() - began
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6, text


def processes(model: Path, folder: Path, sets: dict[str, Path]) -> dict[str, float]:
    """Return the share of time that one process for all takes of a process for each model and set."""
    adapters = {}
    for name in NAMES[1:]:
        (folder / name).mkdir()
        adapters[name] = random_adapter(load_model(model, "fp32"), folder / name)
    given = [part for name, path in adapters.items() for part in ("--adapter", f"{name}={path}")]
    data = [part for path in sets.values() for part in ("--data", path)]
    one = spent("--model", model, *given, *data, "--out", folder / "all")
    many = []
    for name in NAMES:
        own = ["--no-base", "--adapter", f"{name}={adapters[name]}"] if name in adapters else []
        for label, path in sets.items():
            out = folder / f"{name}-{label}"
            many.append(spent("--model", model, *own, "--data", path, "--out", out))
    return {
        "one process against eight, wall": one[0] / sum(run[0] for run in many),
        "one process against eight, CPU": one[1] / sum(run[1] for run in many),
        "peak memory of the one, GB": one[2],
        "peak memory of each of the eight, GB": max(run[2] for run in many),
    }


def beside_harness(model: Path, data: Path, threads: int, dtype: str) -> dict[str, float]:
    """Return how many times as fast as the harness one set is scored, scoring alone and as whole commands."""
    folder = data.parent
    labels = sorted({row["output"] for row in json.loads(data.read_text())})
    (folder / "own.yaml").write_text(TASK.format(data=data, labels=json.dumps(labels)))
    ours = spent("--model", model, "--data", data, "--out", folder / "ours", "--dtype", dtype)
    scoring = float(re.findall(r"([\d.]+) s \(", ours[-1])[-1])
    theirs = lm_eval(model, "-", data, folder / "theirs.json", str(threads), "16", HARNESS[dtype])
    given = f"pretrained={model},dtype={HARNESS[dtype]}"
    asked = ["--tasks", "own", "--include_path", folder, "--apply_chat_template"]
    where = ["--device", "cpu", "--batch_size", 16, "--output_path", folder / "harness"]
    whole = spent("--model", "hf", "--model_args", given, *asked, *where, module="lm_eval")
    return {
        "the harness's time against ours, scoring": theirs["scoring_s"] / scoring,
        "the harness's time against ours, commands": whole[0] / ours[0],
        "the same in CPU seconds": whole[1] / ours[1],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo-base")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=HARNESS, default="fp32", help="of the part beside the harness")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    rows = sample_rows(given.rows)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        halves = {"a": rows[::2], "b": rows[1::2]}
        sets = {name: folder / f"{name}.json" for name in (*halves, "whole")}
        for name, part in {**halves, "whole": rows}.items():
            sets[name].write_text(json.dumps(part))
        figures = beside_harness(given.model, sets.pop("whole"), given.threads, given.dtype)
        figures |= processes(given.model, folder, sets)
    run = f"{given.model.name}, {len(rows)} rows, {given.threads} threads, {given.dtype}"
    print_figures(f"eval.nli as commands, {run}", figures)


if __name__ == "__main__":
    main()
