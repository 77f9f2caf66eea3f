"""--workers and --ray in the scoring commands: the files of one process, and what is refused."""

import shutil
from pathlib import Path

import pytest
import yaml
from click import Command

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS, call
from tests.json_files import write_json, write_lines
from tests.messages import raises
from tests.runs_cut import tree
from tests.workers import PickledWorkers, use_workers
from tuneyard.core.cli.main import command_line
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval import nli, suite, text
from tuneyard.eval.models import worker_model
from tuneyard.eval.models.worker_model import worker_slots
from tuneyard.eval.qa import __main__ as qa
from tuneyard.eval.sweep import __main__ as sweep

pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")
TWICE = [*PAIRS, *[{**pair, "input": "Really?"} for pair in PAIRS]]
QUESTIONS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(4)]
STEPS = {
    "asked": {"command": "qa", "data": "asked.jsonl", "max-new-tokens": 4},
    "pairs": {"command": "nli", "data": "pairs.json", "variants": "none"},
}
BARE = ["--variants", "none"]
"""One spelling of each label instead of four, which take four times the passes of the model."""


@pytest.fixture
def workers() -> PickledWorkers:
    return PickledWorkers()


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with two datasets, a suite over both, and two adapters."""
    write_json(tmp_path / "pairs.json", TWICE)
    write_lines(tmp_path / "asked.jsonl", QUESTIONS)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(STEPS))
    for seed, name in enumerate(("left", "right")):
        write_adapter(tmp_path / name, seed=seed)
    return tmp_path


def both(command: Command, folder: Path, workers: PickledWorkers, monkeypatch, *given: object):
    """The files of a run in this process, and of the same run by workers."""
    out = folder / "out"
    call(command, *given, "--out", out)
    alone = tree(out)
    out.rename(folder / "alone")
    use_workers(monkeypatch, workers)
    call(command, *given, "--out", out)
    return alone, tree(out)


def adapters(folder: Path) -> list[str]:
    return [f"--adapter={name}={folder / name}" for name in ("left", "right")]


@pytest.mark.parametrize(
    "options",
    [
        ["--batch-tokens", 60, *BARE, "--apply", "merged"],
        ["--batch-tokens", 60, *BARE, "--shots", 1, "--shots-from", "SHOTS"],
        ["--batch-tokens", 60, *BARE, "--check-generate", 3, "--max-new-tokens", 2],
        ["--mode", "generate", "--max-new-tokens", 2, "--preset", "document", "--seed", 2],
    ],
    ids=["merged", "shots", "a check", "sampled"],
)
def test_nli(inputs, workers, sampling_model, monkeypatch, options) -> None:
    others = [{**pair, "instruction": pair["instruction"].upper()} for pair in PAIRS]
    write_json(inputs / "shots.json", others)
    given = [str(option).replace("SHOTS", str(inputs / "shots.json")) for option in options]
    model = sampling_model(temperature=0.9)
    given += ["--model", model, "--data", inputs / "pairs.json", *adapters(inputs)]
    alone, by_workers = both(nli.cli, inputs, workers, monkeypatch, *given)
    assert by_workers == alone
    assert len(workers.names) > 6  # the load, and two parts or more for each of three models


@pytest.mark.parametrize(
    ("command", "data", "words", "part"),
    [
        (nli, "pairs.json", ["--quantize", 4, *BARE, "--batch-tokens", 60, "--limit", 4], "left/pairs/"),
        (text, "pairs.json", ["--no-generate", "--token-losses", "--batch-tokens", 60], "token_losses.jsonl"),
        (qa, "asked.jsonl", ["--max-new-tokens", 4], "further answers"),
    ],
    ids=["a quantised base", "losses of tokens", "fixed prompts"],
)
def test_commands(inputs, workers, tiny_model, monkeypatch, command, data, words, part) -> None:
    if command is nli:
        pytest.importorskip("bitsandbytes")
        words = [*words, *adapters(inputs)]
    given = ["--model", tiny_model, "--data", inputs / data, *words]
    alone, by_workers = both(command.cli, inputs, workers, monkeypatch, *given)
    assert by_workers == alone
    assert any(part in name for name in [*alone, *workers.names])


def test_a_suite_and_a_search_load_the_base_once(inputs, workers, tiny_model, monkeypatch) -> None:
    loaded = []
    load = worker_model.load_model
    monkeypatch.setattr(worker_model, "load_model", lambda *given: loaded.append(given) or load(*given))
    base = shutil.copytree(tiny_model, inputs / "base")
    search = ["--model", base, "--data", inputs / "pairs.json", adapters(inputs)[0], *BARE]
    search += ["--out", inputs / "out"]
    call(sweep.cli, *search)
    searched = tree(inputs / "out")
    (inputs / "out").rename(inputs / "searched")
    given = [inputs / "suite.yaml", "--model", base, *adapters(inputs)]
    alone, by_workers = both(suite.cli, inputs, workers, monkeypatch, *given)
    assert by_workers == alone
    (inputs / "out").rename(inputs / "suite")
    call(sweep.cli, *search)
    assert tree(inputs / "out") == searched
    assert len(loaded) == 1


def test_an_error_in_a_worker_is_that_of_one_process(inputs, refused, workers, tiny_model, monkeypatch):
    adapter = write_adapter(inputs / "large", scale=1e19)
    given = ["--model", tiny_model, "--data", inputs / "pairs.json", "--adapter", f"large={adapter}"]
    use_workers(monkeypatch, workers)
    with refused(ContentError, "row ", "overflow", "--dtype fp32"):
        call(nli.cli, *given, "--no-base", "--out", inputs / "out")


def test_the_driver_has_no_weights(inputs, workers, tiny_model) -> None:
    model = worker_model.open_in_workers(workers, tiny_model, [], None, None)
    assert {parameter.device.type for parameter in model.net.parameters()} == {"meta"}
    assert (model.device, model.dtype, model.alone) == ("cpu", "fp32", False)
    with raises(ContentError, "cannot be loaded"):
        (inputs / "broken").mkdir()
        for name in ("config.json", "model.safetensors"):
            (inputs / "broken" / name).write_text("{}")
        worker_model.open_in_workers(workers, inputs / "broken", [], None, None)


def test_a_model_that_a_node_does_not_see_is_refused_before_anything_starts(
    inputs, workers, tiny_model, monkeypatch
) -> None:
    def check_paths(inputs: list[Path], outputs: list[Path] = ()) -> None:
        names = {f"{path.parent.name}/{path.name}" for path in inputs}
        assert {"model/model.safetensors", "model/tokenizer.json", "left/adapter_model.safetensors"} <= names
        assert all(path.is_absolute() for path in inputs)
        raise RequestError(f"node two: cannot read {inputs[0].name}")

    monkeypatch.setattr(workers, "check_paths", check_paths)
    use_workers(monkeypatch, workers)
    with raises(RequestError, "node two"):
        given = ["--model", tiny_model, "--data", inputs / "pairs.json", *adapters(inputs)]
        call(nli.cli, *given, "--out", inputs / "out")
    assert not workers.names and not (inputs / "out").exists()


@pytest.mark.parametrize("option", ["--workers=2", "--ray=auto"])
def test_a_server_needs_no_workers(inputs, option) -> None:
    server = ["--backend", "openai", "--url", "http://localhost:9/v1", option]
    with raises(RequestError, option.partition("=")[0], "--backend openai"):
        call(nli.cli, "--model", "m", *server, "--data", inputs / "pairs.json", "--out", inputs / "out")


def test_each_worker_has_a_gpu_or_a_part_of_the_cores(monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [dict(slot.environment) for slot in worker_slots(3)] == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert [dict(slot.environment) for slot in worker_slots(2)] == [{"OMP_NUM_THREADS": "5"}] * 2
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in worker_slots(2)] == ["2", "5"]
    with raises(RequestError, "--workers 3", "2 GPUs"):
        worker_slots(3)


def test_the_recorded_command_names_no_workers(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["nli", "--workers", "2", "--model", "m", "--ray=auto", "--resume"])
    recorded = command_line("eval.nli", ("--resume",), r" --(workers|ray)[ =]\S+")
    assert recorded == "tuneyard eval nli --model m"
