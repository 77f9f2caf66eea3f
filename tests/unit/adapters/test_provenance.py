"""The files that a user meets, byte for byte: a merged adapter's config and card, a fused model's card.

`pytest --regenerate` of this file writes them anew; look at the difference before you commit it.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT
from tests.messages import printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import factors, make, make_base
from tuneyard.adapters.model.store import open_adapter
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
def written_files(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("golden"))
        write()
        yield {file: text_of(file) for file in FILES}


@pytest.mark.parametrize("file", FILES)
def test_files_are_the_golden_ones(written_files, file, pytestconfig):
    if pytestconfig.getoption("regenerate"):
        (GOLDEN / file).write_text(written_files[file])
    assert written_files[file] == (GOLDEN / file).read_text()


HOW = [["--method=svd", "--rank=5"], ["--method=svd", "--energy=0.9", "--dtype=fp16"], ["--dtype=bf16"]]


@pytest.mark.usefixtures("two_adapters")
@pytest.mark.parametrize("how", HOW, ids=" ".join)
def test_the_recipe_in_the_card_makes_the_merge_again(how):
    odd = "else where/#1: $x_{$/checkpoint-5"
    make(odd, factors(3))
    call("merge", "rte=0.3", f"{odd}=-0.7", *how, "--out", "x")
    card = Path("x/README.md").read_text()
    printed_line(card, "rte (0.3)", "#1: $x\\_{$-checkpoint-5 (-0.7)")
    for name in ("rte", odd):
        assert open_adapter(name).digest in card
    assert "base_model: org/base" in card
    assert "numpy" in card
    block = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1]
    Path("again.yaml").write_text(block)
    call("merge", "again.yaml", "--out", "y")
    for file in ("adapter_model.safetensors", "adapter_config.json", "README.md", "merge.json"):
        assert Path(f"x/{file}").read_bytes() == Path(f"y/{file}").read_bytes()


@pytest.mark.usefixtures("two_adapters")
def test_names_in_the_card_are_no_yaml_of_their_own():
    make("saves/odd", factors(1), base_model_name_or_path="x\nlicense: mit")
    call("merge", "odd=1", "--out", "x")
    front = Path("x/README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front) == {
        "base_model": "x\nlicense: mit", "library_name": "peft", "tags": ["lora", "merge"],
    }  # fmt: skip
    make("saves/red", factors(1), base_model_name_or_path="\x1b[31mred\n")
    assert call("show", "red")[0].splitlines()[0].startswith('red  base "\\u001b[31mred\\n"  ')
