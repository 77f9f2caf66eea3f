"""What LLaMA-Factory's answer about a recipe means for it."""

from pathlib import Path
from types import SimpleNamespace

from tests.cli.scoring import call, invoke
from tests.json_files import write_json
from tests.messages import printed, printed_line, raises
from tests.unit.recipes.make import write_recipe
from tuneyard.core.datasets import REMOTE_SOURCES
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.records.json_form import from_json_form
from tuneyard.recipes.check import __main__ as check
from tuneyard.recipes.checking import checked
from tuneyard.recipes.checking.checked import Checked, disk_problems
from tuneyard.recipes.llamafactory.answer import EpochCounts, Facts, Rows
from tuneyard.recipes.machine.hardware import Machine, machine
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import NamedDataset, read_datasets
from tuneyard.recipes.recipe.schedule import schedule_of

SHAPES = {
    "parameters": 3_000, "trainable": 1_000, "linear": 2_000, "hidden": 10, "intermediate": 20, "layers": 2,
    "vocabulary": 100,
}  # fmt: skip
LIMITED = {"save_steps": 10, "save_total_limit": 3}


def disk_lines(tmp_path: Path, trainable: int, **settings: object) -> list[str]:
    recipe = Recipe(Path("r.yaml"), {"output_dir": str(tmp_path / "a/b"), **settings}, {"output_dir": 4})
    model = {**SHAPES, "trainable": trainable}
    answer = from_json_form(Facts, {"model": {"shapes": model}})
    return [problem.line() for problem in disk_problems(recipe, answer, schedule_of(recipe, 800, 1))]


def test_checkpoints_that_do_not_fit_are_an_error(tmp_path):
    (line,) = disk_lines(tmp_path, 10**14, **LIMITED)
    assert line.startswith("r.yaml:4: E342 output_dir: ")
    assert "3 checkpoints" in line and "3,600.0 TB" in line  # 4 + 8 bytes each
    assert f"are free on this machine in {tmp_path}; a smaller save_total_limit" in line


def test_checkpoints_that_fit_or_are_never_written_are_none(tmp_path):
    assert disk_lines(tmp_path, 1_000, **LIMITED) == []
    assert disk_lines(tmp_path, 10**14, save_strategy="no") == []


def test_an_unknown_model_is_not_judged(tmp_path):
    recipe = Recipe(Path("r.yaml"), {"output_dir": str(tmp_path)}, {})
    answer = from_json_form(Facts, {"model": {"error": "offline"}})
    assert list(disk_problems(recipe, answer, schedule_of(recipe, 8, 1))) == []


def test_what_is_wrong_with_one_recipe_does_not_hide_the_next(tmp_path, monkeypatch):
    def crashes(*_: object, **__: object) -> None:
        raise ContentError("LLaMA-Factory could not be asked")

    monkeypatch.setattr(checked, "ask", crashes)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("lora_rank: 0\n")
    done = invoke(check.command, tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert done.output.count("could not be asked") == 2
    assert "2 of 2 recipes cannot be trained" in str(done.exception)


def test_without_an_output_dir_every_other_problem_is_still_said(tmp_path, monkeypatch):
    path = write_recipe(tmp_path, **dict.fromkeys(["model_name_or_path", "stage", "do_train", "output_dir"]))
    answer = from_json_form(Facts, {"model": {"shapes": SHAPES}, "template_error": "none at hand"})
    monkeypatch.setattr(checked, "ask", lambda *_, **__: answer)
    done = invoke(check.command, path)
    assert "E304 output_dir: is missing" in done.output
    assert "3 errors" in done.output


def quick(folder: Path, *words: object) -> str:
    """What `check --quick` prints about a sound recipe for LLaMA-Factory's loop, with these words added."""
    path = write_recipe(folder, save_strategy="epoch")
    hub = {source: {source: f"someone/{source}"} for source in REMOTE_SOURCES}
    registry = {"a": {"file_name": "a.json"}, "texts": {"file_name": "t.txt"}, **hub}
    write_json(folder / "dataset_info.json", registry)
    (folder / "t.txt").write_text("one text\n")
    done = invoke(check.command, "--quick", path, *words)
    return done.output + (f"exit 1: {done.exception}" if done.exception else "")


def test_what_this_machine_lacks_is_a_note_unless_it_trains(tmp_path):
    needs = ["report_to=wandb", "use_galore=true"]
    found = quick(tmp_path, *needs)
    assert "N309 report_to: needs the package wandb" in found and "N309 use_galore" in found
    assert "0 errors, 0 warnings, 2 notes (N309 2)" in found and "exit 1" not in found
    found = quick(tmp_path, *needs, "--for", "this")
    assert "2 errors, 0 warnings (E309 2)" in found and "exit 1" in found


def test_recipes_are_checked_for_the_machine_that_trains_them(tmp_path):
    for words in (["pure_bf16=true"], ["fp16=true"]):
        assert "nothing wrong" in quick(tmp_path, *words)
        assert "E312" in quick(tmp_path, *words, "--for", "cpu")
    found = quick(tmp_path, "bf16=true", "--for", "2xV100")
    assert "W312 bf16: V100 has no bfloat16" in found and "exit 1" not in found
    elsewhere = "model_name_or_path=/mnt/models/Qwen3"
    printed_line(quick(tmp_path, elsewhere), "N344", "model_name_or_path", "/mnt/models/Qwen3")
    assert "E344 model_name_or_path" in quick(tmp_path, elsewhere, "--for", "this")
    assert "batch 32" in quick(tmp_path, "--for", "4xA100-80")  # 4 ranks of 8
    printed(quick(tmp_path, "--for", "4xA1000"), "4xA1000", "this, cpu, gpu", "4xA100-80")


def test_datasets_that_are_no_local_files_are_said_to_be_unchecked(tmp_path):
    for source in REMOTE_SOURCES:
        found = quick(tmp_path, f"dataset=a,{source}")
        assert f"not checked: dataset {source}: no local file ({source}: someone/{source})" in found
        assert "nothing wrong" in found and "rows" not in found  # how many it has is not known
    printed_line(quick(tmp_path, "dataset_dir=ONLINE"), "not checked", "dataset a", "dataset_dir: ONLINE")
    assert "nothing wrong\n" in quick(tmp_path, "dataset=texts", "stage=pt")


def test_packed_and_interleaved_rows_are_known_from_the_answer_alone():
    """The file has 600 rows; how many blocks they make is LLaMA-Factory's to say."""
    datasets = [NamedDataset("dataset", "a", 600)]
    answer = Facts(train=EpochCounts(31, 31 * 64, 64))
    for settings in ({"packing": True}, {"stage": "pt"}, {"mix_strategy": "interleave_over"}):
        recipe = Recipe(Path("r.yaml"), {**settings, "val_size": 0.5, "max_steps": -1}, {})
        assert Checked(recipe, machine("cpu"), datasets, []).schedule.rows == 0
        assert Checked(recipe, machine("cpu"), datasets, [], answer).schedule.rows == 31
    recipe = Recipe(Path("r.yaml"), {"dataset": "a", "val_size": 0.5}, {})
    assert Checked(recipe, machine("cpu"), datasets, []).schedule.rows == 300


def test_a_model_option_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text(f"output_dir: {tmp_path}\n")
    words = [str(tmp_path / "r.yaml"), "--model", "TYPO"]
    for answer in ({"template_error": "none at hand"}, {"model": {"error": "none at hand"}}):
        monkeypatch.setattr(checked, "ask", lambda *_, answer=answer, **__: from_json_form(Facts, answer))
        with raises(RequestError, "--model TYPO", "none at hand", "config.json"):
            call(check.command, *words)
        assert not isinstance(invoke(check.command, *words[:1]).exception, RequestError)


def test_a_model_without_a_question_to_llamafactory_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text(f"output_dir: {tmp_path}\n")
    with raises(RequestError, "--model", "--quick"):
        call(check.command, tmp_path / "r.yaml", "--quick", "--model", "x")
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": "b"})
    with raises(RequestError, "an adapter", "its base is b"):
        call(check.command, tmp_path / "r.yaml", "--model", tmp_path)


def test_rows_that_cannot_be_read_are_counted_against_the_file(tmp_path):
    write_recipe(tmp_path)
    recipe = Recipe(Path("r.yaml"), {"dataset_dir": str(tmp_path)}, {})
    rows = [(number, "LLaMA-Factory stops at it") for number in range(1, 21)]
    messages = {
        0: "all 40 rows fail to convert",
        40: "all 40 rows fail to convert",
        60: "40 of 60 rows cannot be trained on",
    }
    for count, message in messages.items():
        answer = Facts(data={"a": Rows(count, 40, rows)})
        problems = checked.data_problems(recipe, answer, [NamedDataset("dataset", "a", 40)])
        assert next(iter(problems)).message == message


def test_what_is_not_checked_is_named_by_the_method():
    answer = from_json_form(Facts, {"model": {"error": "none at hand"}})
    for method, what in (("lora", "lora_target"), ("full", "parameters"), ("freeze", "parameters")):
        recipe = Recipe(Path("r.yaml"), {"finetuning_type": method}, {})
        (line,) = checked.not_checked(checked.Checked(recipe, Machine(()), [], [], answer), "a/b")
        assert line.startswith(what)


def test_small_checkpoints_have_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneyard.recipes.costs.shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    (line,) = disk_lines(tmp_path, 1_000, save_steps=1000)
    printed(line, "1 checkpoint", "12.0 kB", "5 bytes")


MARKED = {"columns": {"prompt": "question", "response": "answer", "kto_tag": "good"}}


def test_answers_are_generated_to_marked_rows_in_stage_sft(tmp_path):
    write_json(tmp_path / "dataset_info.json", {"set": {"file_name": "set.json", **MARKED}})
    (tmp_path / "set.json").write_text('[{"question": "1+1?", "answer": "2", "good": true}]')
    settings = {"stage": "sft", "dataset_dir": str(tmp_path), "eval_dataset": "set"}
    _, problems = read_datasets(Recipe(Path("r.yaml"), {**settings, "predict_with_generate": True}, {}))
    assert problems == []
    _, problems = read_datasets(Recipe(Path("r.yaml"), settings, {}))
    assert [problem.code for problem in problems] == ["E434"]


def test_every_row_that_cannot_be_trained_on_is_listed_with_all(tmp_path, capsys):
    write_recipe(tmp_path)
    recipe = Recipe(Path("r.yaml"), {"dataset_dir": str(tmp_path), "dataset": "a"}, {})
    answer = Facts(data={"a": Rows(50, 30, [(n, "LLaMA-Factory drops it") for n in range(1, 31)])})
    datasets = [NamedDataset("dataset", "a", None)]
    problems = list(checked.data_problems(recipe, answer, datasets))
    assert len(problems) == 31 and "30 of 50 rows" in problems[0].message
    check._show(problems, len(problems))
    assert " row 30: E323 " in capsys.readouterr().out
    check._show(problems, 20)
    assert capsys.readouterr().out.endswith("… 11 more (--all shows every one)\n")


def test_recipes_that_do_not_train_are_recipes(tmp_path):
    predicts = [
        "do_train=false",
        "do_predict=true",
        "predict_with_generate=true",
        "dataset=",
        "eval_dataset=a",
    ]
    assert "0 errors, 0 warnings" in quick(tmp_path, *predicts)
    assert "nothing wrong" in quick(tmp_path, "do_train=false", f"tokenized_path={tmp_path / 'tokens'}")
    printed_line(quick(tmp_path, "do_train=false"), "E304", "do_train")
    assert "E304 dataset: is missing" in quick(tmp_path, "do_train=false", "tokenized_path=t", "dataset=")
