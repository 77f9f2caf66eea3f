"""Merge methods from other packages: the example of docs/extending.md, and plug-ins that go wrong."""

import re
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.unit.adapters.make import delta, dense, factors, make
from tests.unit.adapters.test_commands import call
from tuneyard.adapters import methods
from tuneyard.adapters.__main__ import _method_options
from tuneyard.adapters.store import open_adapter
from tuneyard.core import plugins

HEAD = "import numpy as np\nfrom tuneyard.adapters.methods import method\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay installed distributions `plug_NAME` with one merge method into a folder of sys.path."""

    def lay(name, code):
        info = tmp_path / f"plug_{name}-1.2.dist-info"
        info.mkdir()
        (tmp_path / f"plug_{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug_{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{methods.GROUP}]\n{name} = plug_{name}:{name}\n")

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a", factors(1))
    make(tmp_path / "b", {path: (3 * a, b) for path, (a, b) in factors(2).items()})
    forget()
    yield lay
    forget()


def forget():
    plugins.load.cache_clear()
    methods.methods.cache_clear()
    _method_options.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        del sys.modules[name]


def test_the_files_of_the_folder_are_the_methods():
    assert list(methods.methods()) == methods.names() == ["exact", "linear", "svd"]


def test_the_example_of_the_docs_is_a_method(install):
    text = (ROOT / "docs/extending.md").read_text()
    (code,) = re.findall(r"```python\n(from tuneyard.adapters.*?)```", text, re.DOTALL)
    install("balanced", code)
    out, _ = call("merge", "./a=0.5", "./b=0.5", "--out", "out", "--method", "balanced")
    assert out.startswith("balanced  ./a=0.5  ./b=0.5")
    result, one, other = open_adapter("./out"), dense(factors(1)), dense(factors(2))
    assert set(result.layout) == set(one)
    for module in one:
        norms = [np.linalg.norm(one[module]), 3 * np.linalg.norm(other[module])]
        expected = np.mean(norms) * 0.5 * (one[module] / norms[0] + 3 * other[module] / norms[1])
        np.testing.assert_allclose(delta(result, module), expected, rtol=0, atol=1e-4)
    call("merge", "./a=0.5", "./b=0.5", "--out", "exact")  # the others are as they were


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return None", "TypeError: "),
        (
            "a, b = factors.exact; return a, b[1:]",
            r"ValueError: A \[16, 24\] and B \[23, 16\] are no factors",
        ),
        ("a, b = factors.exact; return a[1:], b", "are no factors of 24×24"),
        ("a, b = factors.exact; return a * float('nan'), b", "ValueError: A or B holds NaN or infinity"),
        ("a, b = factors.exact; return a, b + float('inf')", "ValueError: A or B holds NaN or infinity"),
        ("a, b = factors.exact; return a[:, 1:], b", r"A \[16, 23\] and B \[24, 16\] are no factors"),
        ("a, b = factors.exact; return a[:8], b[:, :9]", r"A \[8, 24\] and B \[24, 9\] are no factors"),
        ("a, b = factors.exact; return np.tile(a, (2, 1)), np.tile(b, 2)", "rank 32 is above 16"),
    ],
)
def test_a_method_that_fails_is_named_with_its_package_and_leaves_nothing(install, tmp_path, body, said):
    install("bad", f"{HEAD}@method('bad', rank='sum')\ndef bad(factors, rank, values):\n    {body}\n")
    _, error = call("merge", "./a=0.5", "./b=0.5", "--out", "out", "--method", "bad", code=1)
    assert re.search(rf"plug-in 'bad' of plug_bad 1.2 \(tuneyard.merge_methods\) failed: .*{said}", error)
    assert not (tmp_path / "out").exists()


def test_what_is_no_method_and_what_takes_a_name_is_left_out_with_a_warning(install, capsys):
    install("plain", "def plain(factors, rank): return factors.exact\n")
    install("exact", f"{HEAD}@method('exact', rank='sum')\ndef exact(factors, rank, values): raise OSError\n")
    out, error = call("merge", "./a=1", "--out", "out")
    assert out.startswith("exact  ./a=1")
    assert "plug-in 'plain' of plug_plain 1.2 (tuneyard.merge_methods): no function with @method" in error
    assert "merge method 'exact' of plug_exact 1.2: the name is taken" in error
