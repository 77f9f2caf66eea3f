"""A command of eval whose inputs are those of its result has nothing to do; a changed input is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS, call, cli_of, even_rows
from tests.exams import HEAD, write_exam
from tests.json_files import read_json, write_json, write_lines
from tests.messages import raises
from tests.plug_ins import installing
from tests.serving import answering
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.figures import GROUP, metrics
from tuneyard.eval.models import load as loading
from tuneyard.eval.scoring import state

TALK = [
    {"role": "user", "content": "A?"},
    {"role": "assistant", "content": "B."},
    {"role": "user", "content": "C?"},
    {"role": "assistant", "content": "D."},
]
WORDS = {
    "nli": ["--data", "pairs.json", "--adapter", "one"],
    "text": ["--data", "pairs.json", "--max-new-tokens", 2],
    "qa": ["--data", "pairs.json", "--max-new-tokens", 2],
    "dialogue": ["--data", "talks.jsonl", "--max-new-tokens", 2],
    "preference": ["--data", "ranked.json"],
    "ab": ["--data", "pairs.json", "--adapter", "one", "--max-new-tokens", 2],
    "cmmlu": ["--data", "exams", "--shots", 0],
    "sweep": ["--data", "pairs.json", "--adapter", "one", "--grid", "0,1"],
    "suite": ["suite.yaml"],
}


@pytest.fixture
def here(working_folder: Path, tiny_model: Path, one_thread: None) -> Path:
    """A folder with a model, an adapter and data for each command."""
    shutil.copytree(tiny_model, "model")
    write_adapter(Path("one"), alpha=2)
    write_json(Path("pairs.json"), [*PAIRS, *PAIRS[:3]])
    write_lines(Path("talks.jsonl"), [{"messages": TALK}] * 2)
    ranked = [{"instruction": row["instruction"], "chosen": "yes", "rejected": "no"} for row in PAIRS]
    write_json(Path("ranked.json"), ranked)
    exam = HEAD + "".join(f"{n},{n}?,a,b,c,d,{'ABCD'[n]}\n" for n in range(3))
    write_exam(Path("exams"), "anatomy", exam, exam)
    Path("suite.yaml").write_text("even: {command: nli, data: pairs.json}\n")
    return working_folder


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, loading a model fails the test."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    return lambda: monkeypatch.setattr(loading, "load_model", load)


def run(command: str, *words: object) -> None:
    call(cli_of(command), *words, "--model", "model", "--out", "out")


@pytest.mark.parametrize("command", WORDS)
def test_a_command_whose_inputs_are_unchanged_is_up_to_date(command, here, capsys, nothing_is_loaded) -> None:
    words = WORDS[command]
    call_of = cli_of(command)
    if command == "ab":
        call_of = call_of.get_command(None, "ask")
    call(call_of, *words, "--model", "model", "--out", "out")
    before = {path: path.read_bytes() for path in sorted(Path("out").rglob("*")) if path.is_file()}
    capsys.readouterr()
    nothing_is_loaded()
    call(call_of, *words, "--model", "model", "--out", "out")
    assert "out/".rstrip("/") in (printed := capsys.readouterr().out) and "up to date" in printed
    assert before == {path: path.read_bytes() for path in sorted(Path("out").rglob("*")) if path.is_file()}
    with raises(RequestError, "--limit", "--force", "--out", "out-2"):
        call(call_of, *words, "--model", "model", "--out", "out", "--limit", 7)
    with raises(AssertionError, "a model was loaded"):
        call(call_of, *words, "--model", "model", "--out", "out", "--force")


def append(path: str) -> Callable[[], object]:
    """Add a byte to a file."""
    return lambda: Path(path).write_bytes(Path(path).read_bytes() + b"\n")


def renamed_row() -> None:
    write_json(Path("pairs.json"), [*PAIRS[:4], {**PAIRS[4], "idx": 99}, *PAIRS[:3]])


CHANGES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "the weights of the base": (append("model/generation_config.json"), ["--model"]),
    "the adapter": (lambda: shutil.rmtree("one") or write_adapter(Path("one"), alpha=4), ["adapter one"]),
    "the template of the adapter": (
        lambda: Path("one/chat_template.jinja").write_text("{{ messages[0]['content'] }}"),
        ["adapter one"],
    ),
    "the record of its training": (lambda: write_json(Path("one/training.json"), {}), ["adapter one"]),
    "a row": (renamed_row, ["pairs"]),
    "a prediction": (append("out/base/pairs/predictions.jsonl"), ["predictions.jsonl"]),
    "a result": (append("out/one/pairs/results.json"), ["results.json"]),
    "predictions that are gone": (
        lambda: Path("out/one/pairs/predictions.jsonl").unlink(),
        ["predictions.jsonl", "missing"],
    ),
}


@pytest.mark.parametrize(("change", "facts"), CHANGES.values(), ids=CHANGES)
def test_what_has_changed_is_named(change, facts, here, capsys, nothing_is_loaded) -> None:
    run("nli", *WORDS["nli"])
    nothing_is_loaded()
    change()
    with raises(RequestError, "out", *facts, "--force", "out-2"):
        run("nli", *WORDS["nli"])


def test_other_code_is_an_input(here, monkeypatch, tmp_path) -> None:
    run("nli", *WORDS["nli"])
    with monkeypatch.context() as patches, raises(RequestError, "tuneyard", "9.9"):
        patches.setattr(state, "release", lambda: "9.9")
        run("nli", *WORDS["nli"])
    code = """
from tuneyard.eval.figures import metric

@metric("length", unit="characters", higher=False, needs=("model_output",))
def length(prediction):
    return len(prediction["model_output"])
"""
    with installing(tmp_path / "site", GROUP, monkeypatch, metrics) as lay:
        lay("length", code)
        with raises(RequestError, "metric length"):
            run("nli", *WORDS["nli"])


def test_results_that_are_gone_are_resumed_and_a_stale_record_stays_stale(here, capsys) -> None:
    run("nli", *WORDS["nli"])
    kept = Path("out/base/pairs/predictions.jsonl").read_bytes()
    Path("out/base/pairs/results.json").unlink()
    with raises(RequestError, "unfinished", "--resume"):
        run("nli", *WORDS["nli"])
    append("out/one/pairs/predictions.jsonl")()
    run("nli", *WORDS["nli"], "--resume")
    assert Path("out/base/pairs/predictions.jsonl").read_bytes() == kept
    with raises(RequestError, "out/one/pairs/predictions.jsonl"):  # edited before the run was resumed
        run("nli", *WORDS["nli"])


def test_an_added_adapter_is_offered_to_resume(here, capsys) -> None:
    write_adapter(Path("two"), seed=3, alpha=2)
    run("nli", *WORDS["nli"])
    with raises(RequestError, "adapter two", "--resume"):
        run("nli", *WORDS["nli"], "--adapter", "two")
    run("nli", *WORDS["nli"], "--adapter", "two", "--resume")
    capsys.readouterr()
    run("nli", *WORDS["nli"], "--adapter", "two")
    assert "up to date" in capsys.readouterr().out


def test_kept_outputs_are_the_input_of_a_rescore(here, capsys) -> None:
    run("nli", *WORDS["nli"])
    again = ("--rescore", "out", "--data", "pairs.json", "--out", "again")
    call(cli_of("nli"), *again)
    capsys.readouterr()
    call(cli_of("nli"), *again)
    assert "again: up to date" in capsys.readouterr().out
    with raises(RequestError, "--count"):
        call(cli_of("nli"), *again, "--count", "maybe=no")
    append("out/one/pairs/predictions.jsonl")()
    with raises(RequestError, "--rescore"):
        call(cli_of("nli"), *again)


def test_results_of_a_server_are_never_current(here) -> None:
    write_json(Path("even.json"), even_rows(4))
    with answering(lambda _: "yes") as url:
        words = [
            "--model",
            "m",
            "--backend",
            "openai",
            "--url",
            url,
            "--data",
            "even.json",
            "--mode",
            "generate",
        ]
        call(cli_of("nli"), *words, "--out", "served")
        with raises(RequestError, "served", url, "may have changed"):
            call(cli_of("nli"), *words, "--out", "served")


def test_a_comparison_is_up_to_date_until_a_run_an_option_or_its_own_file_changes(here, capsys) -> None:
    run("nli", *WORDS["nli"])

    def compared(*words: object) -> bool:
        capsys.readouterr()
        call(compare.cli, "out", "--out", "verdict", *words)
        return "up to date" not in capsys.readouterr().out

    assert compared()
    assert not compared()
    assert compared("--title", "Mine") and not compared("--title", "Mine")
    append("verdict/table.md")()
    assert compared("--title", "Mine") and not compared("--title", "Mine")
    assert compared("--title", "Mine", "--lang", "zh")
    Path("verdict/report.html").unlink()
    assert compared("--title", "Mine", "--lang", "zh")
    lines = Path("out/one/pairs/predictions.jsonl").read_text().splitlines()
    swapped = json.loads(lines[0]) | {"model_output": "another text"}
    Path("out/one/pairs/predictions.jsonl").write_text("\n".join([json.dumps(swapped), *lines[1:]]) + "\n")
    assert compared("--title", "Mine", "--lang", "zh")
    assert compared("--title", "Mine", "--lang", "zh", "--force")


def test_a_record_with_paths_of_others_hashes_none_of_them(here, nothing_is_loaded) -> None:
    run("nli", *WORDS["nli"])
    recorded = read_json(Path("out/run.json"))
    for name in ("../secret", "/etc/hostname", "base/pairs/../../../secret"):
        Path("secret").write_text("s")
        write_json(Path("out/run.json"), {**recorded, "outputs": {**recorded["outputs"], name: "0"}})
        with raises(RequestError, "secret" if "secret" in name else "hostname"):
            run("nli", *WORDS["nli"])


def test_draws_are_up_to_date_and_more_can_be_added(here, capsys) -> None:
    write_json(Path("model/generation_config.json"), {"do_sample": True, "temperature": 1.0})
    words = ["--data", "pairs.json", "--preset", "document", "--max-new-tokens", 2, "--limit", 2]

    def draw(count: int, *more: object) -> str:
        capsys.readouterr()
        call(cli_of("qa"), *words, "--repeat", count, *more, "--model", "model", "--out", "out")
        return capsys.readouterr().out

    assert "up to date" not in draw(2)
    assert "out/repeats.md: up to date" in draw(2)
    with raises(RequestError, "--resume"):
        draw(3)
    draw(3, "--resume")
    assert "up to date" in draw(3)
    with raises(RequestError, "draw-3", "--force"):
        draw(2)


def test_a_parity_check_is_up_to_date_unless_it_failed(here, capsys, nothing_is_loaded) -> None:
    shapes = {f"model.layers.{layer}.self_attn.q_proj": (64, 64) for layer in (0, 1)}
    for name, seed in (("whole", 5), ("other", 6)):
        write_adapter(Path(name), shapes, seed=seed, alpha=64)
    call(adapters, "fuse", "whole", "--base", "model", "--dtype", "fp32", "--out", "fused")
    words = ["--model", "model", "--adapter", "whole"]
    words += ["--data", "pairs.json", "--limit", 2, "--out", "parity"]
    call(cli_of("prove"), *words, "--fused", "fused")
    written = {path: path.read_bytes() for path in Path("parity").iterdir()}
    of_other = ["--adapter", "other", *words[4:-1], "failed", "--model", "model", "--fused", "fused"]
    with raises(ContentError, "prove.md"):
        call(cli_of("prove"), *of_other)
    nothing_is_loaded()
    capsys.readouterr()
    call(cli_of("prove"), *words, "--fused", "fused")
    assert "parity/prove.md: up to date" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path("parity").iterdir()} == written
    for change in (["--fused", "fused", "--flips", 1], ["--fused", "fused", "--limit", 3]):
        with raises(AssertionError, "a model was loaded"):
            call(cli_of("prove"), *words, *change)
    with raises(AssertionError, "a model was loaded"):
        call(cli_of("prove"), *of_other)
    append("parity/prove.md")()
    with raises(AssertionError, "a model was loaded"):
        call(cli_of("prove"), *words, "--fused", "fused")
