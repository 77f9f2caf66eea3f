"""Sources at s3:// and other addresses: the bytes of local files, ranges only, and every failure."""

import hashlib
import io
import json
import random
import sys
import time

import fsspec
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import yaml

from tests.messages import printed, raises
from tests.s3_server import KEYS, Store, serving
from tests.unit.compiler.conftest import ROWS, Bench, as_csv, as_parquet, as_zip, json_lines, layouts
from tuneyard.compiler.cli import cli
from tuneyard.compiler.publish.drift import compile_again
from tuneyard.compiler.publish.listing import dataset_lines
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.read import jsons, read, remote, stream
from tuneyard.compiler.read.remote import RemoteFile, RemoteFolder, find_remote
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets.compiled import read_manifest
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import bounded_columns

pytest.importorskip("moto")
pytest.importorskip("s3fs")
LAYOUTS = (
    "bom.jsonl",
    "pretty.json",
    "table.csv",
    "table.csv.zst",
    "table.parquet",
    "table.parquet.gz",
    "members.jsonl.gz",
)
NOISE = random.Random(0)
QUESTIONS = [
    {"question": f"What is {n} + {n}? {NOISE.randbytes(40).hex()}", "answer": f"It is {2 * n}."}
    for n in range(500)
]


@pytest.fixture(scope="module")
def server():
    with serving() as store:
        yield store


@pytest.fixture
def store(server: Store, monkeypatch):
    """The store with its keys in the environment, and no request yet."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    server.requests.clear()
    server.before = lambda _method, _key: None
    return server


def as_lines(rows: list[dict]) -> bytes:
    return json_lines(rows).encode()


def as_arrow(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=250)
    return buffer.getvalue()


def written(bench: Bench, name: str) -> dict[str, bytes]:
    """The files of a dataset, its manifest without what names the sources."""
    files = {}
    for path in sorted((bench.out / name).iterdir()):
        files[path.name] = path.read_bytes()
    manifest = json.loads(files.pop("manifest.json"))
    del manifest["made_from"]["sources"], manifest["notes"], manifest["first_problems"]
    return {**files, "manifest": json.dumps(manifest).encode()}


@pytest.mark.slow
def test_every_layout_has_the_bytes_of_a_local_file(bench, store) -> None:
    files = {name: data for name, data in layouts(ROWS).items() if name in LAYOUTS}
    for name, data in {**files, "a.zip": as_zip({"a.csv": files["table.csv"]})}.items():
        here = bench.compile("rte", f"train={bench.write(name, data)}", force=True)
        local = written(bench, "rte")
        there = bench.compile("rte", f"train={store.put(name, data)}", force=True)
        assert written(bench, "rte") == local, name
        assert (there.read, there.kept) == (here.read, here.kept) == (3, 3)


FORMATS = {
    "a.jsonl": as_lines(QUESTIONS),
    "a.csv": as_csv(QUESTIONS).encode(),
    "a.parquet": as_parquet(QUESTIONS, 100),
    "a.arrow": as_arrow(QUESTIONS),
    "a.json": json.dumps(QUESTIONS).encode(),
}


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Blocks of 4 or 8 kB, so that a small file has many."""
    monkeypatch.setattr(stream, "BLOCK", 1 << 12)
    monkeypatch.setattr(jsons, "LOOKED_AT", 1 << 12)
    monkeypatch.setattr(remote, "BLOCK", 1 << 13)
    monkeypatch.setattr(stream, "AHEAD", 1 << 13)


READ = [pytest.param(name, 1, marks=pytest.mark.slow) for name in ("a.csv", "a.arrow", "a.json")]
READ += [("a.jsonl", 1), ("a.parquet", 1), ("a.jsonl", 2)]


@pytest.mark.parametrize(("name", "workers"), READ)
def test_remote_files_are_read_once_each(bench, store, small_blocks, name, workers) -> None:
    """One file for each split: two files, which this process reads, or two workers."""
    data = FORMATS[name]
    sources = {split: store.put(f"{split}/{name}", data) for split in ("train", "eval")}
    locally = [f"{split}={bench.write(f'{split}/{name}', data)}" for split in sources]
    spec = bench.write(
        "two.yaml",
        "like: qa\nsource: {splits: {train: train, eval: eval}}\nwrite: [{dataset: "
        "'q_{split}', file: 'q-{split}.json'}]\n",
    )
    bench.compile(spec, *locally, workers=1)
    local = written(bench, "two")
    store.requests.clear()
    bench.compile(
        spec, *(f"{split}={source}" for split, source in sources.items()), workers=workers, force=True
    )
    assert written(bench, "two") == local
    assert store.bytes_sent(f"train/{name}") <= 1.3 * len(data)
    manifest = read_manifest(bench.out / "two")
    assert manifest is not None
    compiled = manifest.sources[0]
    assert (compiled.path, compiled.sha256) == (sources["train"], "")
    assert compiled.version == f"{len(data)} bytes, ETag {hashlib.md5(data).hexdigest()}"


def test_a_second_compile_asks_for_the_version_alone(bench, store) -> None:
    source = store.put("again.jsonl", as_lines(QUESTIONS[:5]))
    assert not bench.compile("qa", source).up_to_date
    store.requests.clear()
    assert bench.compile("qa", source).up_to_date
    assert {method for method, *_ in store.requests} == {"HEAD"}
    assert not any("stale" in line for line in dataset_lines(Registry(bench.out)))
    manifest = read_manifest(bench.out / "qa")
    assert manifest is not None and f"={source}`" in compile_again(manifest)
    store.put("again.jsonl", as_lines(QUESTIONS[5:10]))
    (line,) = dataset_lines(Registry(bench.out))
    assert f"source {source} has changed" in line
    assert not bench.compile("qa", source).up_to_date
    store.before = lambda _method, _key: 403
    (line,) = dataset_lines(Registry(bench.out))
    assert f"stale: unknown: {source}: cannot be read" in line


def test_wherever_a_path_may_stand(bench, store, here) -> None:
    """A folder, a spec, splits by the names of files; check, show, init."""
    train = store.put("many/rte-train.jsonl", as_lines(ROWS))
    store.put("many/rte-dev.jsonl", as_lines(ROWS[:1]))
    store.put("many/README.md", b"about them")
    folder = find_remote("s3://our/many")
    assert isinstance(folder, RemoteFolder) and [file.name for file in folder.files][1:] == [
        "rte-dev.jsonl",
        "rte-train.jsonl",
    ]
    report = bench.compile("rte", "s3://our/many/")
    assert report.datasets == {"alpaca_rte_train": 3, "alpaca_rte_eval": 1}
    spec = bench.write(
        "own.yaml", yaml.safe_dump({"like": "rte", "about": "x", "source": {"files": {"train": train}}})
    )
    assert f"read {len(ROWS)} " in here(cli, "check", spec, "--out", bench.out).stdout
    assert 'A \\"red\\" fox ran.' in here(cli, "show", spec).stdout
    talk = store.put("talk.jsonl", as_lines(QUESTIONS[:40]))
    proposal = here(cli, "init", talk, "--out", bench.folder / "talk.yaml")
    assert talk in (bench.folder / "talk.yaml").read_text() and "read 40  kept 40" in proposal.stderr
    here(cli, "compile", bench.folder / "talk.yaml", "--out", bench.out)


def refuse(monkeypatch, store) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


def take_keys(monkeypatch, store) -> None:
    for name in (*KEYS, "AWS_PROFILE"):
        if name != "AWS_EC2_METADATA_DISABLED":
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_package_that_is_not_installed_is_named(bench, store, monkeypatch, scheme, package) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(RequestError, match=f"{scheme}://our/b.jsonl: {package} is not installed in .*; "):
        bench.compile("qa", f"{scheme}://our/b.jsonl")


def forbid(monkeypatch, store) -> None:
    store.before = lambda _method, _key: 403


def wait(monkeypatch, store) -> None:
    limits = {"connect_timeout": 0.3, "read_timeout": 0.3, "retries": {"max_attempts": 0}}
    monkeypatch.setitem(remote.STORES["s3"].options, "config_kwargs", limits)
    store.before = lambda _method, _key: time.sleep(1)


def nothing(monkeypatch, store) -> None:
    pass


@pytest.mark.parametrize(
    ("address", "spoil", "facts"),
    [
        ("s3://our/none.jsonl", nothing, ["source not found"]),
        ("s3://nobody-has-it/a.jsonl", nothing, ["source not found"]),
        ("s3://", nothing, ["no data files"]),
        ("s3://our/empty", nothing, ["no data files"]),
        ("s3://our/b.jsonl", forbid, ["AWS_PROFILE"]),
        ("s3://our/b.jsonl", wait, ["cannot be read", "timeout"]),
        ("s3://our/b.jsonl", refuse, ["http://127.0.0.1:9"]),
        ("s3://our/b.jsonl", take_keys, ["AWS_PROFILE", "FSSPEC_S3_ANON"]),
    ],
)
def test_what_cannot_be_read_is_an_error_before_anything_starts(
    bench, store, monkeypatch, address, spoil, facts
) -> None:
    store.put("b.jsonl", as_lines(QUESTIONS[:5]))
    store.put("empty/README.md", b"no data")
    spoil(monkeypatch, store)
    began = time.monotonic()
    with raises(RequestError, address, *facts):
        bench.compile("qa", address)
    assert time.monotonic() - began < 20
    assert not bench.out.exists()


@pytest.mark.parametrize("at", ["the first read", "a read", "the end"])
def test_an_object_that_changes_is_an_error(bench, store, monkeypatch, small_blocks, at) -> None:
    """Another version of the same size comes at the first read, at a later one, or after the last one."""
    data = as_lines(QUESTIONS)
    source = store.put("moving.jsonl", data)
    seen = []

    def replace(method: str, key: str) -> None:
        seen.append(method)
        wanted = {"the first read": 1, "a read": 4, "the end": 10**6}[at]
        if method == "GET" and seen.count("GET") == wanted:
            store.put("moving.jsonl", data.replace(b"What", b"Tahw"))

    store.before = replace
    if at == "the end":
        check = RemoteFile.check

        def check_changed(file: RemoteFile) -> None:
            store.put("moving.jsonl", data.replace(b"What", b"Tahw"))
            check(file)

        monkeypatch.setattr(RemoteFile, "check", check_changed)
    with pytest.raises(ContentError, match=f"{source}: changed, or was replaced, while it was read"):
        bench.compile("qa", source)
    assert list(bench.out.rglob("*")) == []


def test_a_store_that_stops_answering_is_an_error(bench, store, small_blocks) -> None:
    source = store.put("a.jsonl", FORMATS["a.jsonl"])
    seen = []

    def break_off(method: str, key: str) -> int | None:
        seen.append(method)
        return 403 if "GET" in seen else None

    store.before = break_off
    with pytest.raises(RequestError, match=f"{source}: cannot be read: "):
        bench.compile("qa", source)
    assert list(bench.out.rglob("*")) == []


def test_a_bar_counts_the_bytes_of_a_remote_file(store) -> None:
    data = FORMATS["a.jsonl"]
    file = find_remote(store.put("a.jsonl", data))
    assert isinstance(file, RemoteFile)
    assert stream.stored_size(file) == len(data)
    counts: list[int] = []
    with stream.opened(file, "utf-8", moved=counts.append) as opened:
        assert opened.read() == data
    assert sum(counts) == len(data)


@pytest.mark.parametrize("text", ["S3://b/k.jsonl", "s3a://b/k.jsonl", "https://h.example/k.jsonl"])
def test_an_address_of_no_store_is_an_error_with_those_that_are_read(bench, here, text) -> None:
    refused = here(cli, "compile", "qa", "--source", text, "--out", bench.out, code=2)
    printed(refused.stderr, "error", text, "s3://")


@pytest.mark.parametrize("address", ["s3://KEY:Secret1@b/k.jsonl", "hf://me:Secret1@datasets/a/b/c.jsonl"])
def test_a_password_in_an_address_is_not_printed(bench, address) -> None:
    with raises(RequestError, "leave it out") as caught:
        bench.compile("qa", address)
    assert "Secret1" not in str(caught.value)


@pytest.mark.slow
def test_a_parquet_file_of_many_columns_is_fetched_about_once(store, small_blocks, monkeypatch) -> None:
    """40 columns are read in turn, a bit of each. Here blocks are 100 times smaller than in fact."""
    monkeypatch.setattr(bounded_columns, "BUFFER", 1 << 10)
    monkeypatch.setattr(bounded_columns, "BATCH_BYTES", 1 << 16)
    columns = {f"c{number}": [NOISE.randbytes(40).hex() for _ in range(250)] for number in range(40)}
    packed = io.BytesIO()
    pages = {"data_page_size": 1 << 10, "write_batch_size": 8, "compression": "none"}
    pyarrow.parquet.write_table(pyarrow.table(columns), packed, use_dictionary=False, **pages)
    file = find_remote(store.put("wide.parquet", packed.getvalue()))
    read_rows = read(file, "wide.parquet", load_spec("qa").source, Problems())
    assert sum(len(rows.lines) for rows in read_rows) == 250
    assert store.bytes_sent("wide.parquet") < 1.5 * len(packed.getvalue())


def test_the_arrow_files_of_a_saved_dataset_in_a_store_are_read(bench, store) -> None:
    store.put("saved/data-00000-of-00001.arrow", FORMATS["a.arrow"])
    for name in ("dataset_info.json", "state.json"):
        store.put(f"saved/{name}", b"{}")
    report = bench.compile("qa", "s3://our/saved")
    assert report.kept == report.read > 0


def test_a_stream_can_be_read_in_any_order(monkeypatch) -> None:
    """Another store of fsspec, which has no ETag: the time of its file is the version."""
    monkeypatch.setitem(remote.STORES, "memory", remote.Store("fsspec", {}, ""))
    data = bytes(range(256)) * 40
    fsspec.filesystem("memory").pipe("/any/a.jsonl", data)
    file = find_remote("memory://any/a.jsonl")
    assert (
        isinstance(file, RemoteFile)
        and file.size == len(data)
        and file.version.startswith("10240 bytes, created ")
    )
    with file.open(in_order=False) as raw:
        assert raw.seekable() and raw.readable()
        assert (raw.seek(-10, io.SEEK_END), raw.read(20), raw.read(1)) == (len(data) - 10, data[-10:], b"")
        assert (raw.seek(100), raw.read(7)) == (100, data[100:107])
        assert (raw.seek(-3, io.SEEK_CUR), raw.read(5)) == (104, data[104:109])
    fsspec.filesystem("memory").pipe("/any/a.jsonl", data[:-1])
    with pytest.raises(ContentError, match="changed"):  # with times, which no golden message has
        file.check()
    fsspec.filesystem("memory").rm("/any", recursive=True)
