"""python -m eval.code --model models/demo-base --data eval/suites/toolkit-code.jsonl --run-code --out …

Has functions written and runs each against the tests of its record: pass@1, one greedy answer a task.
Writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-code.md explains them.

A program runs in a process of its own with bounds (time, memory, no network, no file written), in an empty
folder, without our environment. It is no jail: it can still read what its user can read.
"""

import json
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import click

from tuneyard.core.errors import ContentError, RequestError, run, show_value
from tuneyard.eval.backends.scorers import Fields, Scorer
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.metrics.labels import accuracy_line
from tuneyard.eval.read.results import Prediction
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Job, Task, line_of
from tuneyard.eval.statistics.rates import accuracy_of, groups_of

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
SECONDS = 5  # of computing; twice that of waiting
MEMORY = 1 << 29
REFUSED = 77  # the exit code of a child (below) that could not leave the network

# unshare(2) takes network and processes away: root makes these namespaces itself and becomes nobody, whom a
# limit of processes holds, anybody else makes them in a user namespace. The program is the first process of
# its namespace, so that its end is the end of all that it starts, and it ends with its parent (prctl(2),
# PR_SET_PDEATHSIG). Modules that answers use are loaded before: nobody may be kept from reading Python's own.
# What it prints goes nowhere; the verdict leaves by a descriptor of its own.
_CHILD = """
import ctypes, json, os, resource, sys
import array, bisect, calendar, cmath, collections, contextlib, copy, dataclasses, datetime, decimal, enum
import fractions, functools, hashlib, heapq, io, itertools, json, math, numbers, operator, queue, random, re
import statistics, string, struct, textwrap, time, types, typing, unicodedata
job, libc, root = json.load(sys.stdin), ctypes.CDLL(None), os.getuid() == 0
if libc.unshare(0x60000000 if root else 0x70000000):
    os._exit(77)
if os.fork():
    os.wait()
    os._exit(0)
if root:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
libc.prctl(1, 9)
for limit, most in job["limits"].items():
    resource.setrlimit(getattr(resource, limit), (most, most))
out, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nowhere, stream)
names = {"__name__": "__answer__"}
try:
    exec(job["program"], names)
    failed = next((test for test in job["tests"] if not eval(test, names)), None)
    why = "" if failed is None else "failed: " + failed
except BaseException as error:
    why = type(error).__name__ + ": " + str(error)
os.write(out, (job["token"] + why[:500]).encode(errors="replace"))
os._exit(0)
"""


@scoring_command(
    "tuneyard eval code --model models/demo-base --data eval/suites/toolkit-code.jsonl "
    "--run-code --limit 1 --max-new-tokens 8 --out results/run",
    "tuneyard eval code --model models/demo-base --adapter demo-rte --data "
    "eval/suites/toolkit-code.jsonl --run-code --limit 1 --max-new-tokens 8 --out results/programs",
    own=[
        click.option(
            "--run-code", is_flag=True, help="Agree that what the models write is run on this machine."
        )
    ],
    longest=384,
)
def cli(request: ScoringRequest, run_code: bool) -> Asked:
    """Have functions written and run their tests: pass@1 with its 95 % interval.

    Programs run one by one with bounds of time and memory and without a network; they can read what you can.
    """
    if not run_code:
        raise RequestError(
            "what models write is run as a program here: agree by --run-code (best in a container)"
        )
    sets = read_datasets(request.datasets, request.data, request.cluster)
    for dataset in sets:
        check_tests(dataset)
    return Code(), sets


def check_tests(dataset: EvalDataset) -> None:
    """Raise `ContentError` naming the first record whose `tests` are no list of expressions."""
    for number, record in enumerate(dataset.records, 1):
        tests = record.get("tests")
        if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
            raise ContentError(
                f"{dataset.path}: record {number}: tests: found {show_value(tests)}, expected a list of "
                "Python expressions that must be true, such as add_all([1, 2]) == 3"
            )


def program_of(answer: str) -> str:
    """Return the program in an answer: its first block of code, else all of it."""
    text = cut_thought(answer)
    found = _BLOCK.search(text)
    return found[1] if found else text


def run_tests(program: str, tests: Sequence[str]) -> str:
    """Run a program, then tests (expressions that must be true); return "" or why they are not passed.
    `RequestError` where the network cannot be taken from a process (it takes Linux's namespaces)."""
    token = secrets.token_hex(16)  # without it, no output of the program is taken for the verdict
    limits = {"RLIMIT_CPU": SECONDS, "RLIMIT_AS": MEMORY, "RLIMIT_FSIZE": 0, "RLIMIT_NPROC": 0}
    job = {"program": program, "tests": list(tests), "token": token, "limits": limits}
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _CHILD],
                cwd=folder,
                env={},
                input=json.dumps(job).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                timeout=2 * SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {2 * SECONDS} s"
    if process.returncode == REFUSED:
        raise RequestError(
            "--run-code: the network cannot be taken from a program here (unshare(2) is refused): "
            "run it in a container that allows user namespaces"
        )
    verdict = process.stdout.decode(errors="replace")
    if not verdict.startswith(token):
        return f"ended by itself or at a limit ({SECONDS} s, {MEMORY >> 20} MB)"
    return verdict.removeprefix(token)


class Code(Task):
    """Programs against tests, one answer a task."""

    command = "eval.code"

    def scorer(self, job: Job) -> Scorer:
        """Return one that generates; `RequestError` beforehand where programs cannot be run here."""
        run_tests("", ["True"])
        return job.generating()

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return task, reference, answer, the program in it, and whether it passes or why not."""
        record = job.dataset.records[row]
        program = program_of(str(fields.get("model_output", "")))
        tests = [str(test) for test in record["tests"]] if isinstance(record["tests"], list) else []
        why = str(fields["refused"]) if "refused" in fields else run_tests(program, tests)
        return {**line_of(job, row, fields), "predicted_output": program, "correct": not why, "why": why}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:  # noqa: ARG002
        """Return pass@1 as the accuracy, and how the programs that failed ended."""
        kinds = [str(p["why"]).partition(":")[0] for p in predictions if p["why"]]
        return {
            **accuracy_of([bool(p["correct"]) for p in predictions], groups_of(predictions)),
            "majority": 0.0,
            "failures": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return pass@1, its interval and how the others ended."""
        ended = ", ".join(f"{kind} {count}" for kind, count in results["failures"].items())
        return f"pass@1 {accuracy_line(results)}{f'  ({ended})' if ended else ''}"


if __name__ == "__main__":
    run(cli)
