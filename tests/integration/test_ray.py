"""A Ray cluster of two raylets on this machine: the same bytes as in one process, and every loss."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS
from tests.cli.scoring import call as score
from tests.conftest import ROOT
from tests.integration.sweeps import start, sweep
from tests.json_files import read_json, write_json, write_lines
from tests.messages import printed
from tests.processes import wait_for_end, wait_until, written
from tests.runs_cut import tree
from tests.work_items import (
    Heavy,
    describe,
    die_once,
    fail,
    note_pid_and_sleep,
    slot_after,
    use_model,
)
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution import Resources, WorkItem, once_per_worker
from tuneyard.core.execution.ray_cluster import RayCluster
from tuneyard.eval import nli

pytestmark = pytest.mark.slow
STORE = 80_000_000  # bytes of a node's object store, the least that Ray takes
SMALL = 4_000_000_000


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


def test_sigterm_is_heard_after_the_cluster_is_left(nodes) -> None:
    """Python would still name its handler, and the process would end without a word."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    RayCluster(nodes.address).close()
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert heard


def test_errors_of_items_and_what_is_kept_in_a_worker(executor) -> None:
    (result,) = executor.map([WorkItem("x", fail, ("content",))])
    assert str(result.error) == "row 3 is empty"
    with pytest.raises(ZeroDivisionError, match="by nothing"):
        list(executor.map([WorkItem("x", fail, ("defect",))]))
    Heavy.pickled = 0
    records = executor.map([WorkItem("x", describe, (0,))] * 30, common=Heavy())
    assert {result.record[1] for result in records} == {"str"} and Heavy.pickled == 1
    one = Resources(memory=SMALL)  # one at a time on each node
    used = executor.map([WorkItem("x", use_model, ("a",))] * 12, resources=one)
    assert {result.record_or_raise() for result in used} == {("A", 1)}  # workers stay for the next task


def test_workers_import_nothing_from_the_drivers_current_folder(nodes, tmp_path, monkeypatch) -> None:
    """Ray adds that folder to the module paths of its workers; a mailed `statistics.py` would run."""
    (tmp_path / "statistics.py").write_text("raise SystemExit('a mailed file ran')\n")
    monkeypatch.chdir(tmp_path)
    with RayCluster(nodes.address) as executor:
        (result,) = executor.map([WorkItem("x", import_statistics)])
    assert result.record_or_raise() == (str(tmp_path), True)


def import_statistics() -> tuple[str, bool]:
    """The current folder of this worker, and whether a module is that of Python."""
    import statistics

    return str(Path.cwd()), hasattr(statistics, "fmean")


def test_an_item_that_is_lost_twice_is_an_error(executor) -> None:
    (always,) = executor.map([WorkItem("always", fail, ("kill",))])
    with pytest.raises(ContentError, match="^always: its process was lost with its worker or node"):
        always.record_or_raise()


def test_a_worker_keeps_its_gpu_also_when_another_is_lost(nodes, tmp_path) -> None:
    node = nodes.add_node(num_cpus=2, num_gpus=2, object_store_memory=STORE)
    with RayCluster(nodes.address) as executor:
        items = [WorkItem(str(n), gpus_first_and_now, (tmp_path / str(n // 15),)) for n in range(60)]
        seen = {result.record_or_raise() for result in executor.map(items, resources=Resources(gpus=1))}
    nodes.remove_node(node)
    assert seen == {("0", "0"), ("1", "1")}


def gpus_first_and_now(mark: Path) -> tuple[str, str]:
    first = once_per_worker(os.environ.get, "CUDA_VISIBLE_DEVICES", "")  # as CUDA keeps it
    time.sleep(0.05)
    die_once(mark)
    return first, os.environ["CUDA_VISIBLE_DEVICES"]


def test_the_item_of_a_node_that_leaves_runs_on_another(nodes, executor, tmp_path) -> None:
    leaving = nodes.add_node(num_cpus=1, object_store_memory=STORE, memory=SMALL)
    wait_until(lambda: executor.fitting(Resources()) >= 3)
    items = [WorkItem("first", slot_after)]
    items += [WorkItem(str(n), name_node_and_wait, (tmp_path,)) for n in range(3)]
    results = executor.map(items)
    assert next(results).name == "first"
    rest = []
    other = threading.Thread(target=lambda: rest.extend(results))
    other.start()
    wait_until(lambda: len(list(tmp_path.iterdir())) >= 3)  # one on each node
    nodes.remove_node(leaving, allow_graceful=False)
    (tmp_path / "go").touch()
    other.join()
    assert [(result.name, result.error) for result in rest] == [("0", None), ("1", None), ("2", None)]


def name_node_and_wait(folder: Path) -> None:
    """Run on a node until the test says that it may end."""
    import ray

    (folder / ray.get_runtime_context().get_node_id()).write_text(str(os.getpid()))
    while not (folder / "go").exists():
        time.sleep(0.05)


def test_what_no_node_has_is_refused(executor) -> None:
    item = WorkItem("72B", slot_after)
    with pytest.raises(RequestError) as error:
        list(executor.map([item], resources=Resources(gpus=1, memory=10**14)))
    printed(str(error.value), "1 GPU", "100000.0 GB", "no node has that")


def test_closing_a_map_ends_its_items_and_what_they_have_started(executor, tmp_path) -> None:
    items = [WorkItem("a", note_pid_and_sleep, (tmp_path / "a",)), WorkItem("b", slot_after)]
    results = executor.map(list(reversed(items)))
    next(results)
    item, _ = written(tmp_path / "a").split()
    results.close()
    wait_for_end([int(item)])


def test_a_sweep_on_the_cluster_is_that_of_one_process_also_after_a_kill(
    nodes, recipe: Path, tmp_path
) -> None:
    place = ("--ray", nodes.address)
    process = start(recipe, "rank=2,4,8", *place, FAKE_AFTER_4="nothing")
    training = int(written(tmp_path / "runs/lora_rank-4/pid", process))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for_end([training])
    output, errors = sweep(recipe, "rank=2,4,8", *place)
    assert "lora_rank-4: started on the cluster" in errors
    on_ray = {
        name: read_json(tmp_path / "runs" / name) for name in ("sweep.json", "lora_rank-8/training.json")
    }
    (tmp_path / "runs").rename(tmp_path / "on-ray")
    here, _ = sweep(recipe, "rank=2,4,8", FAKE_GPUS="0")
    assert here[here.index("| lora_rank") :] == output[output.index("| lora_rank") :]
    assert read_json(tmp_path / "runs/sweep.json") == on_ray["sweep.json"]


def test_a_compile_by_ray_gives_the_bytes_of_one_process(nodes, tmp_path) -> None:
    """Five files of different sizes, whose rows a split by hash puts in order."""
    sources = []
    for number in range(5):
        rows = [
            {"question": f"What is {number}.{n}?", "answer": f"It is {n}."} for n in range(100 * number + 1)
        ]
        source = tmp_path / f"rows-{number}.jsonl"
        write_lines(source, rows)
        sources.append(str(source))
    outputs = "write: [{dataset: 'x_{split}', file: 'x-{split}.json', format: alpaca,"
    outputs += " instruction: '{question}', output: '{answer}'}]\n"
    columns = "about: a test\ncolumns: {question: [question], answer: {names: [answer], is: answer}}\n"
    spec_file = tmp_path / "x.yaml"
    spec_file.write_text(f"{columns}{outputs}split: {{test: 0.2, by: hash}}\n", encoding="utf-8")
    spec = load_spec(str(spec_file))
    contents = {}
    for name, workers, ray in (("here", 1, None), ("ray", None, nodes.address)):
        request = CompileRequest(spec, sources=tuple(sources), out=tmp_path / name, workers=workers, ray=ray)
        assert compile_dataset(request).kept == 1005
        contents[name] = tree(tmp_path / name / "x")
    assert contents["ray"] == contents["here"]


def test_a_driver_killed_while_it_scores_is_resumed_to_the_bytes_of_one_process(
    nodes, tiny_model, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("torch").set_num_threads(1)
    write_json(tmp_path / "pairs.json", PAIRS * 12)
    out = tmp_path / "out"
    adapter = write_adapter(tmp_path / "one")
    given = ["--model", tiny_model, "--adapter", f"one={adapter}", "--data", tmp_path / "pairs.json"]
    given += ["--mode", "generate", "--max-new-tokens", 12, "--batch-tokens", 60, "--out", out]
    arguments = [str(argument) for argument in given]
    monkeypatch.setattr(sys, "argv", ["nli", *arguments])  # it is in results.json
    score(nli.cli, *given)
    alone = tree(out)
    out.rename(tmp_path / "alone")
    on_ray = [*arguments, "--ray", nodes.address]
    driver = subprocess.Popen([sys.executable, "-m", "eval.nli", *on_ray], cwd=ROOT)
    written(out / "base/pairs/predictions.jsonl", driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (out / "base/pairs/results.json").exists()
    monkeypatch.setattr(sys, "argv", ["nli", *on_ray, "--resume"])
    score(nli.cli, *on_ray, "--resume")
    assert tree(out) == alone
