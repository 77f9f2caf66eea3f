"""What LLaMA-Factory's answer about a recipe means for it."""

from pathlib import Path

from click.testing import CliRunner

from core.errors import ContentError
from recipes import check
from recipes.check import disk_problems
from recipes.recipe import Recipe
from recipes.schedule import schedule_of

SHAPES = {
    "parameters": 3_000, "trainable": 1_000, "linear": 2_000, "hidden": 10, "intermediate": 20, "layers": 2,
    "heads": 1, "vocabulary": 100,
}  # fmt: skip
LIMITED = {"save_steps": 10, "save_total_limit": 3}


def disk_lines(tmp_path: Path, trainable: int, **settings: object) -> list[str]:
    recipe = Recipe(Path("r.yaml"), {"output_dir": str(tmp_path / "a/b"), **settings}, {"output_dir": 4})
    model = {**SHAPES, "trainable": trainable}
    return [p.line() for p in disk_problems(recipe, {"model": model}, schedule_of(recipe, 800, 1))]


def test_checkpoints_that_do_not_fit_are_an_error(tmp_path):
    (line,) = disk_lines(tmp_path, 10**14, **LIMITED)
    assert line.startswith(
        "r.yaml:4: E342 output_dir: 3 checkpoints take 3,600,000.0 GB, "
    )  # 4 + 8 bytes each
    assert f"are free in {tmp_path}; a smaller save_total_limit" in line


def test_checkpoints_that_fit_or_are_never_written_are_none(tmp_path):
    assert disk_lines(tmp_path, 1_000, **LIMITED) == []
    assert disk_lines(tmp_path, 10**14, save_strategy="no") == []


def test_an_unknown_model_is_not_judged(tmp_path):
    recipe = Recipe(Path("r.yaml"), {"output_dir": str(tmp_path)}, {})
    assert list(disk_problems(recipe, {"model": {"error": "offline"}}, schedule_of(recipe, 8, 1))) == []


def test_what_is_wrong_with_one_recipe_does_not_hide_the_next(tmp_path, monkeypatch):
    def crashes(*_: object) -> None:
        raise ContentError("LLaMA-Factory could not be asked")

    monkeypatch.setattr(check, "ask", crashes)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("lora_rank: 0\n")
    done = CliRunner().invoke(check.command, [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    assert done.output.count("could not be asked") == 2
    assert "2 of 2 recipes cannot be trained" in str(done.exception)


def test_without_an_output_dir_every_other_problem_is_still_said(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('[{"instruction": "a", "output": "b"}]')
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    (tmp_path / "r.yaml").write_text(f"dataset: a\ndataset_dir: {tmp_path}\n")
    monkeypatch.setattr(check, "ask", lambda *_: {"model": SHAPES, "tokens": {"error": "none at hand"}})
    done = CliRunner().invoke(check.command, [str(tmp_path / "r.yaml")])
    assert "E304 output_dir: is missing" in done.output
    assert "3 errors" in done.output
