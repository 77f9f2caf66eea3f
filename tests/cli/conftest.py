"""What tests of scoring commands share: a dataset, a model that samples, one thread."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
import pytest

from tests.cli.scoring import PAIRS, call
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.eval.backends.load import Model, load_model


@pytest.fixture
def one_thread() -> None:
    """More threads than one cost more than they help a tiny model."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def loaded(tiny_model: Path) -> Model:
    """The tiny model in fp32."""
    return load_model(tiny_model, "fp32")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset "tiny" of five pairs of sentences. Files with rows of their own define another `data`."""
    path = tmp_path / "tiny.json"
    write_json(path, PAIRS)
    return path


@pytest.fixture
def score(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`score(command, …)` runs it with the tiny model, by default into tmp_path/out; returns that folder."""

    def run(command: click.Command, *words: object, model: Path = tiny_model, out: str = "out") -> Path:
        call(command, "--model", model, "--out", tmp_path / out, *words)
        return tmp_path / out

    return run


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., AbstractContextManager[object]]:
    """`with refused(RequestError, "--seed"): …` is `raises`, and then there is no folder tmp_path/out."""

    @contextmanager
    def check(error: type[Exception], *facts: object) -> Iterator[None]:
        with raises(error, *facts):
            yield
        assert not (tmp_path / "out").exists()

    return check


@pytest.fixture
def sampling_model(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`sampling_model(temperature=0.7)` is a copy of the tiny model whose generation_config samples so."""

    def copy(**settings: float) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
        write_json(folder / "generation_config.json", {"do_sample": True, **settings})
        return folder

    return copy
