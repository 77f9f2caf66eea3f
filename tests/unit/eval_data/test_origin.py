"""The file of a mixture before its split: eval picks the rows that compile held out, and knows the others."""

import json
import shutil
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from tests.cli import scoring
from tests.conftest import ROOT
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import printed_line, raises
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets.compiled import read_row_index, row_index_file
from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.errors import RequestError
from tuneyard.eval import text
from tuneyard.eval.data.dataset import EvalDataset, read_datasets
from tuneyard.eval.data.shots import with_shots

SPEC = {
    "about": "Two parts",
    "mix": {
        "total": 60,
        "shuffle": 42,
        "parts": {
            "first": {"share": 0.5, "source": {"files": "first.jsonl"}, "as": "reports"},
            "second": {"share": 0.5, "source": {"files": "second.jsonl"}, "as": "reports"},
        },
    },
    "split": {"eval": 0.1, "seed": 42},
    "write": [
        {
            "dataset": "both_{split}",
            "file": "both-{split}.jsonl",
            "format": "alpaca",
            "wrap_input": "More: {}",
            "system": "You are an expert.",
        },
        {"file": "whole.jsonl", "format": "alpaca"},
    ],
}


def compiled(folder: Path, *, twice: bool = False, **changes: object) -> Path:
    """Compile the mixture and return its folder. `twice`: both parts have the same rows."""
    for name in ("first", "second"):
        rows = [
            {
                "instruction": f"{'first' if twice else name} {n}?",
                "input": f"case {n}" if n % 2 else "",
                "output": f"It is {n}, as {name} says.",
            }
            for n in range(40)
        ]
        write_lines(folder / f"{name}.jsonl", rows)
    spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    (folder / "both.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    sources = tuple(f"{name}={folder / name}.jsonl" for name in ("first", "second"))
    report = compile_dataset(
        CompileRequest(load_spec(str(folder / "both.yaml")), sources=sources, out=folder / "dataset_info")
    )
    assert not report.problems.errors
    return folder / "dataset_info/both"


@pytest.fixture
def mixture(working_folder: Path) -> Path:
    """The folder of the compiled mixture, which is in the registry of the current folder."""
    return compiled(working_folder)


def whole(folder: Path) -> EvalDataset:
    return read_datasets((), (folder / "whole.jsonl",))[0]


def trained_fingerprints(folder: Path) -> set[int]:
    trained = read_row_index(folder / "both-train.jsonl")
    return set(trained.fingerprints.tolist())


def texts(rows: Iterable[dict]) -> list[tuple[str, str]]:
    return [(row["instruction"], row["output"]) for row in rows]


def records(path: Path) -> list[tuple[str, str]]:
    return texts(read_lines(path))


def test_a_copy_elsewhere_has_the_held_out_rows_of_its_compile(tmp_path, mixture):
    """Also without the original: the manifest in the registry of the current folder has its hash."""
    copy = tmp_path / "elsewhere/mine.jsonl"
    copy.parent.mkdir()
    (mixture / "whole.jsonl").rename(copy)
    dataset = read_datasets((), (copy,))[0]
    picked = text.held_out(dataset, 0.1, 42)
    assert texts(picked.records) == records(mixture / "both-eval.jsonl")
    assert picked.origin.training_rows(6) is None
    assert dataset.origin.unsplit.is_reworded and dataset.origin.unsplit.instead == ["both_eval"]
    with raises(RequestError, "elsewhere/mine.jsonl", "--dataset both_eval"):
        text.held_out(dataset, 0.2, 42)


def test_rows_of_another_file_are_compared_with_the_training_rows_of_the_registry(tmp_path, mixture):
    """30 rows of the mixture in another order, and 5 others: worded as the mixture, not as its datasets."""
    of_mixture = whole(mixture)
    picked = list(range(59, 29, -1))
    lines = [json.dumps(of_mixture.records[row]) for row in picked]
    lines += [json.dumps({"instruction": f"New {n}?", "input": "", "output": "No."}) for n in range(5)]
    (tmp_path / "other.jsonl").write_text("\n".join(lines))
    dataset = read_datasets((), (tmp_path / "other.jsonl",))[0]
    expected = [*of_mixture.origin.in_training[picked], *[False] * 5]
    assert dataset.origin.unsplit is None
    assert list(dataset.origin.in_training) == expected
    counted = dataset.origin.training_rows(35)
    assert counted == {
        "examples": sum(expected),
        "drawn": False,
        "datasets": ["both_train"],
        "held_out": ["both_eval"],
    }
    results_schema = read_json(ROOT / "core/schemas/results-labels.json")
    jsonschema.validate(counted, results_schema["$defs"]["training_rows"])
    assert trained_fingerprints(mixture).issuperset(dataset.origin.fingerprints[expected].tolist())


def test_examples_before_a_question_are_no_evaluated_rows_in_other_words(mixture):
    """The training split has a prefix before the input of a row, the file of all rows has none."""
    evaluated = whole(mixture).take(range(40))
    trained = read_row_index(mixture / "both-train.jsonl")
    others = set(trained.fingerprints.tolist()) - set(evaluated.origin.fingerprints.tolist())
    (dataset,) = with_shots([evaluated], len(others), ("both_train",))
    assert set(trained.fingerprints[dataset.shots.rows].tolist()) == others
    with raises(RequestError, "both-train.jsonl", "not evaluated"):
        with_shots([evaluated], len(others) + 1, ("both_train",))


def test_the_training_split_is_known_as_dataset_and_as_copy(tmp_path, mixture):
    copy = tmp_path / "copy.json"
    shutil.copy(mixture / "both-train.jsonl", copy)
    for dataset in read_datasets(("both_train",), (copy,)):
        counted = dataset.origin.training_rows(len(dataset.records))
        assert counted["examples"] == 54
        assert counted["datasets"] == ["both_train"] and counted["held_out"] == ["both_eval"]
        drawn = text.held_out(dataset, 0.5, 42).origin.training_rows(27)
        assert drawn["examples"] == 27 and drawn["drawn"]
    held_out = read_datasets(("both_eval",), ())[0]
    assert held_out.origin.training_rows(6) is None


def test_the_training_rows_in_a_copy_are_those_of_the_registry_that_is_named(tmp_path, monkeypatch) -> None:
    folder = compiled(tmp_path)
    shutil.copy(folder / "both-train.jsonl", tmp_path / "copy.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copies = (tmp_path / "copy.jsonl",)
    (named,) = read_datasets((), copies, folder=folder.parent)
    (unnamed,) = read_datasets((), copies)
    counted = named.origin.training_rows(54)
    assert counted["examples"] == 54
    assert unnamed.origin.training_rows(54) is None


def test_leaked_rows_of_a_held_out_split_are_counted(working_folder) -> None:
    """Both parts of the mixture read the same files: a prompt is in both splits, or twice in one of them."""
    folder = compiled(working_folder, twice=True)
    for held_out in read_datasets(("both_eval",), (folder / "both-eval.jsonl",)):
        is_leaked = [
            row in trained_fingerprints(folder) for row in fingerprints_of(held_out.conversations).tolist()
        ]
        counted = held_out.origin.training_rows(6)
        assert counted["examples"] == sum(is_leaked) > 0
        assert counted["held_out"] == []  # no advice to score the same rows under their other name


def with_older_row_index(records: Path) -> None:
    """Replace the row index by one with the field and the hash of versions before XXH3."""
    texts = read_lines(records)
    digests = [blake2b(row["instruction"].encode(), digest_size=8).digest() for row in texts]
    fingerprints = np.frombuffer(b"".join(digests), "<u8")
    np.save(row_index_file(records), fingerprints.view([("fingerprint", "<u8")]))


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("file", ["both-train.jsonl", "whole.jsonl"])
def test_without_a_row_index_a_warning_says_what_is_unknown(mixture, capsys, older, file):
    """An older version wrote other hashes, or none at all."""
    if older:
        with_older_row_index(mixture / file)
    else:
        row_index_file(mixture / file).unlink()
    dataset = whole(mixture)
    assert dataset.origin.unsplit is None or file != "whole.jsonl"
    printed_line(capsys.readouterr().err, file, "compile the dataset again")


def test_a_compile_that_drew_no_split_has_no_training_rows_to_miss(working_folder, capsys) -> None:
    """Its further file has no row index, and compiling again would write none."""
    dataset, further = SPEC["write"]
    writes = [{**dataset, "dataset": "both", "file": "both.jsonl"}, further]
    folder = compiled(working_folder, split=None, write=writes)
    shutil.copy(folder / "both.jsonl", working_folder / "both.jsonl")
    (working_folder / "some.jsonl").write_text(
        "\n".join((folder / "whole.jsonl").read_text().splitlines()[:9])
    )
    copies = (folder / "whole.jsonl", working_folder / "both.jsonl", working_folder / "some.jsonl")
    for copy in read_datasets((), copies):
        assert copy.origin.training_rows(9) is None
    assert capsys.readouterr().err == ""


def test_the_training_rows_of_a_compile_without_datasets_are_known_by_their_files(tmp_path) -> None:
    folder = compiled(tmp_path, write=[{"file": "{split}.jsonl", "format": "alpaca"}, SPEC["write"][1]])
    files = [folder / name for name in ("train.jsonl", "eval.jsonl", "whole.jsonl")]
    train, held_out, every = read_datasets((), files)
    known = {"examples": 54, "drawn": False, "held_out": []}
    assert train.origin.training_rows(54) == {**known, "datasets": ["train.jsonl"]}
    assert held_out.origin.training_rows(6) is None
    assert every.origin.training_rows(60) == {**known, "datasets": ["its training split"]}


def test_broken_manifests_of_other_datasets_do_not_matter(tmp_path, mixture):
    (mixture / "manifest.json").write_text("{")
    write_json(tmp_path / "mine.jsonl", {"instruction": "first 1?", "output": "It is 1."})
    dataset = read_datasets((), (tmp_path / "mine.jsonl",))[0]
    assert dataset.origin.training_rows(1) is None


@pytest.mark.parametrize(("ratio", "seed"), [(0.2, 42), (0.1, 7)])
def test_other_rows_than_the_splits_are_refused(tmp_path, ratio, seed) -> None:
    dataset = whole(compiled(tmp_path))
    with raises(RequestError, "0.1", "42", "--dataset both_eval"):
        text.held_out(dataset, ratio, seed)


@pytest.mark.parametrize(
    "changes",
    [
        {"split": {"eval": 0.1, "seed": 42, "by": "hash"}},
        {"split": {"eval": 0.2, "test": 0.2, "seed": 42}},
        {"drop_leaks": True},
        {"split": {"eval": 0.1, "seed": 42}, "drop_duplicates": True},
    ],
)
def test_each_row_is_known_by_its_split_however_it_was_drawn(tmp_path, changes) -> None:
    twice = "drop_leaks" in changes
    folder = compiled(tmp_path, twice=twice, **changes)
    dataset = whole(folder)
    for split, rows in dataset.origin.unsplit.rows.items():
        assert texts(dataset.records[row] for row in rows) == records(folder / f"both-{split}.jsonl")
    trained = len(records(folder / "both-train.jsonl"))
    counted = dataset.origin.training_rows(len(dataset.records))
    assert counted["examples"] == trained


def test_a_file_that_changed_is_split_as_training_splits_it(tmp_path) -> None:
    folder = compiled(tmp_path)
    path = folder / "whole.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:40]))
    dataset = whole(folder)
    assert dataset.origin.unsplit is None
    assert len(text.held_out(dataset, 0.1, 42).records) == 4


def test_a_manifest_of_another_shape_is_no_error(tmp_path) -> None:
    folder = compiled(tmp_path)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "made_from": []})
    assert len(whole(folder).records) == 60


def test_the_base_is_warned_of_training_rows_and_of_other_prompts(
    tmp_path, tiny_model, monkeypatch, capsys
) -> None:
    folder = compiled(tmp_path)
    given = ["--model", tiny_model, "--data", folder / "whole.jsonl", "--no-generate"]

    def call(out: str, *more: object) -> dict:
        scoring.call(text.cli, *given, "--out", tmp_path / out, *more)
        return read_json(tmp_path / out / "base/whole/results.json")

    held_out = call("held-out", "--eval_ratio", "0.1", "--seed", "42")
    said = capsys.readouterr().err
    assert held_out["n"] == 6 and "training_rows" not in held_out
    assert "both_train" not in said
    assert "--dataset both_eval" in said
    every = call("every")
    assert every["training_rows"]["examples"] == 54
    printed_line(capsys.readouterr().err, "base", "54 of these 60", "both_train", "--dataset both_eval")
    monkeypatch.chdir(tmp_path)
    given = ["--model", tiny_model, "--dataset", "both_train", "--no-generate", "--limit", "3"]
    scoring.call(text.cli, *given, "--out", tmp_path / "train")
    printed_line(capsys.readouterr().err, "base", "3 of these 3", "both_train")


def test_the_test_split_in_another_form_is_not_advised_in_place_of_itself(working_folder) -> None:
    """`eval.jsonl` has the rows of both_eval, so that scoring both_eval would change nothing."""
    outputs = [SPEC["write"][0], {**SPEC["write"][0], "file": "{split}.jsonl"}]
    del outputs[1]["dataset"]
    folder = compiled(working_folder, twice=True, write=outputs)
    for name in ("eval.jsonl", "both-eval.jsonl"):
        (dataset,) = read_datasets((), (folder / name,))
        counted = dataset.origin.training_rows(len(dataset.records))
        assert counted["examples"] > 0
        assert counted["datasets"] == ["both_train"] and counted["held_out"] == []
