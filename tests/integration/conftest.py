"""A clean copy of the checkout, and the demo run in it once, killed in the middle and run again."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT


@dataclass
class Checkout:
    """A copy of the tracked files in `root`, with the .venv of the checkout under test."""

    root: Path

    def shell(self, command: str, *, code: int = 0, timeout: int = 1500) -> str:
        """Run a line of bash at the copy's root; the output of both streams is returned."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code, f"$ {command}\nexit {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment of a user who has activated .venv and is offline."""
        path = f"{self.root / '.venv/bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}


@dataclass
class Demo:
    """What one whole `make demo` left: the checkout, what it said, and the seconds of a second one."""

    checkout: Checkout
    said: str
    table: dict[str, object]
    untouched: dict[str, bytes]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Tracked and new files, copied with their times (make compares them); .venv is a link."""
    root = tmp_path_factory.mktemp("checkout") / "tuneyard"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").symlink_to(ROOT / ".venv")
    return Checkout(root)


@pytest.fixture(scope="session")
def demo(checkout: Checkout) -> Demo:
    """Run the demo beside a compiled rte: killed (SIGKILL) in the first training, then to its end."""
    rows = [{"premise": f"P {n}.", "hypothesis": f"H {n}.", "label": n % 2, "idx": n} for n in range(8)]
    (checkout.root / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkout.shell("python -m compiler compile rte --source train=own.jsonl")
    kept = {path.name: path.read_bytes() for path in (checkout.root / "dataset_info" / "rte").iterdir()}
    kept["entry"] = entry(checkout)
    kill_in_training(checkout)
    said = checkout.shell("make demo")
    table = json.loads((checkout.root / "results/demo/verdict/table.json").read_text())
    return Demo(checkout, said, table, kept)


def entry(checkout: Checkout) -> bytes:
    """The registry's entry of the user's own rte, as bytes."""
    registry = json.loads((checkout.root / "dataset_info/dataset_info.json").read_text())
    return json.dumps(registry["alpaca_rte_train"]).encode()


def kill_in_training(checkout: Checkout) -> None:
    """Start `make demo` and SIGKILL all of it some seconds after its first training has begun."""
    process = subprocess.Popen(
        ["make", "demo"],
        cwd=checkout.root,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not any((checkout.root / "saves").glob("demo-*/")) and time.monotonic() < deadline:
        assert process.poll() is None, "make demo ended before it could be killed"
        time.sleep(0.5)
    time.sleep(5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # the training is told by the kernel that its parent is gone, and ends
