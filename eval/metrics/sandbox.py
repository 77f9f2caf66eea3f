"""Running a generated program with bounds: time, memory, no network, no file written. It is no jail.

The program runs in a process of its own, in an empty folder, without our environment. It can still read
what its user can read: run untrusted models in a container.
"""

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from core.errors import RequestError

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


def run_tests(program: str, tests: Sequence[str]) -> str:
    """Run a program, then tests (expressions that must be true); return "" or why they are not passed.

    `RequestError` where the network cannot be taken from a process (it takes Linux's namespaces).
    """
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
