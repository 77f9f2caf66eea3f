"""Python files of a model folder run in no command that looks at it: SECURITY.md, "Code"."""

from pathlib import Path

import pytest
from PIL import Image

from testing.tiny import make_weightless
from tests.cli.scoring import invoke
from tests.json_files import read_json, write_json
from tests.messages import printed
from tests.unit.recipes.make import write_recipe
from tuneyard.core.llamafactory.loader import Launch, needs_code
from tuneyard.core.records.images import FORMATS
from tuneyard.recipes.__main__ import cli
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.llamafactory.inspection import inspect, measure
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.rules.answer_rules import code_problems

CLASSES = {
    "config.json": {"AutoConfig": "mailed.MailedConfig"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "mailed.MailedTokenizer"]},
    "processor_config.json": {"AutoProcessor": "mailed.MailedProcessor"},
}
"""Files of a model folder, and what each may name as `auto_map`."""
CODE = """
open({marker!r}, "a").write("ran")
from transformers import PreTrainedTokenizerFast, ProcessorMixin, Qwen2Config

class MailedTokenizer(PreTrainedTokenizerFast):
    pass

class MailedProcessor(ProcessorMixin):
    pass

class MailedConfig(Qwen2Config):
    pass
"""


@pytest.fixture
def mailed(tmp_path: Path) -> Path:
    """A folder with a dataset, and a model whose Python file leaves the file `ran` once it runs."""
    model = make_weightless(tmp_path / "model")
    (model / "mailed.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    rows = [{"instruction": f"Is {number} even?", "input": "", "output": "yes"} for number in range(8)]
    write_json(tmp_path / "a.json", rows)
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": "a.json"}})
    return tmp_path


def name_code(model: Path, file: str) -> None:
    """Let a file of a model folder name a class of its Python file, of a type that transformers lacks."""
    content = read_json(model / file) if (model / file).is_file() else {}
    content["auto_map"] = CLASSES[file]
    if file == "config.json":
        content["model_type"] = "mailed"
    write_json(model / file, content)


def settings(folder: Path, trusts: object) -> dict[str, object]:
    return {
        "model_name_or_path": str(folder / "model"), "trust_remote_code": trusts, "stage": "sft",
        "do_train": True, "finetuning_type": "lora", "dataset_dir": str(folder), "dataset": "a",
        "template": "qwen", "cutoff_len": 64, "output_dir": str(folder / "out"),
    }  # fmt: skip


@pytest.mark.threat("code", "recipe check", "recipe plan", "recipe new")
@pytest.mark.slow
@pytest.mark.parametrize("file", CLASSES)
@pytest.mark.parametrize("trusts", [True, "true", 1])
def test_looking_at_a_recipe_runs_no_python_of_its_model(mailed: Path, file: str, trusts: object) -> None:
    name_code(mailed / "model", file)
    answer = inspect(settings(mailed, trusts), Launch())
    measure(settings(mailed, trusts), Launch(), {"has_media": False, "has_thoughts": False})
    assert not (mailed / "ran").exists()
    assert answer.has_code
    if file == "config.json":
        printed(answer.model.error, "the model needs its own code", "--trust-remote-code")


@pytest.mark.slow
def test_the_option_of_the_command_line_runs_it(mailed: Path) -> None:
    name_code(mailed / "model", "config.json")
    inspect(settings(mailed, False), Launch(runs_model_code=True))
    assert (mailed / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["train"], ["sweep", "lora_rank=4,8", "--dry-run", "--metric", "train_loss"]]
)
@pytest.mark.parametrize("options", [[], ["--trust-remote-code"]])
def test_the_check_before_a_training_runs_it_with_the_option_alone(
    mailed: Path, words: list[str], options: list[str]
) -> None:
    """The recipe itself does not trust the model: the training ends at its config."""
    name_code(mailed / "model", "config.json")
    recipe = write_recipe(mailed, **settings(mailed, False), report_to="none")
    command, *more = words
    if command == "sweep":
        more += ["--out", str(mailed / "out")]
    done = invoke(cli, command, recipe, *more, *options, standalone_mode=False)
    assert (mailed / "ran").exists() == bool(options), done.exception


@pytest.mark.slow
def test_llamafactory_opens_pictures_in_the_six_formats_alone(mailed: Path) -> None:
    inspect(settings(mailed, False), Launch())
    assert list(Image.ID) == list(FORMATS)


@pytest.mark.parametrize(
    ("has_code", "trusts", "codes"), [(True, True, ["N363"]), (True, False, []), (False, True, [])]
)
def test_a_note_says_that_the_training_runs_the_code(
    tmp_path: Path, has_code: bool, trusts: bool, codes: list[str]
) -> None:
    recipe = Recipe(tmp_path / "r.yaml", settings(tmp_path, trusts), {"trust_remote_code": 2})
    problems = list(code_problems(recipe, Facts(has_code=has_code)))
    assert [problem.code for problem in problems] == codes
    for problem in problems:
        printed(problem.line(), f"{tmp_path / 'r.yaml'}:2", str(tmp_path / "model"))


def test_a_refusal_is_found_below_the_errors_that_hide_it() -> None:
    """LLaMA-Factory raises "Failed to load tokenizer." from the error of transformers."""
    refusal = ValueError("Please pass the argument `trust_remote_code=True` to allow custom code to be run.")
    outer = OSError("Failed to load tokenizer.")
    outer.__cause__ = refusal
    assert needs_code(refusal) and needs_code(outer)
    assert not needs_code(OSError("Failed to load tokenizer."))
