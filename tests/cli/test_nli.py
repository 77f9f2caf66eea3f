"""tuneyard eval nli on a tiny model, in this process: what it writes, and what it refuses untouched."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS, ask, call
from tests.conftest import ROOT
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import printed_line, raises
from tests.runs_cut import tree
from tuneyard.core.errors import ContentError, RequestError, ResumableError
from tuneyard.eval.__main__ import COMMANDS
from tuneyard.eval.nli import cli

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def nli(score: Callable[..., Path], data: Path):
    """`nli(…)` runs the command, on `data` if no other is named, and returns OUT."""

    def run(*words: object, **how: object) -> Path:
        named = () if "--data" in words else ("--data", data)
        return score(cli, *named, *words, **how)

    return run


def results(folder: Path, model="base", name="tiny") -> dict:
    return read_json(folder / model / name / "results.json")


def predictions(folder: Path, model="base", name="tiny") -> list[dict]:
    return read_lines(folder / model / name / "predictions.jsonl")


def test_several_models_and_sets_in_one_run(nli, data, tmp_path, capsys) -> None:
    other = tmp_path / "other.jsonl"
    write_lines(other, PAIRS[:3])
    adapter = write_adapter(tmp_path / "saved")
    out = nli("--data", data, "--data", other, "--adapter", f"one={adapter}")
    assert sorted(tree(out)) == sorted(
        ["run.json", *(f"{m}/{s}/{f}" for m in ("base", "one") for s in ("tiny", "other")
                       for f in ("predictions.jsonl", "results.json"))]
    )  # fmt: skip
    assert predictions(out) != predictions(out, "one")
    shown = capsys.readouterr()
    assert shown.out.count("majority") == 4 and "loading" in shown.err


def test_predictions_begin_with_the_documents_six_fields(nli):
    rows = predictions(nli())
    six = ["instruction", "input", "expected_output", "model_output", "predicted_output", "idx"]
    assert [list(row) for row in rows] == [[*six, "row", "choices", "label_mass"]] * 5
    assert [(row["row"], row["idx"]) for row in rows] == [(n, n + 10) for n in range(5)]
    for row in rows:
        assert row["predicted_output"] == max(row["choices"], key=row["choices"].get)
        assert set(row["choices"]) == {"yes", "no", "maybe"}


SPELLED = {
    "yes": ["yes", "Yes.", " YES", "yes", "cafe\u0301", "caf\u00e9"],
    "true": [True, "true", "TRUE.", "true", "no", False],
    "1": [1, "1", 1.0, "1.0", "2", 2.0],
    "是": ["是", "是。", "是", "是", "否", "否。"],
}


@pytest.mark.parametrize("label", SPELLED)
def test_equal_expected_answers_are_one_label(nli, tmp_path, capsys, label: str) -> None:
    rows = [
        {"instruction": f"Is {n} even?", "input": "", "output": answer}
        for n, answer in enumerate(SPELLED[label])
    ]
    write_lines(tmp_path / "mine.jsonl", rows)
    out = nli("--data", tmp_path / "mine.jsonl")
    expected = [row["expected_output"] for row in predictions(out, name="mine")]
    labels = results(out, name="mine")["labels"]
    assert expected[:4] == [label] * 4 or expected[:3] == [label] * 3
    assert set(expected) == set(labels) and len(labels) == len(set(map(str.casefold, labels)))
    assert "label" in capsys.readouterr().err


def test_answers_equal_the_choices_that_are_named(nli, tmp_path) -> None:
    rows = [
        {"instruction": f"q{n}", "input": "", "output": text} for n, text in enumerate(["Yes.", "NO", "no"])
    ]
    write_lines(tmp_path / "mine.jsonl", rows)
    out = nli("--data", tmp_path / "mine.jsonl", "--choices", "yes,no,maybe")
    assert [row["expected_output"] for row in predictions(out, name="mine")] == ["yes", "no", "no"]
    write_lines(tmp_path / "other.jsonl", [*rows, {"instruction": "q", "input": "", "output": "1.10"}])
    with raises(ContentError, "record 4", "1.10"):
        nli("--data", tmp_path / "other.jsonl", "--choices", "yes,no,1.1", "--force")


def test_results_keep_the_schema_and_say_what_was_scored(nli, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = read_json(ROOT / "core/schemas/results-labels.json")
    adapter = write_adapter(tmp_path / "saved")
    out = nli("--adapter", f"one={adapter}")
    for model in ("base", "one"):
        jsonschema.validate(results(out, model), schema)
    found = results(out, "one")
    assert (found["n"], found["majority"], found["dtype"], found["labels"]) == (
        5,
        0.4,
        "fp32",
        ["maybe", "no", "yes"],
    )
    assert list(found["hashes"]["adapters"]) == ["saved"]
    assert found["command"].split()[:3] == ["tuneyard", "eval", "nli"]


def test_generate_mode_parses_what_was_generated(nli):
    out = nli("--mode", "generate", "--max-new-tokens", "5")
    assert results(out)["label_mass"] is None
    assert results(out)["unparsed"] == sum(p["predicted_output"] == "unknown" for p in predictions(out))
    assert "choices" not in predictions(out)[0]
    unknown = [p["row"] for p in predictions(out) if p["predicted_output"] == "unknown"]
    assert results(out)["unparsed_rows"] == unknown


def test_a_model_that_gives_one_answer_to_every_example_is_told(data, tmp_path, capsys) -> None:
    ask(cli, lambda _: "No.", "--data", data, "--mode", "generate", "--out", tmp_path / "out")
    assert '  always "no"  unparsed 0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("data", "datasets tiny"),
        ("adapter", "models one"),
        ("settings", "settings variants"),
        ("model", "settings model"),
    ],
)
def test_a_run_that_changed_is_not_resumed(nli, data, tmp_path, tiny_model, change, named) -> None:
    adapter = write_adapter(tmp_path / "saved")
    arguments = ["--data", data, "--adapter", f"one={adapter}"]
    before = tree(nli(*arguments))
    model = tiny_model
    if change == "data":
        write_json(data, PAIRS[:4])
    elif change == "adapter":
        shutil.rmtree(adapter)
        write_adapter(adapter, seed=1)
    elif change == "settings":
        arguments += ["--variants", "none"]
    else:
        model = tmp_path / "copy"
        shutil.copytree(tiny_model, model)
        (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    with raises(RequestError, named):
        nli(*arguments, "--resume", model=model)
    assert tree(tmp_path / "out") == before


def test_the_template_beside_an_adapter_comes_first(nli, tmp_path):
    adapter = write_adapter(tmp_path / "saved")
    (adapter / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    out = nli("--adapter", f"one={adapter}")
    assert results(out)["prompt"] == "chat template of the tokenizer"
    assert results(out, "one")["prompt"] == f"chat template of {adapter}"
    assert results(out)["hashes"]["chat_template"] != results(out, "one")["hashes"]["chat_template"]


def test_a_prompt_beyond_the_context_is_counted_and_never_cut(nli, tmp_path, capsys) -> None:
    long = tmp_path / "tiny.json"
    write_json(long, [*PAIRS, {**PAIRS[0], "instruction": "dog " * 3000}])
    out = nli("--data", long)
    assert results(out)["too_long"] == 1
    assert (results(out)["n"], results(out)["unparsed"]) == (6, 1)
    assert predictions(out)[5]["predicted_output"] == "unknown"
    assert "a context of 2048" in predictions(out)[5]["too_long"]
    printed_line(capsys.readouterr().err, "warning", "base on tiny", "1 prompt", "context")


def test_every_prompt_is_planned_before_the_first_is_scored(nli, data, tmp_path, refused) -> None:
    """The second dataset cannot be scored: then the first one is not either."""
    long = tmp_path / "long.json"
    rows = [{"instruction": "yes no " * 3000, "output": label} for label in ("yes", "no")]
    write_json(long, rows)
    with refused(ContentError, 6023, 2048):
        nli("--data", data, "--data", long)


def test_an_answer_that_nobody_expects_may_count_as_another(nli, tmp_path):
    said = predictions(nli())[0]["model_output"]
    meant, other = (label for label in ("yes", "no", "maybe") if label != said)
    two = tmp_path / "two.json"
    write_json(two, [{**r, "output": meant if n % 2 else other} for n, r in enumerate(PAIRS)])
    counts = ("--count", f"{said}={meant}", "--count", f"{other}={meant}")
    found = predictions(nli("--data", two, "--choices", "yes,no,maybe", *counts, out="two"), name="two")
    for row in found:  # `other` is expected in this set, so it stays what it is
        assert row["predicted_output"] == (meant if row["model_output"] == said else row["model_output"])
    assert found[0]["model_output"] == said


def test_generated_answers_are_compared_with_the_chosen_ones(nli, capsys):
    out = nli("--check-generate", "3", "--max-new-tokens", "4")
    bars = capsys.readouterr().err  # of the 3 rows that are also generated, then of all 5
    assert bars.index("base tiny:  40%|") < bars.index("base tiny:   0%|")
    check = results(out)["check_generate"]
    assert check["n"] == 3
    assert check["agree"] == 3 - len(check["differing"])
    generated = predictions(nli("--mode", "generate", "--max-new-tokens", "4", out="g"))
    chosen = predictions(out)
    differing = [r for r in (0, 1, 3) if generated[r]["predicted_output"] != chosen[r]["predicted_output"]]
    assert [d["row"] for d in check["differing"]] == differing


def test_generating_compares_labels_for_as_many_rows_as_are_asked_for(nli, capsys):
    chosen = predictions(nli(out="c"))
    out = nli("--mode", "generate", "--max-new-tokens", "4", "--check-generate", "3")
    said = predictions(out)
    differing = [
        {"row": r, "chosen": chosen[r]["model_output"]}
        for r in (0, 1, 3)
        if said[r]["predicted_output"] != chosen[r]["predicted_output"]
    ]
    agree = 3 - len(differing)
    assert results(out)["check_choice"] == {"n": 3, "agree": agree, "differing": differing}
    assert f"chosen answers agree {agree}/3" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--think",), ("--preset", "document"), ("--check-generate", "0")])
def test_generating_compares_no_labels_unasked(nli, words, monkeypatch, capsys) -> None:
    """Without --check-generate no forward pass is made for labels."""

    def never(*_arguments: object) -> None:
        raise AssertionError("labels are compared")

    monkeypatch.setattr("tuneyard.eval.scoring.evaluation.Job.choosing", never)
    out = nli("--mode", "generate", "--max-new-tokens", "4", *words)
    assert results(out)["n"] == 5
    assert "check_choice" not in results(out) and "agree" not in capsys.readouterr().out


def test_more_rows_to_check_than_there_are_means_all_that_are_answered(nli) -> None:
    out = nli("--mode", "generate", "--max-new-tokens", "4", "--check-generate", "99", "--variants", "none")
    assert results(out)["check_choice"]["n"] == 5


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--think",), "--think"),
        (("--backend", "openai", "--url", "http://localhost:1/v1"), "--mode choice"),
    ],
)
def test_labels_that_cannot_be_compared_are_refused_before_anything_is_asked(nli, refused, words, named):
    with refused(RequestError, "--check-generate 2", named):
        nli("--mode", "generate", "--check-generate", "2", *words)


def test_a_misspelt_model_does_not_blame_the_network(nli, tiny_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with raises(RequestError, "model", "/modle"):
        nli(model=tiny_model.parent / "modle")


def test_labels_are_found_once_and_in_the_whole_dataset(nli, monkeypatch):
    """However many rows are scored: scoring 20,000 rows took 20,000 looks at 20,000 answers."""
    reads = []

    def answers(questions) -> list[str]:
        reads.append(questions.name)
        return [c.answer for c in questions.conversations]

    monkeypatch.setattr("tuneyard.eval.data.dataset.EvalDataset.answers", property(answers))
    for limit in (1, 5):
        for mode in ("choice", "generate"):
            reads.clear()
            short = ("--max-new-tokens", "3") if mode == "generate" else ()
            more = ("--mode", mode, *short, "--limit", limit, "--count", "maybe=no")
            out = nli(*more, out=f"{mode}-{limit}")
            assert results(out)["labels"] == ["maybe", "no", "yes"]
            assert len(reads) <= 2  # for the labels, and for the baseline


def test_a_lora_folder_as_model_brings_its_base(nli, tmp_path, tiny_model):
    adapter = write_adapter(tmp_path / "mine", base_model_name_or_path=str(tiny_model))
    alone = nli(model=adapter)
    beside = nli("--adapter", f"mine={adapter}", out="beside")
    assert predictions(alone, "mine") == predictions(beside, "mine")
    assert predictions(alone, "base") == predictions(beside, "base")


def test_adapters_add_by_weight_with_the_base_loaded_once(nli, tmp_path):
    one, two = (write_adapter(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    mix = f"mix={one}:0.5+{two}:0.25"
    out = nli("--adapter", one, "--adapter", mix, "--adapter", f"all={one}:1")
    assert results(out, "mix")["weights"] == {"one": 0.5, "two": 0.25}
    assert list(results(out, "mix")["hashes"]["adapters"]) == ["one", "two"]
    assert predictions(out, "all") == predictions(out, "one") != predictions(out, "mix")
    with raises(RequestError, "mix"):
        nli("--adapter", f"mix={one}:0.5+{two}:0.5", "--resume")


def test_a_template_of_another_family_is_refused(nli, refused):
    with refused(RequestError, "--template llama3"):
        nli("--template", "llama3")


def test_adapters_with_different_chat_templates_are_not_mixed_by_chance(nli, tmp_path):
    one, two = (write_adapter(tmp_path / name) for name in ("one", "two"))
    (one / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    with raises(RequestError, "--template"):
        nli("--adapter", f"mix={one}:0.5+{two}:0.5")


def test_an_adapter_whose_base_has_another_name_is_refused_unless_both_are_the_same(nli, tmp_path):
    adapter = write_adapter(tmp_path / "mine", base_model_name_or_path="org/other")
    with raises(ContentError, "org/other", "--same-base"):
        nli("--adapter", f"mine={adapter}")
    nli("--adapter", f"mine={adapter}", "--same-base")


def test_weights_that_overflow_stop_the_run_and_keep_what_is_done(nli, tmp_path):
    adapter = write_adapter(tmp_path / "mine", scale=1e19)
    with raises(ContentError, "--dtype fp32"):
        nli("--adapter", f"mine={adapter}")
    assert results(tmp_path / "out")["n"] == 5
    assert not (tmp_path / "out/mine/tiny/results.json").exists()


def test_weights_that_overflow_are_told_from_silence_when_generating(nli, tmp_path):
    adapter = write_adapter(tmp_path / "mine", scale=1e19)
    with raises(ContentError, "--dtype fp32"):
        nli("--adapter", f"mine={adapter}", "--mode", "generate", "--max-new-tokens", "3")


def test_a_quantised_base_is_another_model_and_the_results_say_so(nli, tmp_path):
    pytest.importorskip("bitsandbytes")
    adapter = write_adapter(tmp_path / "mine")
    out = nli("--adapter", f"mine={adapter}", "--quantize", 4)
    assert results(out)["settings"]["quantize"] == 4
    assert predictions(out) != predictions(out, "mine")
    assert predictions(nli(out="plain")) != predictions(out)
    with raises(RequestError, "settings quantize"):
        nli("--resume", "--quantize", 4, out="plain")


BAD = {
    "nothing to ask": ([], RequestError, "dataset; --dataset NAME; --data FILE"),
    "no such file": (["--data", "nowhere.json"], RequestError, "nowhere.json"),
    "not registered": (["--dataset", "rte"], RequestError, "rte; registered"),
    "no such adapter": (["--data", "DATA", "--adapter", "x=nowhere"], RequestError, "nowhere"),
    "no name": (["--data", "DATA", "--adapter", "=x"], RequestError, "NAME=PATH"),
    "base is taken": (
        ["--data", "DATA", "--adapter", "base=x"],
        RequestError,
        "NAME=PATH; NAME",
    ),
    "a path as name": (["--data", "DATA", "--adapter", "../x=y"], RequestError, ""),
    "a weight that is none": (["--data", "DATA", "--adapter", "x=a:b"], RequestError, "b; a"),
    "a part without weight": (
        ["--data", "DATA", "--adapter", "x=a:1+b"],
        RequestError,
        "NAME_OR_DIR=WEIGHT; NAME_OR_DIR:WEIGHT; e.g; b=0.5",
    ),
    "nothing to score": (["--data", "DATA", "--no-base"], RequestError, ""),
    "same set twice": (["--data", "DATA", "--data", "DATA"], RequestError, ""),
    "foreign label": (["--data", "DATA", "--choices", "yes,no"], ContentError, "maybe; record 3"),
    "no choices": (["--data", "DATA", "--choices", ""], RequestError, "--choices"),
    "a server not asked": (
        ["--data", "DATA", "--url", "http://x"],
        RequestError,
        "--url; --backend",
    ),
    "folding into no weights": (
        ["--data", "DATA", "--quantize", "4", "--apply", "merged"],
        RequestError,
        "--apply",
    ),
    "thinking about labels": (["--data", "DATA", "--think"], RequestError, "--think; --mode"),
    "no such label": (
        ["--data", "DATA", "--count", "perhaps=no"],
        RequestError,
        "",
    ),
    "no such mode": (["--data", "DATA", "--mode", "wrong"], click.UsageError, ""),
    "a parser of labels": (["--data", "DATA", "--parser", "substring"], RequestError, "--parser"),
    "a length of labels": (["--data", "DATA", "--max-new-tokens", "9"], RequestError, "--max-new-tokens"),
    "spellings of an answer": (
        ["--data", "DATA", "--mode", "generate", "--variants", "none"],
        RequestError,
        "--variants",
    ),
}


@pytest.mark.parametrize(("arguments", "error", "facts"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused_before_anything_is_written(
    score, data, tmp_path, monkeypatch, arguments, error, facts
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    with raises(error, facts):
        score(cli, *[str(data) if a == "DATA" else a for a in arguments])
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


FILES = {
    "empty": ("", ""),
    "cut": ('[{"instruction": "a", "output"', "JSON"),
    "not utf-8": (b'[{"instruction": "\xff"}]', "UTF-8"),
    "no instruction": (
        '[{"question": "a", "output": "yes"}]',
        "instruction; record 1",
    ),
    "no answer": (
        '[{"instruction": "a", "output": "yes"}, {"instruction": "b"}]',
        "record 2",
    ),
    "one label": ('[{"instruction": "a", "output": "yes"}]', "yes"),
}


@pytest.mark.parametrize(("content", "facts"), FILES.values(), ids=FILES)
def test_bad_data_is_refused_with_its_place(nli, tmp_path, refused, content, facts) -> None:
    path = tmp_path / "tiny.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(ContentError, "tiny.json", facts):
        nli("--data", path)


def test_a_resumed_run_keeps_its_dtype(tiny_model, data, tmp_path) -> None:
    words = ["--data", data, "--model", tiny_model, "--out", tmp_path / "out"]
    call(cli, *words, "--dtype", "bf16")
    run = tmp_path / "out/run.json"
    assert read_json(run)["settings"]["dtype"] == "bf16"
    results = tmp_path / "out/base/tiny/results.json"
    before = results.read_bytes()
    results.unlink()
    call(cli, *words, "--resume")
    assert results.read_bytes() == before
    with raises(RequestError, "dtype", "bf16", "fp32"):
        call(cli, *words, "--resume", "--dtype", "fp32")


def test_ctrl_c_names_the_command_that_resumes(tiny_model, data, tmp_path, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuneyard.eval.scoring.candidates.open_models", interrupt)
    monkeypatch.setattr("sys.argv", ["tuneyard", "eval", "nli", "--data", "a b.json", "--force"])
    words = ["--data", data, "--force", "--model", tiny_model, "--out", tmp_path / "out"]
    with raises(ResumableError, "tuneyard", "eval", "nli", "a b.json", "--data", "--resume"):
        cli.main(list(map(str, words)), prog_name="tuneyard", standalone_mode=False)


@pytest.mark.parametrize("command", ["eval.sweep", "eval.suite"])
def test_sweep_and_suite_name_it_too(tmp_path, monkeypatch, command) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    module = importlib.import_module(COMMANDS[command.removeprefix("eval.")].partition(":")[0])
    monkeypatch.setattr(module, "request_of", interrupt)
    monkeypatch.setattr("sys.argv", ["x", "--out", "here"])
    suite = [str(ROOT / "eval/suites/toolkit.yaml")] if command == "eval.suite" else []
    words = [*suite, "--model", "m", "--out", str(tmp_path / "out")]
    with raises(ResumableError, command.replace(".", " "), "--out", "--resume"):
        module.cli.main(words, prog_name=command, standalone_mode=False)


@pytest.mark.parametrize("quiet", [False, True])
def test_the_last_lines_name_the_results_and_the_next_command(
    tiny_model, data, tmp_path, capsys, quiet
) -> None:
    out = tmp_path / "out"
    given = ["--model", tiny_model, "--data", data, "--limit", 2, "--out", out]
    call(cli, *given, *["-q"] * quiet)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("result: ") for line in lines) is not quiet
    assert any(line.startswith("next: tuneyard eval compare") for line in lines) is not quiet
