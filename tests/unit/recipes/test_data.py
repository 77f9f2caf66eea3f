"""Datasets that are not there, have changed, or do not fit the way they are read."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.json_files import write_json
from tests.messages import printed
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.trained_rows import Epoch
from tuneyard.recipes.llamafactory import rows
from tuneyard.recipes.llamafactory.answer import EpochCounts
from tuneyard.recipes.llamafactory.rows import _clashes, _missing_column_fix
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.recipe.data import _files_of_other_types, read_datasets

GOOD = [{"instruction": "a", "input": "", "output": "b"}]


def register(folder: Path, records: list[dict], entry: dict | None = None) -> Path:
    path = folder / "set" / "set.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, records)
    write_json(folder / "dataset_info.json", {"set": {"file_name": "set/set.json", **(entry or {})}})
    return path


def manifest_of(name: str, digest: str) -> dict:
    return {"made_from": {"sources": []}, "files": {name: {"rows": 6, "sha256": digest}}}


def read(folder: Path, **settings):
    """The datasets of a recipe, and what is wrong with them."""
    recipe = Recipe(
        Path("r.yaml"), {"dataset_dir": str(folder), "dataset": "set", **settings}, {"dataset": 3}
    )
    return read_datasets(recipe)


def look(folder: Path, **settings):
    datasets, problems = read(folder, **settings)
    return datasets, [problem.code for problem in problems], [problem.message for problem in problems]


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (
            b'[{"instruction": "a", "output": "b"},]',
            ["set.json:1", "column 38", "remove the comma before it"],
        ),
        ('[{"instruction": "你", "output": "b"}]'.encode("gbk"), ["set.json", "byte 18", "save it as UTF-8"]),
    ],
)
def test_a_broken_file_is_mended_in_the_file(tmp_path, content, facts):
    register(tmp_path, GOOD).write_bytes(content)
    _, (problem,) = read(tmp_path)
    printed(problem.line(), *facts)
    assert (problem.code, problem.hint) == ("E320", "")


def test_a_misspelt_file_name_leads_to_the_file(tmp_path):
    register(tmp_path, GOOD, {"file_name": "set/sat.json"})
    _, codes, messages = look(tmp_path)
    assert codes == ["E320"]
    printed(messages[0], "sat.json", 'set/set.json"?', "file_name")


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"instruction": "a", "output": "b"}, ['"columns": {"prompt": "instruction", "response": "output"}']),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            ['"sharegpt"', '{"messages": "messages"}', '"role_tag"'],
        ),
        ({"data": [{"instruction": "a"}]}, ["'data'", "that list alone"]),
        ({"question": "a"}, [""]),
    ],
)
def test_rows_without_the_columns_of_an_entry_that_names_none(row, facts):
    fix = _missing_column_fix(KeyError("input"), row)
    printed(fix, *facts)
    assert bool(fix) == bool(facts[0]) and _missing_column_fix(ValueError("odd"), row) == ""


def test_a_column_of_two_kinds_is_named_with_the_first_row_of_another(tmp_path):
    ((row, reason),) = _clashes(register(tmp_path, [{"a": 1}, {"a": "x"}]))
    assert row == 2 and 'column "a" holds "x"' in reason


def test_an_epoch_has_the_tokens_that_cutoff_len_leaves(monkeypatch):
    monkeypatch.setattr(rows, "mixed_and_split", lambda sets, *_: Epoch(None, sets[0], {}))
    settings = SimpleNamespace(cutoff_len=4, packing=False, streaming=False, seed=1)
    reader = SimpleNamespace(data_args=settings, training_args=settings)
    assert rows.epoch(reader, {"a": [[3], [9, 1]]}, {}, None) == EpochCounts(2, 8, 4)


def test_paths_in_messages_begin_at_the_folder(working_folder):
    (working_folder / "saves").write_text("")
    recipe = Recipe(Path("r.yaml"), {}, {})
    message = _("{path} is a file", path=working_folder / "saves")
    problem = recipe.problem("E341", "output_dir", message)
    assert problem.line() == "r.yaml: E341 output_dir: saves is a file"
    for other in (f"/mnt{working_folder}/saves", f"{working_folder.parent}/b"):
        assert _("{path} is a file", path=Path(other)) == f"{other} is a file"


def test_a_misspelt_name_never_stands_for_a_set_held_out(tmp_path):
    register(tmp_path, GOOD)
    names = ["demo_rte_train", "demo_rte_eval", "demo_rte_eval2"]
    write_json(tmp_path / "dataset_info.json", {name: {"file_name": "set/set.json"} for name in names})
    assert 'did you mean "demo_rte_train"?' in look(tmp_path, dataset="demo_rta")[2][0]
    assert (
        'did you mean "demo_rte_eval"?'
        in look(tmp_path, dataset="demo_rte_train", eval_dataset="demo_rta")[2][0]
    )


@pytest.mark.parametrize(
    ("dataset", "command"),
    [
        ("alpaca_rte_train", "tuneyard data compile rte"),  # from a hub
        ("demo_rte_train", "tuneyard data compile demo_rte"),  # of the samples
        ("mix_small_train", "tuneyard data compile mix-small"),
        ("pairs", "tuneyard data compile pairs --source FILE"),
        ("qa", "tuneyard data compile qa --source FILE"),
    ],
)
def test_the_command_that_compiles_a_dataset_names_a_file_if_its_spec_names_none(tmp_path, dataset, command):
    register(tmp_path, GOOD)
    _, (problem,) = read(tmp_path, dataset=dataset)
    assert (problem.code, problem.hint) == ("E320", f"compile it: {command}")


def test_a_folder_of_files_and_samples_of_a_set(tmp_path):
    register(tmp_path, GOOD, {"file_name": "set"})
    datasets, codes, _ = look(tmp_path)
    assert (codes, datasets[0].rows) == ([], None)
    register(tmp_path, GOOD * 9, {"num_samples": 4})
    assert look(tmp_path)[0][0].rows == 4


def test_changed_since_it_was_compiled(tmp_path):
    path = register(tmp_path, GOOD)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(path.parent / "manifest.json", manifest_of("set.json", digest))
    assert look(tmp_path)[1] == []
    write_json(path, GOOD * 2)
    _, (problem,) = read(tmp_path)
    assert (problem.code, problem.hint) == ("W322", "compile it again")


ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}


@pytest.mark.parametrize(
    ("more", "entry", "part", "code"),
    [
        ({"history": [["q", "a"]], "system": "", "tools": "[]"}, {}, "history", "W324"),
        ({"system": "Answer in one word."}, {"columns": ALPACA}, "system", "E327"),
    ],
)
def test_parts_that_records_hold_and_the_entry_does_not_name(tmp_path, more, entry, part, code):
    rows = [*GOOD, GOOD[0] | more]
    register(tmp_path, rows, entry)
    _, codes, messages = look(tmp_path)
    assert codes == [code] and f"'{part}' is filled in 1 of 2 records" in messages[0]
    register(tmp_path, rows, {"columns": ALPACA | {part: part}})
    assert look(tmp_path)[1] == []
    register(tmp_path, [{"text": "a", "system": "b"}], {"columns": {"prompt": "text"}})
    assert look(tmp_path, stage="pt")[1] == []


def test_two_inputs_are_one_finding_with_one_fix(tmp_path):
    rows = [{"instruction": "Where?", "input": "At noon.", "context": "A park.", "output": "Here."}] * 3
    register(tmp_path, rows, {"columns": {"prompt": "instruction", "response": "output"}})
    _, (problem,) = read(tmp_path)
    assert problem.code == "E327"
    assert "'input' is filled in 3 of 3" in problem.message and "'context' is filled in 3" in problem.message
    assert '"query": "input" or "query": "context"' in problem.hint and "compile them into it" in problem.hint


def interleaved(folder: Path, sizes: list[int], **settings) -> list[str]:
    """The notes on rows that are never drawn from datasets a, b, … of these sizes."""
    registry = {}
    for name, size in zip("abc", sizes, strict=False):
        write_json(folder / f"{name}.json", GOOD * size)
        registry[name] = {"file_name": f"{name}.json"}
    write_json(folder / "dataset_info.json", registry)
    _, problems = read(folder, dataset=",".join(registry), mix_strategy="interleave_under", **settings)
    return [problem.message for problem in problems if problem.field == "mix_strategy"]


@pytest.mark.parametrize("sizes", [(6, 20), (20, 6), (6, 20, 9), (7, 7)])
def test_rows_that_interleaving_never_draws_are_counted_as_datasets_draws_them(tmp_path, sizes):
    from datasets import Dataset, interleave_datasets

    sets = [Dataset.from_dict({"row": [f"{name}{n}" for n in range(size)]}) for name, size in
            zip("abc", sizes, strict=False)]  # fmt: skip
    drawn = set(interleave_datasets(sets, stopping_strategy="first_exhausted")["row"])
    messages = interleaved(tmp_path, list(sizes))
    expected = {}
    for name, size in zip("abc", sizes, strict=False):
        left_out = size - sum(row.startswith(name) for row in drawn)
        if left_out:
            expected[name] = f"{left_out} of {size} rows of {name} are never trained"
    assert len(messages) == len(expected)
    assert all(any(message.endswith(text) for message in messages) for text in expected.values())


def test_probabilities_and_max_samples_decide_what_is_drawn(tmp_path):
    (message,) = interleaved(tmp_path, [60, 400], interleave_probs="0.25,0.75")
    assert "about 220 of 400 rows of b" in message  # 60 / 0.25 draws, three quarters of them of b
    (message,) = interleaved(tmp_path, [60, 400], max_samples=100)
    assert "60 rows of a: 40 of 100 rows of b" in message
    assert interleaved(tmp_path, [60, 400], max_samples=50) == []


@pytest.mark.parametrize("probabilities", ["0.5", "a,b", "2,3", "0,0", "0.9,0.9", "0.2,0.3,0.5"])
def test_probabilities_that_llamafactory_refuses_give_no_numbers(tmp_path, probabilities):
    assert interleaved(tmp_path, [6, 20], interleave_probs=probabilities) == []


def test_a_dataset_with_the_probability_0_is_never_drawn(tmp_path):
    (message,) = interleaved(tmp_path, [6, 20], interleave_probs="0,1")
    assert "20 rows of b: about 6 of 6 rows of a" in message


@pytest.mark.parametrize(
    ("split", "rows", "codes"),
    [("train", 20, []), ("train[:50%]", 10, []), ("train[-3:]", 3, []), ("train[:0]", 0, ["E321"])],
)
def test_a_part_of_a_file_has_its_rows(tmp_path, split, rows, codes):
    register(tmp_path, GOOD * 20, {"split": split})
    datasets, problem_codes, _ = look(tmp_path)
    assert ([dataset.rows for dataset in datasets], problem_codes) == ([rows], codes)


@pytest.mark.parametrize("split", ["test", "validation[:5]", None])
def test_another_split_of_a_file_is_refused(tmp_path, split):
    register(tmp_path, GOOD, {"split": split})
    assert look(tmp_path)[1] == ["E320"]


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["a.json", "b.jsonl"], []),
        (["a.json", "b.json", "c.csv"], ["c.csv"]),
        (["a.csv", "README.md"], ["README.md"]),
        (["a.parquet", ".gitattributes", "b.parquet"], [".gitattributes"]),
        (["a.txt", "b.JSON", "c.txt"], ["b.JSON"]),
        ([], []),
    ],
)
def test_the_files_of_a_folder_that_are_of_another_type_are_named(tmp_path, names, others):
    """LLaMA-Factory says "File types should be identical", of no file."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    path = tmp_path / "r.yaml"
    path.write_text("model_name_or_path: m\ndataset: d\n")
    problems = _files_of_other_types(read_recipe(path), "dataset", folder)
    assert [problem.code for problem in problems] == ["E321"] * bool(others)
    for problem in problems:
        assert problem.message.endswith(f"not {', '.join(others)}") and problem.place == f"{path}:2"


TURN_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
}  # fmt: skip
CHAT = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": TURN_TAGS}


def chat(**keys: object) -> dict:
    answer = {"role": "assistant", "content": "b", **keys}
    return {"messages": [{"role": "user", "content": "a"}, answer]}


@pytest.mark.parametrize(
    ("records", "entry", "expected"),
    [
        ([chat(), chat(weight=0)], CHAT, ["E410"]),
        ([chat(reasoning_content="because")] * 2, CHAT, ["E410"]),
        ([chat(id="x", weight=1)], CHAT, []),
        ([*GOOD, {**GOOD[0], "loss": False}], {}, ["E410"]),
        ([{**GOOD[0], "cot": "because"}], {}, ["W409"]),
        ([{**GOOD[0], "id": 3, "label": 0}], {}, []),
    ],
)
def test_keys_that_llamafactory_does_not_read_are_named_as_by_verify(tmp_path, records, entry, expected):
    register(tmp_path, records, entry)
    _, problems = read(tmp_path)
    assert [problem.code for problem in problems] == expected
    assert all((problem.place, problem.field) == ("r.yaml:3", "dataset") for problem in problems)


def test_the_first_row_with_an_unread_key_is_named_with_the_count(tmp_path):
    register(tmp_path, [chat(), chat(), chat(weight=0), chat(weight=0.5)], CHAT)
    _, (problem,) = read(tmp_path)
    printed(problem.line(), "set, row 3", "messages.weight", "turn 2", "2 of 4 records")


def test_a_mark_in_an_earlier_answer_is_none_with_mask_history(tmp_path):
    turns = [*chat(weight=0)["messages"], *chat()["messages"]]
    register(tmp_path, [{"messages": turns}], CHAT)
    assert look(tmp_path)[1] == ["E410"]
    assert look(tmp_path, mask_history=True)[1] == []


@pytest.mark.parametrize(
    ("registered", "settings", "hint"),
    [
        ("set_eval", {"val_size": 0.1}, "eval_dataset=set_eval val_size=0"),
        ("set-dev", {"val_size": 4}, "eval_dataset=set-dev val_size=0"),
        ("set_test", {"val_size": 0.1}, ""),  # which choose no checkpoint
        ("other_eval", {"val_size": 0.1}, ""),
        ("set_eval", {}, ""),
        ("set_eval", {"val_size": 0}, ""),
        ("set_eval", {"eval_dataset": "set_eval", "val_size": 0}, ""),
        ("set_eval", {"val_size": 0.1, "stage": "rm"}, ""),  # rows that the stage cannot evaluate
    ],
)
def test_held_out_rows_beside_a_share_of_the_training_rows(tmp_path, registered, settings, hint):
    entry = {"file_name": "set/set.json"}
    path = register(tmp_path, GOOD)
    held_out = path.with_name("held-out.json")
    write_json(held_out, [{"instruction": "c", "input": "", "output": "d"}])
    entries = {"set": entry, registered: {"file_name": "set/held-out.json"}}
    write_json(tmp_path / "dataset_info.json", entries)
    _, problems = read(tmp_path, **{"do_train": True, "stage": "sft", **settings})
    hints = [problem.hint for problem in problems if problem.code == "W307"]
    assert hints == ([hint] if hint else [])
    assert all(registered in problem.message for problem in problems if problem.code == "W307")
