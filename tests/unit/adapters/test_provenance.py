"""The files that a user meets, byte for byte: a merged adapter's config and card, a fused model's card.

`pytest --regenerate` of this file writes them anew; look at the difference before you commit it.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.unit.adapters.make import make, make_base
from tests.unit.adapters.test_commands import call
from tuneyard.core.files import versions

GOLDEN = ROOT / "tests/golden/adapters"
FILES = (
    "merge/adapter_config.json",
    "merge/README.md",
    "svd/README.md",
    "fuse/README.md",
    "fuse/config.json",
)


def write():
    """Merge and fuse adapters of small whole numbers in the working folder: nothing is rounded anywhere."""
    module = "model.layers.0.q_proj"
    x = {module: (np.array([[1, 2], [3, 4]]), np.array([[1, 0], [0, 2]]))}
    y = {module: (np.array([[5, 7]]), np.array([[1], [-1]]))}
    make("x", x, r=2, lora_alpha=4, target_modules=["q_proj"])
    make("y", y, r=1, lora_alpha=3, target_modules=["q_proj"])
    make_base("base", {f"{module}.weight": np.eye(2)}, "F32", tie_word_embeddings=True)
    call("merge", "./x=0.5", "./y=-1", "--out", "merge")
    call("merge", "./y=-1", "--method", "svd", "--energy", "0.99", "--dtype", "bf16", "--out", "svd")
    call("fuse", "./x=0.5", "./y=-1", "--base", "base", "--out", "fuse")


def text_of(file):
    """A written file's text, without the version of numpy."""
    return Path(file).read_text().replace(f"numpy {versions('numpy')['numpy']}", "numpy VERSION")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("golden"))
        write()
        yield {file: text_of(file) for file in FILES}


@pytest.mark.parametrize("file", FILES)
def test_files_are_the_golden_ones(written, file, pytestconfig):
    if pytestconfig.getoption("regenerate"):
        (GOLDEN / file).write_text(written[file])
    assert written[file] == (GOLDEN / file).read_text()
