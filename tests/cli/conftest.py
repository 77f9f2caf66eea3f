"""What tests of scoring commands share: a dataset, a model that samples, one thread."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import click
import pytest

from testing.tiny import write_adapter
from tests.cli.proving import ROWS, Home, end_the_first_answer
from tests.cli.scoring import PAIRS, call
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.eval.models import connection as connecting
from tuneyard.eval.models.apply import applied
from tuneyard.eval.models.load import load_model


@pytest.fixture
def one_thread() -> None:
    """More threads than one cost more than they help a tiny model."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset "tiny" of five pairs of sentences."""
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


@pytest.fixture(scope="module")
def loaded_home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("prove_server")
    write_json(folder / "rows.json", ROWS)
    base = shutil.copytree(tiny_model, folder / "base")
    adapters = {
        name: write_adapter(folder / name, seed=seed, alpha=2, base_model_name_or_path=str(base))
        for seed, name in enumerate(("one", "two"))
    }
    with ExitStack() as stack:
        models = {"base": load_model(base, "fp32")}
        for name, path in adapters.items():
            models[name] = load_model(base, "fp32")
            stack.enter_context(applied(models[name], [WeightedAdapter(open_adapter(path), 1.0)]))
        home = Home(folder, base, adapters, models, stack)
        end_the_first_answer(home)
        yield home


@pytest.fixture
def home(loaded_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The base and two adapters, without a server yet. A request that fails is tried again at once."""
    monkeypatch.setattr(connecting, "WAITS", (0.0, 0.0))
    loaded_home.servers.clear()
    return loaded_home
