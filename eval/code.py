"""tuneyard eval code --model models/demo-base --data eval/suites/toolkit-code.jsonl --run-code --out …

Generates functions and runs each against the tests of its record: pass@1, one greedy answer a task.
Writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-code.md explains them.

A program runs in its own process with bounds (time, memory, no network, no file written), in an empty folder,
without our environment. This is no jail: the program can still read everything that its user can read.
"""

import json
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import click

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError, unexpected
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.language.message import _
from tuneyard.eval.backends.scorers import Fields, Scorer
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.metrics.labels import accuracy_line
from tuneyard.eval.read.results import Prediction, Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.options import RescorableOption, ScoringRequest
from tuneyard.eval.scoring.task import Job, Task, line_of
from tuneyard.eval.statistics.rates import accuracy_of, groups_of

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
SECONDS = 5  # of computing; twice that of waiting
MEMORY = 1 << 29
REFUSED = 77  # the exit code of a child (below) that could not leave the network

# unshare(2) takes network and processes away. Root makes these namespaces itself and becomes nobody, since a
# limit of processes does not apply to root. Other users make them in a user namespace. The program is the
# first process of its namespace: its end ends everything that it starts. It also ends with its parent
# (prctl(2), PR_SET_PDEATHSIG). Modules that answers use are imported before, since nobody may lack the right
# to read them. Its output is dropped. The verdict has a file descriptor of its own.
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
    "code",
    "tuneyard eval code --model models/demo-base --data eval/suites/toolkit-code.jsonl "
    "--run-code --limit 1 --max-new-tokens 8 --out results/run",
    "tuneyard eval code --model models/demo-base --adapter demo-rte --data "
    "eval/suites/toolkit-code.jsonl --run-code --limit 1 --max-new-tokens 8 --out results/programs",
    options=[
        click.option(
            "--run-code",
            cls=RescorableOption,
            is_flag=True,
            help="Allow the programs that the models write to run on this machine.",
        )
    ],
    longest=384,
)
def cli(
    request: ScoringRequest,  # noqa: ARG001  the same for all commands
    datasets: Sequence[EvalDataset],
    run_code: bool,
) -> Declared:
    """Generate functions and run their tests: pass@1 with its 95 % interval.

    Programs run one by one with bounds of time and memory and without a network. They can read your files.
    """
    if not run_code:
        raise RequestError(
            _(
                "programs that models write run on this machine: allow it with --run-code (best in a "
                "container)"
            )
        )
    for dataset in datasets:
        check_tests(dataset)
    return Code(), datasets


def check_tests(dataset: EvalDataset) -> None:
    """Raise `ContentError` with the first record whose `tests` are not a list of expressions."""
    for row, record in enumerate(dataset.records):
        tests = record.get("tests")
        if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
            expected = _("a list of Python expressions that must be true, such as add_all([1, 2]) == 3")
            raise unexpected(dataset.place(row), "tests", tests, expected)


def program_of(answer: str) -> str:
    """Extract the program from an answer: its first code block, otherwise the whole answer."""
    text = cut_thought(answer)
    block = _BLOCK.search(text)
    return block[1] if block else text


def run_tests(program: str, tests: Sequence[str]) -> str:
    """Run a program, then its tests (expressions that must be true). The reason why it fails, or "".

    `RequestError` if a process cannot be cut off from the network (this needs Linux namespaces).
    """
    token = secrets.token_hex(16)  # marks the verdict, so that the program cannot write one
    limits = {"RLIMIT_CPU": SECONDS, "RLIMIT_AS": MEMORY, "RLIMIT_FSIZE": 0, "RLIMIT_NPROC": 0}
    job = {"program": program, "tests": list(tests), "token": token, "limits": limits}
    with scratch_folder() as folder:
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
            _(
                "--run-code: a program cannot be cut off from the network here (unshare(2) is "
                "refused): run it in a container that allows user namespaces"
            )
        )
    verdict = process.stdout.decode(errors="replace")
    if not verdict.startswith(token):
        return f"ended by itself or at a limit ({SECONDS} s, {MEMORY >> 20} MB)"
    return verdict.removeprefix(token)


class Code(Task):
    """Programs against tests, one answer a task."""

    def scorer(self, job: Job) -> Scorer:
        """Generate; `RequestError` before that if programs cannot run here."""
        run_tests("", ["True"])
        return job.generating()

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Task, reference, answer, the program in it, and the reason why it fails, or ""."""
        tests = job.dataset.records[row]["tests"]  # a list: check_tests
        program = program_of(str(fields.get("model_output", "")))
        failure = str(fields.get("too_long", ""))
        if "refused" in fields:
            failure = f"refused: {fields['refused']}"
        if not failure:
            failure = run_tests(program, tests)
        return {
            **line_of(job, row, fields),
            "predicted_output": program,
            "correct": not failure,
            "why": failure,
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:  # noqa: ARG002
        """pass@1 as the accuracy, and the kinds of failures with their counts."""
        failures = Counter(line["why"].partition(":")[0] for line in predictions if line["why"])
        return {
            **accuracy_of([bool(line["correct"]) for line in predictions], groups_of(predictions)),
            "majority": 0.0,
            "failures": dict(sorted(failures.items())),
        }

    def line(self, results: Results) -> str:
        """pass@1, its interval, and the kinds of failures."""
        line = _("pass@1 {accuracy}", accuracy=accuracy_line(results))
        if not results["failures"]:
            return line
        failures = ", ".join(f"{kind} {count}" for kind, count in results["failures"].items())
        return _("{line}  ({failures})", line=line, failures=failures)


if __name__ == "__main__":
    run_command(cli)
