"""What all tests share: the root, the real data where it is, a way to run commands, a tiny model."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import make_tiny

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("TUNEYARD_DATA", ROOT.parent / "shared" / "data"))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real public data; tests that need it skip where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}")
    return REAL


@pytest.fixture(scope="session")
def run() -> Run:
    """`run("-m", "compiler", …, code=0)` runs python from the root and checks the exit code."""

    def call(*args: object, code: int = 0, **kwargs: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **kwargs.pop("env", {})}  # type: ignore[dict-item]  # kwargs are subprocess's
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600, **kwargs,  # type: ignore[call-overload]  # as above
        )  # fmt: skip
        assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 model folder with tokenizer and ChatML template."""
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model")
