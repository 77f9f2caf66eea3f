"""Merge methods from other packages: the example of docs/extending.md, and plug-ins that go wrong."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.json_files import read_json
from tests.messages import printed, printed_line
from tests.plug_ins import documented, installing
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import delta, factors, make
from tuneyard.adapters import methods
from tuneyard.adapters.__main__ import _method_options
from tuneyard.adapters.model.store import open_adapter

HEAD = "import numpy as np\nfrom tuneyard.adapters.methods import method\n"


@pytest.fixture
def install(working_folder, monkeypatch):
    """Install packages with one merge method each, beside two adapters in the working folder."""
    make(working_folder / "a", factors(1))
    make(working_folder / "b", {path: (3 * a, b) for path, (a, b) in factors(2).items()})
    with installing(working_folder, methods.GROUP, monkeypatch, methods.methods, _method_options) as lay:
        yield lay


def test_the_files_of_the_folder_are_the_methods():
    files = [path.stem for path in sorted((ROOT / "adapters/methods").glob("[!_]*.py"))]
    files.remove("pruning")  # which several methods share
    assert list(methods.methods()) == files


def by_hand(matrix, share):
    """A matrix without this share of its elements, the largest ones, by sorting."""
    places = sorted(range(matrix.size), key=lambda place: abs(matrix.flat[place]))
    kept = np.zeros(matrix.shape)
    for place in places[: round((1 - share) * matrix.size)]:
        kept.flat[place] = matrix.flat[place]
    return kept


def test_a_plug_in_with_a_parameter_is_one_file(install):
    """Breadcrumbs of docs/extending.md: option, YAML key, checks and merge.json come from its declaration."""
    install("breadcrumbs", documented("matrix_method"))
    words = ("merge", "./a=0.5", "./b=-0.5", "--method", "breadcrumbs", "--rank", "24")
    out, _ = call(*words, "--outliers", "0.25", "--out", "out")
    assert out.startswith("breadcrumbs  ./a=0.5  ./b=-0.5") and "which is not the weighted sum" in out
    result = open_adapter("./out")
    first, second = open_adapter("./a"), open_adapter("./b")
    for module in first.modules:
        one, other = delta(first, module), delta(second, module)
        expected = 0.5 * by_hand(one, 0.25) - 0.5 * by_hand(other, 0.25)
        np.testing.assert_allclose(delta(result, module), expected, rtol=0, atol=1e-4)
    record = read_json(Path("out/merge.json"))
    assert (record["method"], record["parameters"]) == ("breadcrumbs", {"rank": 24, "outliers": 0.25})
    assert record["result"]["compared_with"] == "method's result of full rank"
    printed_line(call("show", "./out")[0], "breadcrumbs", "outliers 0.25", "a (0.5)", "b (-0.5)")
    options = call("merge", "--help")[0]
    assert "--outliers FLOAT" in options and "breadcrumbs: share of elements to drop" in options
    Path("r.yaml").write_text(
        "adapters: [./a=0.5, ./b=-0.5]\nmethod: breadcrumbs\noutliers: 0.25\nrank: 24\nout: again\n"
    )
    call("merge", "r.yaml")
    assert Path("again/merge.json").read_bytes() == Path("out/merge.json").read_bytes()
    call(*words, "--out", "default")
    assert read_json(Path("default/merge.json"))["parameters"] == {"rank": 24, "outliers": 0.01}


def test_a_declared_parameter_is_checked(install):
    install("mine", MINE)
    words = ("merge", "./a=1", "--out", "out", "--method")
    for value in ("0", "1.5", "nan", "many"):
        error = call(*words, "mine", "--share", value, code=2)[1]
        printed(error, "--share", "found")
    assert "--share belongs to --method mine" in call(*words, "exact", "--share", "0.5", code=2)[1]
    Path("r.yaml").write_text("adapters: [./a=1]\nmethod: mine\nshare: 2\nout: out\n")
    printed(call("merge", "r.yaml", code=1)[1], "share", "2", "0", "1")


MINE = f"""{HEAD}from tuneyard.adapters.methods import Parameter
SHARE = Parameter("share", float, "a share.", above=0, maximum=1)
@method("mine", rank="sum", parameters=[SHARE])
def mine(factors, rank, values): return factors.exact
"""


def test_a_parameter_that_takes_the_name_of_an_option_is_refused(install):
    install("mine", MINE.replace('"share"', '"force"'))
    printed(call("merge", "./a=1", "--out", "x", code=1)[1], "'force'", "plug_mine 1.2")


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
        ("a, b = factors.exact; return a * float('nan'), b", "ValueError: A or B contains NaN or infinity"),
        ("a, b = factors.exact; return a, b + float('inf')", "ValueError: A or B contains NaN or infinity"),
        ("a, b = factors.exact; return a[:, 1:], b", r"A \[16, 23\] and B \[24, 16\] are no factors"),
        ("a, b = factors.exact; return a[:8], b[:, :9]", r"A \[8, 24\] and B \[24, 9\] are no factors"),
        ("a, b = factors.exact; return np.tile(a, (2, 1)), np.tile(b, 2)", "rank 32 is above 16"),
    ],
)
def test_a_method_that_fails_is_named_with_its_package_and_leaves_nothing(install, tmp_path, body, said):
    install("bad", f"{HEAD}@method('bad', rank='sum')\ndef bad(factors, rank, values):\n    {body}\n")
    _, error = call("merge", "./a=0.5", "./b=0.5", "--out", "out", "--method", "bad", code=1)
    assert re.search(said, error)
    printed(error, "'bad'", "plug_bad 1.2", "tuneyard.merge_methods")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "ZeroDivisionError"),
        ("return factors.exact", "AttributeError"),
        ("return np.zeros((24, 23))", r"\[24, 23\] is no matrix of \[24, 24\]"),
        ("return np.full(factors.shape, np.inf)", "NaN or infinity"),
    ],
)
def test_a_method_on_delta_that_fails_is_named_with_its_package(install, tmp_path, body, message):
    code = f"{HEAD}from tuneyard.adapters.methods import matrix_method\n"
    install("bad", f"{code}@matrix_method('bad')\ndef bad(factors, values):\n    {body}\n")
    _, error = call("merge", "./a=0.5", "./b=0.5", "--out", "out", "--method", "bad", code=1)
    assert re.search(message, error)
    printed(error, "'bad'", "plug_bad 1.2", "tuneyard.merge_methods")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("plain", "def plain(factors, rank): return factors.exact\n"),
        ("exact", f"{HEAD}@method('exact', rank='sum')\ndef exact(factors, rank, values): raise OSError\n"),
    ],
    ids=["plain", "exact"],
)
def test_what_is_no_method_and_what_takes_a_name_is_refused(install, name, code):
    install(name, code)
    _, error = call("merge", "./a=1", "--out", "out", code=1)
    printed(error, f"'{name}'", f"plug_{name} 1.2", "tuneyard.merge_methods")
