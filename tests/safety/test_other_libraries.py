"""Files that another library reads are checked before: it would take all memory, wait, or name no place.

SECURITY.md, "Texts".
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from testing.tiny import make_weightless
from tests.conftest import ROOT
from tests.json_files import read_json, write_json
from tests.messages import raises
from tuneyard.core.datasets import find_dataset, read_registry
from tuneyard.core.datasets.compiled import read_row_index
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.core.files.bounded_reading import LARGEST_FILE, open_regular
from tuneyard.core.llamafactory.prompt.tokenizer_files import check_tokenizer_files
from tuneyard.core.weights.tensors import open_weights
from tuneyard.eval.models import loading
from tuneyard.eval.models.gguf_tokens import check_fields
from tuneyard.eval.models.load import find_model
from tuneyard.recipes.recipe.data import locate

SIZE = 5_000_000_000
CONTENTS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a sparse file": lambda path: (path.touch(), os.truncate(path, SIZE))[0],
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "config.json", "tokenizer.model", "merges.txt", "chat_template.jinja"]
)
def test_files_of_a_tokenizer_are_measured_first(tmp_path: Path, name: str, content: str) -> None:
    CONTENTS[content](tmp_path / name)
    with raises(ContentError, name):
        check_tokenizer_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[]"),
        ("generation_config.json", "null"),
        ("special_tokens_map.json", '{"eos_token": '),
        ("preprocessor_config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"model_max_length": ' + "9" * 10_000 + "}"),
        ("tokenizer.json", '{"model": 7}'),
    ],
)
def test_settings_of_a_tokenizer_have_a_place(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with raises(ContentError, name):
        check_tokenizer_files(tmp_path)


def test_a_proper_tokenizer_is_taken(tmp_path: Path) -> None:
    """trainer_state.json, which transformers does not read here, may have any size."""
    model = make_weightless(tmp_path / "model")
    (model / "trainer_state.json").touch()
    os.truncate(model / "trainer_state.json", LARGEST_FILE + 1)
    check_tokenizer_files(model)
    (model / "trainer_state.json").rename(model / "added_tokens.json")
    with raises(ContentError, "added_tokens.json"):
        check_tokenizer_files(model)


def numpy_file(header: str, rows: bytes = b"") -> bytes:
    """A file of numpy's format 1.0."""
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + rows


def row_index(shape: str, kind: str = "<u8", name: str = "xxh3") -> str:
    return f"{{'descr': [('{name}', '{kind}')], 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "content",
    [
        numpy_file(row_index("(1099511627776,)")),
        numpy_file(row_index("(300000000,)"), b"\0" * 8),
        numpy_file(row_index("(-1,)")),
        numpy_file(row_index("(2,)", "<f8"), b"\0" * 16),
        numpy_file(row_index("(2,)", "S8"), b"\0" * 16),
        numpy_file(row_index("(2,)", name="id"), b"\0" * 16),
        numpy_file("(" * 5000),
        b"PK\x03\x04" + b"\0" * 100,
        b"\x80\x04.",
        b"",
    ],
)  # fmt: skip
def test_a_broken_row_index_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.examples.npy").write_bytes(content)
    with raises(ContentError, "a.examples.npy"):
        read_row_index(tmp_path / "a.jsonl")


def test_a_row_index_is_read(tmp_path: Path) -> None:
    rows = np.array([(3,), (7,)], [("xxh3", "<u8")])
    np.save(tmp_path / "a.examples.npy", rows)
    index = read_row_index(tmp_path / "a.jsonl")
    assert index is not None
    assert index.fingerprints.tolist() == [3, 7]


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


FIELD = struct.pack("<IQQ", 3, 0, 1) + text(b"a")
"""A GGUF of version 3 without tensors and with one field."""
LIST_OF = struct.pack("<I", 9)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<IQQ", 3, 0, 1 << 60),
        struct.pack("<IQQ", 3, 1 << 60, 0),
        struct.pack("<IQQQ", 3, 0, 1, 1 << 60),
        FIELD + LIST_OF + struct.pack("<IQ", 0, 1 << 60),
        FIELD + LIST_OF + struct.pack("<IQ", 8, 1 << 60),
        FIELD + LIST_OF + struct.pack("<IQ", 4, 1000),
        FIELD + LIST_OF * 5000,
        FIELD + struct.pack("<IQ", 8, 1 << 63),
        FIELD,
        b"",
    ],
)  # fmt: skip
def test_fields_of_a_gguf_fit_into_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + content)
    with raises(ContentError, "x.gguf"):
        check_fields(tmp_path / "x.gguf")


def test_fields_of_a_proper_gguf_are_taken(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "", "日本"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, 2.0])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_float64("x.float", 0.1)
    writer.add_tensor("t", np.zeros((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_fields(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes((tmp_path / "x.gguf").read_bytes()[:120])
    with raises(ContentError, "x.gguf"):
        check_fields(tmp_path / "x.gguf")


def safetensors_file(header: str, size: int = 0) -> bytes:
    return struct.pack("<Q", size or len(header)) + header.encode()


ONE = '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'


@pytest.mark.parametrize(
    "content",
    [
        safetensors_file("{}", 1 << 40),
        safetensors_file("{}", (1 << 64) - 1),
        safetensors_file("[" * 100_000),
        safetensors_file("[]"),
        safetensors_file('{"a": ' + "9" * 5000 + "}"),
        safetensors_file(ONE),
        safetensors_file(ONE.replace("[0, 4]", "[0, 4000000000000]")),
        safetensors_file(ONE.replace("[0, 4]", '["0", "4"]')) + b"\0" * 4,
        safetensors_file(ONE.replace("[0, 4]", "null")) + b"\0" * 4,
        safetensors_file('{"a": 1}') + b"\0" * 4,
        b"\0\0",
        b"",
    ],
)  # fmt: skip
def test_a_broken_header_of_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with raises(ContentError, "a.safetensors"):
        open_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00001.safetensors"])
def test_the_weights_of_a_model_are_checked_before_transformers(tmp_path: Path, name: str) -> None:
    make_weightless(tmp_path)
    if name != "model.safetensors":
        write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": name, "b": 7}})
    (tmp_path / name).write_bytes(safetensors_file("{}", 1 << 40))
    with raises(ContentError, name):
        find_model(str(tmp_path))
    (tmp_path / name).write_bytes(safetensors_file(ONE) + b"\0" * 4)
    assert find_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("begin", [b"", safetensors_file(ONE) + b"\0" * 4, safetensors_file("{}", 1 << 32)])
def test_sparse_safetensors_are_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    """The library maps a file before it looks at its header, which needs as many addresses."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(begin)
    os.truncate(path, SIZE)
    monkeypatch.setattr("safetensors.safe_open", None)
    with raises(ContentError, "a.safetensors"):
        open_weights(path)


def test_a_header_of_more_tensors_than_a_model_has_is_called_that(tmp_path: Path) -> None:
    """It is not damaged: getting the file again would not help."""
    path = tmp_path / "a.safetensors"
    length = LARGEST_FILE + 1
    path.write_bytes(length.to_bytes(8, "little"))
    os.truncate(path, length + 8)
    with raises(ContentError, "a.safetensors", f"{length:,} bytes", f"{LARGEST_FILE:,} at most"):
        open_weights(path)


@pytest.mark.parametrize("error", [ValueError(), IndexError("x"), MemoryError(), AssertionError()])
def test_an_error_of_a_library_may_have_no_words(error: Exception) -> None:
    with raises(ContentError, "folder"), loading("folder"):
        raise error


def test_an_error_while_a_file_is_read_names_it() -> None:
    """Page 0 of a process is never mapped: to read it is an error as of a broken disk."""
    with pytest.raises(OSError, match="self/mem") as caught, open_regular(Path("/proc/self/mem")) as file:
        file.read(10)
    assert caught.value.filename == "/proc/self/mem"


def test_a_registry_that_is_a_dangling_link_is_refused(tmp_path: Path) -> None:
    """A compile would make the file that it leads to, and the folders on the way."""
    (tmp_path / "dataset_info.json").symlink_to(tmp_path / "away" / "gone")
    with raises(RequestError, "dataset_info.json", str(tmp_path / "away" / "gone")):
        read_registry(tmp_path)
    write_json(tmp_path / "real.json", {})
    (tmp_path / "dataset_info.json").unlink()
    (tmp_path / "dataset_info.json").symlink_to("real.json")
    assert read_registry(tmp_path) == {}


@pytest.mark.parametrize("content", ["a pipe", "a device"])
@pytest.mark.parametrize("place", ["a.jsonl", "folder/part.jsonl"])
def test_data_that_llamafactory_would_wait_for_are_refused(tmp_path: Path, place: str, content: str) -> None:
    """`recipe check`, `plan` and `train` waited for ever; `eval` called the pipe a folder."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    CONTENTS[content](tmp_path / place)
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": place.partition("/")[0]}})
    with raises(ContentError, place):
        locate("a", str(tmp_path))
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": place}})
    with raises(ContentError, place):
        find_dataset("a", tmp_path)
    with raises(ContentError, place):
        sha256(tmp_path / place)


@pytest.mark.parametrize(
    "normalizer",
    [
        [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}] * 9,
        [{"type": "Replace", "pattern": {"Regex": "."}, "content": "b" * 2000}],
        [{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x"}] * 3}]
        + [{"type": "Replace", "pattern": {"Regex": "x"}, "content": "xx"}] * 12,
    ],
)
def test_a_tokenizer_does_not_multiply_a_text(tmp_path: Path, normalizer: list[dict[str, object]]) -> None:
    """`tokenizer.encode("a")` took 1 GB, and one more step ends the process."""
    model = make_weightless(tmp_path / "model")
    content = read_json(model / "tokenizer.json")
    content["normalizer"] = {"type": "Sequence", "normalizers": normalizer}
    write_json(model / "tokenizer.json", content)
    with raises(ContentError, "tokenizer.json", "normalizer"):
        check_tokenizer_files(model)


def test_a_panic_of_a_library_is_one_line(tmp_path: Path) -> None:
    """A pattern of a mailed tokenizer.json that its library gives up raises no `Exception`."""
    model = make_weightless(tmp_path / "model")
    content = read_json(model / "tokenizer.json")
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = pattern
    write_json(model / "tokenizer.json", content)
    program = f"""
import click, tokenizers
from tuneyard.core.cli.run import run_command
@click.command()
def command():
    tokenizers.Tokenizer.from_file({str(model / "tokenizer.json")!r}).encode("a" * 60 + "!")
run_command(command)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Onig: Regex search error" in done.stderr
