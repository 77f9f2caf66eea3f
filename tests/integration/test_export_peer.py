"""What llama.cpp's own converters make of the same model and adapter, beside ours: equal to the bit.

Their source comes with the package llama-cpp-python, which is fetched and not built. The model has the
tokenizer of the embedded one, which they know, and tensors with an eighth of its width.
"""

import subprocess
import sys
import tarfile

import pytest

from testing.peers import BASE_PYTHON
from tests.conftest import ROOT
from tests.unit.adapters.make import factors, make

pytestmark = [pytest.mark.peer, pytest.mark.slow]
WIDTH, KEYS = 64, 32  # 4 heads, 2 key heads
# What is named otherwise: they guess at a name and a size, we carry the licence.
OTHER_WORDS = {
    "GGUF.kv_count", "general.license", "general.name", "general.size_label", "general.source.sha256",
    "tokenizer.ggml.add_space_prefix",
}  # fmt: skip


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory):
    """A checkout of llama.cpp, as the sdist of llama-cpp-python holds it."""
    home = tmp_path_factory.mktemp("llama")
    package = "llama-cpp-python"  # `:all:` would also build what its metadata is made with
    fetch = [BASE_PYTHON, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package, "-d", home]
    done = subprocess.run([*fetch, package], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"llama-cpp-python cannot be fetched: {done.stderr[-200:]}")
    with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
        archive.extractall(home, filter="data")
    return next(home.glob("*/vendor/llama.cpp"))


def read(path):
    """Return {name: (type, bytes)} and the fields of a GGUF."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    tensors = {t.name: (t.tensor_type, t.data.tobytes()) for t in reader.tensors}
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_models(run, forks, llama_cpp, narrow_smollm, tmp_path, kind):
    forks.run(
        "adapters", "export", narrow_smollm, "--to", "gguf", "--type", kind, "--out", tmp_path / "ours.gguf"
    )
    theirs = ["--outfile", tmp_path / "theirs.gguf", "--outtype", kind]
    run(llama_cpp / "convert_hf_to_gguf.py", narrow_smollm, *theirs)
    (ours, fields), (theirs, others) = read(tmp_path / "ours.gguf"), read(tmp_path / "theirs.gguf")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    differing = {name for name in fields.keys() | others.keys() if fields.get(name) != others.get(name)}
    assert differing <= OTHER_WORDS


def test_adapters(forks, llama_cpp, narrow_smollm, tmp_path):
    shapes = {"q_proj": (WIDTH, WIDTH), "k_proj": (KEYS, WIDTH), "v_proj": (KEYS, WIDTH)}
    adapter = make(
        tmp_path / "lora", factors(layers=30, rank=4, shapes=shapes), r=4, target_modules=list(shapes)
    )
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    forks.run("adapters", "export", adapter, "--to", "gguf", "--base", narrow_smollm, "--out", ours)
    convert = [llama_cpp / "convert_lora_to_gguf.py", adapter, "--base", narrow_smollm, "--outtype", "f32"]
    subprocess.run([sys.executable, *map(str, convert), "--outfile", str(theirs)], cwd=ROOT, check=True)
    (found, fields), (wanted, others) = read(ours), read(theirs)
    assert fields["adapter.lora.alpha"] == others["adapter.lora.alpha"] == 16
    assert found == wanted
