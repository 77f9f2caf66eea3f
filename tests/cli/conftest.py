"""What tests of scoring commands share: a dataset, a model that samples, one thread."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.scoring import PAIRS


@pytest.fixture
def one_thread() -> None:
    """More threads than one cost more than they help a tiny model."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset "tiny" of five pairs of sentences. Files with rows of their own define another `data`."""
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(PAIRS))
    return path


@pytest.fixture
def sampling_model(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`sampling_model(temperature=0.7)` is a copy of the tiny model whose generation_config samples so."""

    def copy(**settings: float) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
        (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, **settings}))
        return folder

    return copy


@pytest.fixture
def empty_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write empty pictures of ours, for tests of their names: drawing one takes 0.2 s."""
    from matplotlib.figure import Figure

    for name in ("draw_bars", "draw_confusion", "draw_calibration"):
        monkeypatch.setattr(f"tuneyard.eval.show.plots.{name}", lambda *_: Figure(figsize=(1, 1)))
