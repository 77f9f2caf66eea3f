"""--rescore: kept outputs are scored again, without a model and with the outputs' bytes as they were."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from tests.cli.scoring import PAIRS, ask, call, predictions, results
from tests.cli.test_eval_tools import ROWS as CALLS
from tests.cli.test_qa import ROWS as QUESTIONS
from tests.cli.test_suite import PROBES
from tests.cli.test_text import ROWS as TEXTS
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.runs_cut import tree
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.eval.defect.__main__ import cli as defect
from tuneyard.eval.dialogue import cli as dialogue
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.qa.__main__ import cli as qa
from tuneyard.eval.text import cli as text
from tuneyard.eval.tools.__main__ import cli as tools

pytestmark = pytest.mark.usefixtures("unrendered")
SAID = ["I know nothing", "No.", "maybe", "Yes, he eats.", "no"]


@pytest.fixture
def generated(data: Path, tmp_path: Path) -> Path:
    """A run of eval.nli whose answers are SAID."""
    said = {row["instruction"]: answer for row, answer in zip(PAIRS, SAID, strict=True)}
    ask(nli, said.__getitem__, "--mode", "generate", "--data", data, "--out", tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def chosen(data: Path, tmp_path: Path, tiny_model: Path) -> Path:
    """A run of eval.nli that chose between yes, no and maybe."""
    call(nli, "--model", tiny_model, "--data", data, "--out", tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def rescore(data: Path, tmp_path: Path) -> Callable[..., None]:
    """`rescore(run, …)` scores its outputs again, into tmp_path/new."""

    def run(source: Path, *words: object, command: click.Command = nli) -> None:
        call(command, "--rescore", source, "--data", data, *words, "--out", tmp_path / "new")

    return run


def test_a_run_of_vllm_is_scored_again_without_an_engine(rescore, chosen, tmp_path):
    record = chosen / "run.json"
    run = read_json(record)
    run["settings"].update(vllm="0.26.0", tensor_parallel=2, pipeline_parallel=1)  # as a run of vLLM has them
    write_json(record, run)
    rescore(chosen)
    new = tmp_path / "new/base/tiny"
    assert predictions(new) == predictions(chosen / "base/tiny")
    assert results(new)["settings"]["tensor_parallel"] == 2


def test_another_parser_takes_the_same_outputs_anew(rescore, generated, tmp_path, capsys):
    before = tree(generated)
    rescore(generated, "--parser", "substring")
    assert tree(generated) == before
    old, new = generated / "m/tiny", tmp_path / "new/m/tiny"
    assert [line["model_output"] for line in predictions(new)] == SAID
    assert [line["predicted_output"] for line in predictions(old)] == ["unknown", "no", "maybe", "yes", "no"]
    assert [line["predicted_output"] for line in predictions(new)] == ["no", "no", "maybe", "yes", "no"]
    was, found = results(old), results(new)
    assert (was["unparsed"], found["unparsed"]) == (1, 0)
    assert found["rescored_from"] == {
        "path": str(old / "predictions.jsonl"),
        "sha256": sha256(old / "predictions.jsonl"),
    }
    assert (was["settings"]["parser"], found["settings"]["parser"]) == ("word", "substring")
    assert {**found["settings"], "parser": "word"} == was["settings"]
    assert all(found[name] == was[name] for name in ("hashes", "versions", "device", "prompt", "trained_on"))
    assert "rescored from" in capsys.readouterr().out


def test_labels_and_counts_are_those_asked_for(rescore, generated, data, tmp_path):
    write_json(data, [{**row, "output": "yes" if n else "no"} for n, row in enumerate(PAIRS)])
    run = read_json(generated / "run.json")
    write_json(generated / "run.json", {**run, "datasets": {"tiny": sha256(data)}})
    counting = ("--choices", "yes,no,maybe", "--count", "maybe=no")
    rescore(generated, *counting)
    found = predictions(tmp_path / "new/m/tiny")
    assert [line["predicted_output"] for line in found] == ["unknown", "no", "no", "yes", "no"]


def test_of_chosen_labels_fewer_can_be_taken_and_others_not(rescore, chosen, data, tmp_path):
    old = predictions(chosen / "base/tiny")
    with raises(RequestError, "perhaps"):
        choices = ("--choices", "yes,no,maybe,perhaps")
        rescore(chosen, *choices)
    assert not (tmp_path / "new").exists()
    with raises(RequestError, "--parser"):
        rescore(chosen, "--parser", "substring")
    two = [{**row, "output": "no"} if row["output"] == "maybe" else row for row in PAIRS]
    write_json(data, two)
    run = read_json(chosen / "run.json")
    write_json(chosen / "run.json", {**run, "datasets": {"tiny": sha256(data)}})
    rescore(chosen, "--choices", "yes,no")
    for was, line in zip(old, predictions(tmp_path / "new/base/tiny"), strict=True):
        assert line["model_output"] == was["model_output"]
        assert line["choices"] == {name: was["choices"][name] for name in ("yes", "no")}
        assert line["predicted_output"] == max(line["choices"], key=line["choices"].get)
        assert line["label_mass"] < was["label_mass"]


def test_a_run_scored_again_as_it_was_has_the_same_bytes(chosen, data, tmp_path) -> None:
    """In a process of its own, which says whether torch was imported."""
    program = (
        "import sys\nfrom tuneyard.eval.nli import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    given = ("--rescore", chosen, "--data", data, "--out", tmp_path / "new")
    subprocess.run([sys.executable, "-c", program, *map(str, given)], check=True)
    new, old = (tree(folder) for folder in (tmp_path / "new", chosen))
    assert new["base/tiny/predictions.jsonl"] == old["base/tiny/predictions.jsonl"]
    assert results(tmp_path / "new/base/tiny")["accuracy"] == results(chosen / "base/tiny")["accuracy"]


def test_the_file_of_the_first_run_must_be_named_again(generated, working_folder) -> None:
    with raises(RequestError, "--rescore", "tiny", "--data"):
        call(nli, "--rescore", generated, "--parser", "substring", "--out", working_folder / "new")
    assert not (working_folder / "new").exists()


REPORTS = [
    {"instruction": "judge", "output": "判断:网络设备\n\n原因：无", "subtype": "a", "type": "b"},
    {"instruction": "judge it", "output": "判断:其他\n\n原因：无", "subtype": "c"},
]
EVERY = {
    "qa": (qa, QUESTIONS, ()),
    "defect": (defect, REPORTS, ()),
    "dialogue": (dialogue, PROBES, ()),
    "tools": (tools, CALLS, ()),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_command_that_generates_can_score_again(name, tmp_path) -> None:
    command, rows, own = EVERY[name]
    data = tmp_path / "asked.json"
    write_json(data, rows)
    given = ("--data", data, *own)
    ask(
        command,
        lambda asked: f"<think>x</think> def f(): return 1 {asked}",
        *given,
        "--out",
        tmp_path / "old",
    )
    call(command, "--rescore", tmp_path / "old", *given, "--out", tmp_path / "new")
    old, new = (tmp_path / folder / "m/asked" for folder in ("old", "new"))
    assert (new / "predictions.jsonl").read_bytes() == (old / "predictions.jsonl").read_bytes()
    was, found = results(old), results(new)
    assert found.pop("rescored_from")["path"] == str(old / "predictions.jsonl")
    assert {**found, "command": ""} == {**was, "command": ""}


def test_text_is_measured_again_with_rouge(tmp_path, tiny_model) -> None:
    data = tmp_path / "said.json"
    write_json(data, TEXTS)
    model = ("--model", tiny_model, "--data", data, "--max-new-tokens", "4")
    call(text, *model, "--out", tmp_path / "old")
    call(text, "--rescore", tmp_path / "old", "--data", data, "--rouge", "--out", tmp_path / "new")
    old, new = (tmp_path / folder / "base/said" for folder in ("old", "new"))
    assert (new / "predictions.jsonl").read_bytes() == (old / "predictions.jsonl").read_bytes()
    assert "rougeL" not in results(old)
    assert 0 <= results(new)["rougeL"] <= 1
    assert results(new)["eval_loss"] == results(old)["eval_loss"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--mode", "choice"), "--rescore; --mode"),
        (("--model", "m", "--adapter", "a=b"), "--model; --adapter"),
        (("--limit", "2"), "--limit"),
        (("--resume",), "--resume"),
    ],
)
def test_what_outputs_do_not_tell_is_refused(rescore, generated, tmp_path, arguments, facts):
    with raises(RequestError, facts):
        rescore(generated, *arguments)
    assert not (tmp_path / "new").exists()


def test_what_is_no_finished_run_of_this_data_and_command_is_refused(rescore, generated, data, tmp_path):
    with raises(RequestError, "run.json"):
        rescore(tmp_path / "none")
    with raises(RequestError, "tuneyard eval nli"):
        rescore(generated, command=qa)
    run = read_json(generated / "run.json")
    settings = {**run["settings"], "command": "eval.sweep", "seed": 42}
    (tmp_path / "sweep").mkdir()
    write_json(tmp_path / "sweep/run.json", {**run, "settings": settings})
    with raises(RequestError, "tuneyard eval compare"):
        rescore(tmp_path / "sweep")
    with raises(RequestError, "--out"):
        call(nli, "--rescore", generated, "--data", data, "--out", generated, "--force")
    other = tmp_path / "other.json"
    other.write_text(data.read_text())
    with raises(RequestError, "--dataset"):
        call(nli, "--rescore", generated, "--data", other, "--out", tmp_path / "new")
    write_json(data, [*PAIRS, PAIRS[0]])
    with raises(ContentError, "score without"):
        rescore(generated)
    write_json(data, PAIRS)
    (generated / "m/tiny/predictions.jsonl").write_text("")
    with raises(ContentError, "--resume"):
        rescore(generated)
    (generated / "m/tiny/results.json").unlink()
    with raises(RequestError, "--resume"):
        rescore(generated)
    assert not (tmp_path / "new").exists()


def test_a_run_that_names_folders_elsewhere_is_refused(rescore, generated):
    run = read_json(generated / "run.json")
    write_json(generated / "run.json", {**run, "models": {"../../m": "x"}})
    with raises(ContentError, "run.json"):
        rescore(generated)


def test_without_rescore_a_model_is_required(data, tmp_path, working_folder) -> None:
    with raises(RequestError, "adapter", "saves/"):
        call(nli, "--data", data, "--out", tmp_path / "new")
