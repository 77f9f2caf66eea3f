"""A Ray cluster of two raylets on this machine: the same bytes as in one process, and every loss."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.scoring import PAIRS
from tests.cli.scoring import call as score
from tests.conftest import ROOT
from tests.messages import check_facts
from tests.runs_cut import tree
from tests.s3_server import serving
from tests.unit.adapters import test_export_gguf
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tests.unit.adapters.test_commands import call as call_adapter
from tests.unit.core.test_execution import (
    Heavy,
    Journal,
    describe,
    die_once,
    fail,
    note_pid_and_sleep,
    slot_after,
    use_model,
)
from tests.unit.eval_backends.test_apply import write as write_adapter
from tests.unit.recipes import test_sweep_pool
from tests.unit.recipes.test_launch import alive
from tests.unit.recipes.test_sweep_pool import read, sweep, wait_for
from tests.workers import use_workers
from tuneyard.adapters.fuse import plan_fusing
from tuneyard.adapters.on_cluster import fuse_on_cluster
from tuneyard.adapters.request import FuseRequest
from tuneyard.compiler import chunked_reading
from tuneyard.compiler.compile import compile_spec
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.model import load_spec
from tuneyard.compiler.verify.dataset import files_of_audit, verify
from tuneyard.compiler.verify.report import as_json
from tuneyard.core import ray_cluster, remote_files
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution import Common, InThisProcess, Resources, WorkItem
from tuneyard.core.ray_cluster import RayCluster
from tuneyard.eval import nli

pytestmark = pytest.mark.slow
STORE = 80_000_000  # bytes of a node's object store, the least that Ray takes
LARGE = 400_000_000_000  # bytes of memory that only one node says it has: its items run there
SMALL = 4_000_000_000
recipe = test_sweep_pool.recipe  # a fixture


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster of two nodes with one CPU each. A test may write where its nodes find an S3, and the keys."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["AWS_CONFIG_FILE"] = str(tmp_path_factory.mktemp("aws") / "config")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.environ["AWS_CONFIG_FILE"]
    options = {"num_cpus": 1, "object_store_memory": STORE, "memory": SMALL, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    cluster.add_node(num_cpus=1, object_store_memory=STORE, memory=SMALL)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def executor(nodes) -> Iterator[RayCluster]:
    with RayCluster(nodes.address) as cluster:
        yield cluster


def write_squares(folder: Path, common: dict[str, int], number: int) -> Path:
    path = folder / f"{number}.txt"
    path.write_text(f"{number * number + common['offset']}\n")
    print(f"wrote {number}")
    return path


def test_results_come_in_order_with_the_bytes_of_one_process(executor, tmp_path) -> None:
    contents = {}
    for name, place in (("here", InThisProcess()), ("ray", executor)):
        folder = tmp_path / name
        folder.mkdir()
        place.check_paths([ROOT / "Makefile"], [folder / "later"])
        common = Common({"offset": 7})
        items = [WorkItem(str(n), write_squares, (folder, common, n)) for n in range(40)]
        results = list(place.map(items))
        assert [result.record_or_raise() for result in results] == [folder / f"{n}.txt" for n in range(40)]
        contents[name] = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert contents["ray"] == contents["here"]
    assert [result.output for result in results] == [f"wrote {n}\n" for n in range(40)]


def test_errors_of_items_and_what_is_kept_in_a_worker(executor, tmp_path) -> None:
    kinds = ("content", "disk", "request", "memory", "defect")
    results = list(executor.map([WorkItem(kind, fail, (kind,)) for kind in kinds]))
    assert [result.exit_code for result in results] == [1, 2, 2, 1, 1]
    assert results[0].error == "row 3 is empty"
    assert results[4].error == "its task failed: ZeroDivisionError: by nothing"
    assert "Traceback" not in results[4].error
    Heavy.pickled = 0
    common = Common(Heavy())
    records = [
        r.record_or_raise() for r in executor.map([WorkItem("x", describe, (common, n)) for n in range(30)])
    ]
    assert {kind for _, kind, _ in records} == {"str"}
    assert Heavy.pickled == 1
    assert len({process for process, _, _ in records}) <= 4
    one = Resources(memory=SMALL)  # one at a time on each node
    loaded = [
        r.record_or_raise() for r in executor.map([WorkItem("x", use_model, ("a",), resources=one)] * 6)
    ]
    assert {text for text, _ in loaded} == {"A"} and max(count for _, count in loaded) == 1


def test_all_items_are_one_kind_of_task(executor, nodes) -> None:
    """Ray warns of more than 100 kinds. One for each item made an item three times as dear for the driver."""
    results = list(executor.map([WorkItem(str(n), slot_after, (0,)) for n in range(150)]))
    assert [result.error for result in results] == [""] * 150
    logs = Path(nodes.head_node.get_logs_dir_path()).glob("raylet*")
    assert [log for log in logs if "types of tasks seen" in log.read_text(errors="replace")] == []


def fill_the_disk() -> None:
    with open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x" * 100_000)


def test_a_lost_worker_and_a_full_disk(executor, tmp_path, capfd) -> None:
    journal = Journal()
    items = [
        WorkItem("once", die_once, (tmp_path / "mark",)),
        WorkItem("always", fail, ("kill",)),
        WorkItem("disk", fill_the_disk, ()),
        WorkItem("good", slot_after, (0,)),
    ]
    once, always, disk, good = executor.map(items, journal)
    assert (once.record, once.error, good.error) == (7, "", "")
    assert always.error.startswith("its process was lost with its worker or node")
    assert "No space left on device" in disk.error and disk.exit_code == 2
    lost = sorted(line.partition(":")[0] for line in journal.lines if line.startswith("lost"))
    assert lost == ["lost always", "lost once"]
    assert journal.running == 0
    printed = capfd.readouterr()
    assert printed.out == "" and "ray" not in printed.err  # Ray's own lines


def wait_for_workers(executor: RayCluster, resources: Resources, count: int) -> None:
    """Wait until the driver sees that nodes have joined or left."""
    deadline = time.monotonic() + 60
    while executor.fitting(resources) != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_node_that_runs_out_of_memory_and_one_that_leaves(
    nodes, executor, tmp_path, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(ray_cluster, "_NODES_EVERY", 0.1)
    variables = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    options = {"num_cpus": 1, "object_store_memory": STORE}
    thirsty = nodes.add_node(**options, memory=LARGE, env_vars=variables)
    there = Resources(memory=LARGE)
    wait_for_workers(executor, there, 1)
    (result,) = executor.map([WorkItem("thirsty", slot_after, (30,), resources=there)])
    check_facts(result.error, ("400.0 GB", "memory"))
    assert result.exit_code == 1
    with pytest.raises(ContentError, match="^thirsty: Ray ended its process"):
        result.record_or_raise()
    nodes.remove_node(thirsty, allow_graceful=False)
    wait_for_workers(executor, Resources(), 2)
    leaving = nodes.add_node(**options, memory=SMALL)
    wait_for_workers(executor, Resources(), 3)
    journal = Journal()
    items = [WorkItem("first", slot_after, (0,))]
    items += [WorkItem(str(n), name_node_and_wait, (tmp_path,)) for n in range(3)]
    results = executor.map(items, journal)
    assert next(results).name == "first"
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 3:  # one on each node
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [int(path.read_text()) for path in tmp_path.iterdir()]
    nodes.remove_node(leaving, allow_graceful=False)
    while all(alive(worker) for worker in workers):  # it ends when it misses its node
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "go").touch()
    rest = list(results)
    assert [(result.name, result.error) for result in rest] == [("0", ""), ("1", ""), ("2", "")]
    assert len([line for line in journal.lines if line.startswith("lost")]) == 1
    assert journal.running == 0
    printed = capfd.readouterr()
    assert "raylet" not in printed.out + printed.err  # Ray's own lines on what has died


def name_node_and_wait(folder: Path) -> None:
    """Run on a node until the test says that it may end."""
    import ray

    (folder / ray.get_runtime_context().get_node_id()).write_text(str(os.getpid()))
    while not (folder / "go").exists():
        time.sleep(0.05)


def test_what_no_node_has_is_refused(executor) -> None:
    item = WorkItem("72B", slot_after, (0,), resources=Resources(gpus=1, memory=10**14))
    with pytest.raises(RequestError) as error:
        list(executor.map([item]))
    check_facts(str(error.value), ("72B", "1 GPU", "100000.0 GB", "no node of the cluster has that"))


def test_nodes_with_other_code_and_paths_that_they_do_not_see(nodes, executor, tmp_path, monkeypatch) -> None:
    with (tmp_path / "mine").open("w+") as file:
        number = fcntl.fcntl(file, fcntl.F_DUPFD, 900)  # beyond the descriptors of any other process
        mine = Path(f"/proc/self/fd/{number}")  # a path that only this process sees
        with pytest.raises(RequestError) as error:
            executor.check_paths([mine.parent / "0", mine], [tmp_path])
    check_facts(str(error.value), (str(mine), "No such file or directory", "that all nodes see"))
    os.close(number)
    assert str(error.value).count("cannot read") == 2  # on both nodes
    assert not list(tmp_path.glob(".tuneyard-probe*"))
    monkeypatch.setattr(ray_cluster, "code_digest", lambda: "0" * 64)
    with pytest.raises(RequestError) as error:
        executor.check_paths()
    check_facts(str(error.value), ("another Tuneyard", "code 00000000", "install the same on every node"))


def test_a_node_that_has_just_joined_is_asked_for_its_paths(nodes, executor, monkeypatch) -> None:
    import ray

    monkeypatch.setattr(ray_cluster, "_NODES_EVERY", 1e9)
    assert executor.fitting(Resources()) == 2
    joined = nodes.add_node(num_cpus=1, object_store_memory=STORE, memory=SMALL)
    deadline = time.monotonic() + 60
    while len([node for node in ray.nodes() if node["Alive"]]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    executor.check_paths()
    assert executor.fitting(Resources()) == 3
    nodes.remove_node(joined)


def test_workers_that_stayed_make_room_for_items_with_other_resources(executor) -> None:
    kinds = [Resources(memory=SMALL, stays=True), Resources(memory=SMALL), Resources(cpus=0.5, stays=True)]
    for resources in kinds:
        items = [WorkItem(str(n), slot_after, (0,), resources=resources) for n in range(4)]
        assert [result.error for result in executor.map(items)] == [""] * 4


def test_closing_a_map_ends_its_items_and_what_they_have_started(executor, tmp_path) -> None:
    items = [WorkItem("a", note_pid_and_sleep, (tmp_path / "a",)), WorkItem("b", slot_after, (0,))]
    results = executor.map(list(reversed(items)))
    next(results)
    deadline = time.monotonic() + 30
    while not (tmp_path / "a").exists() or not (tmp_path / "a").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    results.close()
    started = [int(word) for word in (tmp_path / "a").read_text().split()]
    deadline = time.monotonic() + 20
    while alive(started[1]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_sweep_on_the_cluster_is_that_of_one_process_also_after_a_kill(
    nodes, recipe: Path, tmp_path
) -> None:
    place = ("--ray", nodes.address)
    command = [sys.executable, "-m", "tests.fake_trainer.sweep", str(recipe), "rank=2,4,8", *place]
    command += ["--out", str(tmp_path / "runs"), "--metric", "train_loss"]
    path = {"PYTHONPATH": str(ROOT / "tests" / "fake_trainer")}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **path, "FAKE_SECONDS_4": "60"},
        stderr=subprocess.PIPE,
        text=True,
    )
    training = int(wait_for(tmp_path / "runs/lora_rank-4/pid", process))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while alive(training):
        assert time.monotonic() < deadline, "a training outlived the sweep"
        time.sleep(0.05)
    output, errors = sweep(recipe, "rank=2,4,8", *place)
    assert f"lora_rank-4: started on the cluster at {nodes.address}" in errors
    on_ray = {name: read(tmp_path / "runs" / name) for name in ("sweep.json", "lora_rank-8/training.json")}
    (tmp_path / "runs").rename(tmp_path / "on-ray")
    here, _ = sweep(recipe, "rank=2,4,8", FAKE_GPUS="0")
    assert here[here.index("| lora_rank") :] == output[output.index("| lora_rank") :]
    assert read(tmp_path / "runs/sweep.json") == on_ray["sweep.json"]


@pytest.mark.parametrize("shards", [1, 4])
def test_verify_on_the_cluster_finds_what_one_process_finds(executor, tmp_path, tiny_model, shards) -> None:
    answers = ["yes" if n % 2 == 0 else "no " * 200 for n in range(60)]  # a long one is cut
    rows = [{"instruction": f"Is {n} even?", "input": "", "output": text} for n, text in enumerate(answers)]
    (tmp_path / "rows").mkdir()
    for shard in range(shards):
        lines = [json.dumps(row) + "\n" for row in rows[shard::shards]]
        (tmp_path / f"rows/{shard:05d}.jsonl").write_text("".join(lines))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "rows"}}))
    settings = {"model_name_or_path": str(tiny_model), "template": "qwen", "cutoff_len": 120}
    settings["preprocessing_batch_size"] = 10
    inputs = files_of_audit(["mine"], tmp_path, settings)
    assert len([path for path in inputs if path.suffix == ".jsonl"]) == shards
    executor.check_paths(inputs)
    here = as_json(verify("mine", tmp_path, settings))
    assert as_json(verify("mine", tmp_path, settings, cluster=executor)) == here
    assert here["counts"]["W414"] == 30


def test_a_fusion_on_the_cluster_writes_the_bytes_of_one_here(nodes, tmp_path) -> None:
    base = make_base(tmp_path / "base", base_tensors())
    make(tmp_path / "a", {name: (a * 0.02, b * 0.2) for name, (a, b) in factors().items()})
    here = FuseRequest([(str(tmp_path / "a"), 0.7)], base, tmp_path / "here")
    lines = plan_fusing(here).write(lambda _: None)
    there = replace(here, out=tmp_path / "there")
    assert fuse_on_cluster(plan_fusing(there), nodes.address) == lines
    for path in sorted(here.out.glob("*.safetensors")):
        assert (there.out / path.name).read_bytes() == path.read_bytes()


QUANTISER = """#!/bin/sh
echo quantising to $3
if [ "$3" = q9_k ]; then echo "No space left on device"; exit 1; fi
if [ ! -e mark ]; then touch mark; kill -9 $PPID; fi
cp "$1" "$2"
"""


def test_an_export_on_the_cluster_writes_the_bytes_of_one_here(nodes, tmp_path, monkeypatch) -> None:
    """The program that quantises kills the worker that runs it at its first call."""
    monkeypatch.chdir(tmp_path)
    test_export_gguf.write()
    Path("llama.cpp").mkdir()
    Path("llama.cpp/llama-quantize").write_text(QUANTISER)
    Path("llama.cpp/llama-quantize").chmod(0o755)
    export = ("export", "./model", "--to", "gguf")
    call_adapter(*export, "--out", "here.gguf")
    call_adapter(*export, "--out", "out/there.gguf", "--ray", nodes.address)
    assert Path("out/there.gguf").read_bytes() == Path("here.gguf").read_bytes()
    export += ("--llama-cpp", "llama.cpp", "--ray", nodes.address, "--type")
    _, notes = call_adapter(*export, "q4_k_m", "--out", "out/quantised.gguf")
    assert Path("out/quantised.gguf").read_bytes() == Path("here.gguf").read_bytes()
    assert Path("mark").exists() and notes.count("quantising to q4_k_m") == 1
    _, message = call_adapter(*export, "q9_k", "--out", "out/full.gguf", code=1)
    check_facts(message, ("No space left on device", "llama-quantize ended with exit code 1"))
    assert sorted(path.name for path in Path("out").iterdir()) == ["quantised.gguf", "there.gguf"]


def test_a_compile_by_ray_gives_the_bytes_of_one_process(nodes, tmp_path, monkeypatch) -> None:
    """Chunks of a split by hash: the second pass puts rows in order by tasks, too."""
    monkeypatch.setattr(chunked_reading, "CHUNK", 1 << 20)
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}. " * 20} for n in range(12_000)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    outputs = "write: [{dataset: 'x_{split}', file: 'x-{split}.json', format: alpaca,"
    outputs += " instruction: '{question}', output: '{answer}'}]\n"
    columns = "about: a test\ncolumns: {question: [question], answer: {names: [answer], is: answer}}\n"
    spec_file = tmp_path / "x.yaml"
    spec_file.write_text(f"{columns}{outputs}split: {{test: 0.2, by: hash}}\n", encoding="utf-8")
    spec = load_spec(str(spec_file))
    contents = {}
    for name, ray in (("here", None), ("ray", nodes.address)):
        request = CompileRequest(
            sources=(str(source),), out=tmp_path / name, workers=None if ray else 1, ray=ray
        )
        assert compile_spec(spec, request).kept == len(rows)
        contents[name] = {path.name: path.read_bytes() for path in (tmp_path / name / "x").iterdir()}
    assert contents["ray"] == contents["here"]


def test_a_remote_source_is_read_by_each_node(nodes, tmp_path, monkeypatch) -> None:
    """Each node fetches its chunks with its own keys, and is asked first whether it has any."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    monkeypatch.setattr(chunked_reading, "CHUNK", 1 << 20)
    monkeypatch.setattr(remote_files, "_filesystems", {})
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}. " * 20} for n in range(12_000)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "rows.jsonl").write_bytes(data)
    local = CompileRequest(sources=(str(tmp_path / "rows.jsonl"),), out=tmp_path / "here", workers=1)
    compile_spec(load_spec("qa"), local)
    with serving() as store:
        remote = CompileRequest(
            sources=(store.put("rows.jsonl", data),), out=tmp_path / "ray", ray=nodes.address
        )
        with monkeypatch.context() as driver_alone:
            for name, value in store.env.items():
                driver_alone.setenv(name, value)
            with pytest.raises(RequestError) as refused:
                compile_spec(load_spec("qa"), remote)
        assert str(refused.value).count("s3://our/rows.jsonl: cannot be read") == 2
        assert not (tmp_path / "ray").exists()
        settings = [f"endpoint_url = {store.url}", "region = us-east-1", "aws_access_key_id = a"]
        settings.append("aws_secret_access_key = b")
        Path(os.environ["AWS_CONFIG_FILE"]).write_text("\n".join(["[default]", *settings, ""]))
        remote_files._filesystems.clear()
        store.requests.clear()
        assert compile_spec(load_spec("qa"), remote).kept == len(rows)
        looks = (1 << 20) + (5 << 18)  # of the driver: at the layout, and at the first chunk
        assert store.bytes_sent("rows.jsonl") < 2 * len(data) + looks
    written = [(tmp_path / name / "qa" / "qa.json").read_bytes() for name in ("here", "ray")]
    assert written[0] == written[1]


def test_items_whose_worker_stays_keep_what_they_loaded_and_one_that_is_lost_runs_again(
    executor, tmp_path
) -> None:
    kept = Resources(memory=SMALL, stays=True)
    items = [WorkItem("x", use_model, ("a",), resources=kept)] * 6
    loaded = [result.record_or_raise() for result in executor.map(items)]
    again = [result.record_or_raise() for result in executor.map(items)]
    assert {text for text, _ in loaded + again} == {"A"} and max(count for _, count in loaded + again) == 1
    journal = Journal()
    items = [
        WorkItem("once", die_once, (tmp_path / "mark",), resources=kept),
        WorkItem("always", fail, ("kill",), resources=kept),
        WorkItem("defect", fail, ("defect",), resources=kept),
        WorkItem("good", slot_after, (0,), resources=kept),
    ]
    once, always, defect, good = executor.map(items, journal)
    assert (once.record, once.error, good.error) == (7, "", "")
    assert always.error.startswith("its process was lost with its worker or node")
    assert defect.error == "its task failed: ZeroDivisionError: by nothing"
    assert sorted(line.partition(":")[0] for line in journal.lines if line.startswith("lost")) == [
        "lost always",
        "lost once",
    ]
    slow = WorkItem("slow", note_pid_and_sleep, (tmp_path / "pids",), resources=kept)
    results = executor.map([WorkItem("good", slot_after, (0,), resources=kept), slow])
    next(results)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    results.close()
    started = [int(word) for word in (tmp_path / "pids").read_text().split()]
    while any(map(alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_scoring_on_the_cluster_writes_the_files_of_one_process(
    executor, tiny_model, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("torch").set_num_threads(1)
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS * 8))
    adapter = write_adapter(tmp_path / "one")
    given = ["--model", tiny_model, "--adapter", f"one={adapter}", "--data", tmp_path / "pairs.json"]
    given += ["--mode", "generate", "--max-new-tokens", "4", "--out", tmp_path / "out"]
    score(nli.cli, *given)
    alone = tree(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "alone")
    use_workers(monkeypatch, executor)
    score(nli.cli, *given)
    assert tree(tmp_path / "out") == alone


def test_a_driver_killed_while_it_scores_is_resumed_to_the_bytes_of_one_process(
    nodes, tiny_model, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("torch").set_num_threads(1)
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS * 12))
    out = tmp_path / "out"
    given = ["--model", tiny_model, "--data", tmp_path / "pairs.json", "--mode", "generate"]
    given += ["--max-new-tokens", 12, "--batch-tokens", 60, "--out", out]
    arguments = [str(argument) for argument in given]
    monkeypatch.setattr(sys, "argv", ["nli", *arguments])  # it is in results.json
    score(nli.cli, *given)
    alone = tree(out)
    out.rename(tmp_path / "alone")
    on_ray = [*arguments, "--ray", nodes.address]
    driver = subprocess.Popen([sys.executable, "-m", "eval.nli", *on_ray], cwd=ROOT)
    wait_for(out / "base/pairs/predictions.jsonl", driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (out / "base/pairs/results.json").exists()
    monkeypatch.setattr(sys, "argv", ["nli", *on_ray, "--resume"])
    score(nli.cli, *on_ray, "--resume")
    assert tree(out) == alone
