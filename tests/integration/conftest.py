"""A clean copy of the checkout, and the demo run in it once, killed in the middle and run again.

Workers of pytest-xdist share what takes long: whichever needs it first makes it.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testing.forks import Forks
from testing.real_data import QWEN, TOKENIZERS
from testing.tiny import make_narrow
from tests.conftest import OFFLINE, ROOT
from tests.integration.recipes_stages import write_recipes
from tests.json_files import read_json, write_json, write_lines
from tests.processes import is_free, wait_until
from tests.real_data import real_path
from tests.unit.recipes.make import write_recipe
from tuneyard.core.files import sha256


@dataclass
class Checkout:
    """A copy of the tracked files in `root`; its commands are those of .venv, or forks."""

    root: Path
    forks: Forks | None = None
    variables: dict[str, str] = field(default_factory=dict)
    """Further variables of the environment of its commands."""

    def shell(self, command: str) -> str:
        """Run a line of bash at the copy's root; the output of both streams is returned."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2400,
        )
        assert done.returncode == 0, f"$ {command}\nexit {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment of a user who has activated .venv and is offline."""
        if self.forks is not None:
            return {**self.forks.env, **self.variables}
        return {**os.environ, "PATH": f"{self.root / '.venv/bin'}:{os.environ['PATH']}", **OFFLINE}


@dataclass
class Demo:
    """What one whole `make demo` left: the checkout, what it said, its table, and the user's own datasets."""

    checkout: Checkout
    said: str
    table: dict[str, object]
    untouched: dict[str, str]


def copy_tracked_files(root: Path) -> Checkout:
    """Tracked and new files and links, copied with their times (make compares them); .venv is a link."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name, follow_symlinks=False)  # tuneyard/core is a link to core
    (root / ".venv").symlink_to(ROOT / ".venv")
    for name in ("pyproject.toml", "requirements-core.lock", "requirements.lock", "requirements-dev.lock"):
        # If they were newer than .venv, make would install the copy into the linked .venv.
        os.utime(root / name, (1e9, 1e9))
    return Checkout(root)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases if this process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of the whole run, which no test changes: the first worker that asks makes it."""
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    folder, unfinished = common / name, common / f"{name}.unfinished"
    with locked(common / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)  # of a worker that failed
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def smollm(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """The embedded base model."""
    return made_once(tmp_path_factory, "smollm", lambda folder: forks.run("recipes", "base", "--out", folder))


@pytest.fixture(scope="session")
def narrow_smollm(tmp_path_factory: pytest.TempPathFactory, smollm: Path) -> Path:
    """The embedded base model with its tokenizer and 30 layers, each of an eighth of the width, untrained."""
    return made_once(tmp_path_factory, "narrow", lambda folder: make_narrow(smollm, folder))


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tuneyard/`, a checkout with a finished demo, and `said.txt`, `kept.json`."""
    return made_once(tmp_path_factory, "finished-demo", finish_demo)


def finish_demo(folder: Path) -> None:
    """Run the demo beside a compiled rte: killed (SIGKILL) in the first training, then to its end."""
    checkout = copy_tracked_files(folder / "tuneyard")
    rows = [{"premise": f"P {n}.", "hypothesis": f"H {n}.", "label": n % 2, "idx": n} for n in range(8)]
    write_lines(checkout.root / "own.jsonl", rows)
    checkout.shell("tuneyard data compile rte --source train=own.jsonl")
    kept = user_dataset(checkout)
    kill_in_training(checkout)
    said = checkout.shell("make demo")
    (folder / "said.txt").write_text(said, encoding="utf-8")
    write_json(folder / "kept.json", kept)


def user_dataset(checkout: Checkout) -> dict[str, str]:
    """The SHA-256 of each file of the user's own rte by name, and its entry in the registry as text."""
    folder = checkout.root / "dataset_info" / "rte"
    kept = {path.name: sha256(path) for path in folder.iterdir()}
    registry = read_json(checkout.root / "dataset_info/dataset_info.json")
    kept["entry"] = json.dumps(registry["alpaca_rte_train"])
    return kept


@pytest.fixture(scope="session")
def llamafactory() -> Iterator[Forks]:
    """A process that has imported LLaMA-Factory: for its own commands, and modules that call it."""
    with Forks("llamafactory.train.tuner", "tests.integration.gloo_for_deepspeed", env=OFFLINE) as running:
        yield running


@pytest.fixture(scope="session")
def demo(demo_folder: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """This worker's own copy of the checkout with the finished demo, times of files included."""
    root = tmp_path_factory.mktemp("checkout") / "tuneyard"
    shutil.copytree(demo_folder / "tuneyard", root, symlinks=True)
    said = (demo_folder / "said.txt").read_text(encoding="utf-8")
    table = read_json(root / "results/demo/verdict/table.json")
    kept = read_json(demo_folder / "kept.json")
    return Demo(Checkout(root, forks), said, table, kept)


def kill_in_training(checkout: Checkout) -> None:
    """Start `make demo` and SIGKILL all of it in its first training, which then ends by itself."""
    process = subprocess.Popen(
        ["make", "demo"],
        cwd=checkout.root,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    saves = checkout.root / "saves"
    wait_until(lambda: any(log.stat().st_size for log in saves.glob("demo-*/train.log")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: all(map(is_free, saves.iterdir())))


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Any:
    """The tiny model as transformers loads it in fp32, for tests of adapters."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture
def save(base: Any, tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`save("name", seed=1, **LoraConfig fields)` writes PEFT's adapter of the base with random factors."""
    from tests.integration.peft_oracle import save_adapter

    return lambda name, **fields: save_adapter(base, tiny_model, tmp_path / name, **fields)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe next to the config of its model, for a trainer that trains nothing."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    return write_recipe(tmp_path, model_name_or_path=str(tmp_path / "model"), report_to="none")


@pytest.fixture(scope="module")
def sft_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A recipe of 16 steps on the tiny model that saves every fourth, next to one for each other stage."""
    return write_recipes(tmp_path_factory.mktemp("train"), tiny_model)


@pytest.fixture
def train(forks: Forks) -> Callable[..., str]:
    """`train(recipe, …, code=0)` runs `recipe train` and returns what it says."""

    def run(*arguments: object, code: int = 0) -> str:
        done = forks.run("recipes", "train", *arguments, code=code)
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module", params=["tiny", QWEN])
def loaded_tokenizer(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    """The tiny model's tokenizer, and that of Qwen2.5."""
    from transformers import AutoTokenizer

    folder = tiny_model if request.param == "tiny" else real_path(QWEN, TOKENIZERS)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def tokenizer(loaded_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tokenizer with the chat template that it was loaded with; loading it takes most of a test."""
    monkeypatch.setattr(loaded_tokenizer, "chat_template", loaded_tokenizer.chat_template)
    return loaded_tokenizer
