"""`recipe new`: stage, eval split, cutoff, batch and memory of a recipe, its text, and what is refused."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.cli.scoring import call, invoke
from tests.json_files import write_json
from tests.messages import printed, raises
from tuneyard.cli import cli
from tuneyard.core.datasets import eval_split
from tuneyard.core.errors import RequestError
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, relative
from tuneyard.core.language.reader import in_language
from tuneyard.core.llamafactory.prompt.template_match import TemplateFinding
from tuneyard.core.llamafactory.stages import TRAINING_STAGES
from tuneyard.core.llamafactory.template_choice import TemplateChoice
from tuneyard.recipes.checking.checked import Checked
from tuneyard.recipes.costs import Shapes, estimate, setup_of, total_bytes
from tuneyard.recipes.llamafactory.answer import Facts, LaidOut, Rows
from tuneyard.recipes.machine.hardware import GPUS, machine
from tuneyard.recipes.new import __main__ as new
from tuneyard.recipes.new import new_recipe
from tuneyard.recipes.new.dataset import training_data
from tuneyard.recipes.new.memory import gpu_fit
from tuneyard.recipes.new.new_recipe import recipe_text, scalar
from tuneyard.recipes.new.objectives import OBJECTIVES, objectives_of
from tuneyard.recipes.new.settings import (
    METHODS,
    RecipeRequest,
    choose_block,
    choose_cutoff,
    rows_of_step,
)
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.recipe.schema import setting_problems

GB = 1e9
# Qwen2.5-7B: parameters in all, those of LoRA with rank 16, those of linear layers, and its sizes.
QWEN_7B = Shapes(7_615_616_512, 40_370_176, 6_525_288_448, 3584, 18944, 28, 152_064)
QWEN_7B_WHOLE = Shapes(7_615_616_512, 7_615_616_512, 6_525_288_448, 3584, 18944, 28, 152_064)
LORA = {"stage": "sft", "finetuning_type": "lora"}
FULL = {"stage": "sft", "finetuning_type": "full"}
PAIRS = {"file_name": "p.json", "ranking": True, "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}}
MARKED = {"file_name": "k.json", "columns": {"prompt": "q", "response": "a", "kto_tag": "good"}}
TEXTS = {"file_name": "t.json", "columns": {"prompt": "text"}}
ANSWERS = {"file_name": "a.json"}


# Stage


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        (PAIRS, ["dpo", "orpo", "simpo", "rm"]),
        (MARKED, ["kto"]),
        (TEXTS, ["pt"]),
        (ANSWERS, ["sft"]),
        ({"file_name": "c.json", "formatting": "sharegpt"}, ["sft"]),
    ],
)
def test_the_objectives_that_fit_a_dataset(entry: dict[str, object], names: list[str]) -> None:
    assert objectives_of(entry) == names


@pytest.mark.parametrize("name", OBJECTIVES)
def test_learning_rates_are_in_the_published_ranges(name: str) -> None:
    objective = OBJECTIVES[name]
    stage = TRAINING_STAGES[objective.stage]
    for rate, published in (
        (objective.adapter_rate, stage.adapter_rates),
        (objective.weight_rate, stage.weight_rates),
    ):
        assert published[0] <= rate.rate <= published[1] and rate.source


# Dataset


@pytest.fixture
def with_datasets(working_folder: Path) -> Path:
    """A working folder with a registry of datasets with and without an eval split."""
    data = working_folder / "data"
    data.mkdir()
    rows = [{"instruction": f"Q {n}?", "input": "", "output": "yes", "q": "Q?", "a": "A", "good": n % 4 == 0}
            for n in range(24)]  # fmt: skip
    registry: dict[str, object] = {}
    for name, entry in {
        "answers": ANSWERS, "answers_train": ANSWERS, "answers_eval": ANSWERS, "alone": ANSWERS,
        "tested_train": ANSWERS, "tested_test": ANSWERS, "pairs_train": PAIRS, "pairs_eval": PAIRS,
        "marked": MARKED, "marked_eval": MARKED,
    }.items():  # fmt: skip
        registry[name] = {**entry, "file_name": f"{name}.json"}
        write_json(data / f"{name}.json", rows)
    registry["hub_train"] = {"hf_hub_url": "owner/rows"}
    write_json(data / "dataset_info.json", registry)
    return working_folder


@pytest.mark.parametrize(
    ("name", "registered", "split"),
    [
        ("a_train", ["a_train", "a_eval", "a_test"], "a_eval"),
        ("a_train", ["a_train", "a_test"], "a_test"),
        ("a_train", ["a_train", "a_dev", "b_eval"], "a_dev"),
        ("a", ["a", "a_validation"], "a_validation"),
        ("a-train", ["a-train", "a-eval"], "a-eval"),
        ("a_eval", ["a_eval", "a_train"], ""),
        ("a", ["a", "b_eval"], ""),
    ],
)
def test_the_eval_split_of_a_dataset(name: str, registered: list[str], split: str) -> None:
    assert eval_split(name, dict.fromkeys(registered)) == split


def test_a_test_split_chooses_no_checkpoint(with_datasets: Path) -> None:
    settings = request("tested_train").basic_settings()
    assert "eval_dataset" not in settings and settings["val_size"] == 0.1


def request(name: str, method: str = "lora") -> RecipeRequest:
    data = training_data(name, None, None)
    return RecipeRequest(data, "me/model", method, machine("gpu"), Path("my recipe.yaml"))


def test_kto_weighs_the_rarer_answers(with_datasets: Path) -> None:
    settings = request("marked").basic_settings()
    assert settings["stage"] == "kto" and settings["kto_chosen_weight"] == 3.0  # 18 unwanted, 6 wanted
    assert "kto_rejected_weight" not in settings


def test_simpo_has_a_margin(with_datasets: Path) -> None:
    data = training_data("pairs_train", None, "simpo")
    wanted = RecipeRequest(data, "me/model", "lora", machine("gpu"), Path("r.yaml")).basic_settings()
    assert (wanted["pref_loss"], wanted["pref_beta"], wanted["simpo_gamma"]) == ("simpo", 2.5, 0.5)


def test_a_template_is_settings() -> None:
    assert TemplateChoice("qwen3", False).settings == {"template": "qwen3", "enable_thinking": False}
    assert TemplateChoice(None).settings == {}


NEW = ("recipe", "new", "--model", "me/model")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--dataset", "answers"], ["'answers'", "--dataset answers_train"]),
        (["--dataset", "answers_eval"], ["eval split of answers_train", "--dataset answers_train"]),
        (["--dataset", "marked_eval"], ["eval split of marked", "--dataset marked"]),
        (["--dataset", "answers_train,marked"], ["one dataset", "--dataset answers_train)", "`dataset:`"]),
        (["--dataset", "answer_train"], ["answer_train", "did you mean", "answers_train"]),
        (["--dataset", "hub_train"], ["hub_train", "not on this machine", "owner/rows"]),
        (["--dataset", "answers_train", "--stage", "dpo"], ["--stage dpo", "plain answers", "--stage sft"]),
        (["--dataset", "pairs_train", "--stage", "kto"], ["--stage kto", "dpo or orpo or simpo or rm"]),
        (["--dataset", "answers_train", "--for", "3xNONE"], ["'3xNONE'", "expected", "A100-80"]),
        (["--dataset", "answers_train", "--for", "H100@1.9"], ["price", "recipe plan", "--for H100"]),
        (["--dataset", "answers_train", "--out", "there.yaml/r.yaml"], ["there.yaml is no folder"]),
        (["--dataset", "answers_train", "--out", "r.txt"], ["r.txt", ".yaml"]),
        (["--dataset", "answers_train", "--out", "there.yaml"], ["there.yaml", "exists"]),
    ],
)
def test_refusals_before_llamafactory_starts(with_datasets: Path, words: list[str], parts: list[str]) -> None:
    Path("there.yaml").write_text("mine")
    with raises(RequestError, *parts):
        call(cli, *NEW, "--out", "r.yaml", "--dataset-dir", "data", *words)
    assert not Path("r.yaml").exists() and Path("there.yaml").read_text() == "mine"


# Lengths


def test_cutoff_len_holds_nearly_all_rows() -> None:
    assert choose_cutoff([100, 128], None)[:2] == (128, 0)
    assert choose_cutoff([100, 129], None)[:2] == (192, 0)
    long_tail = [300] * 198 + [5000, 6000]  # 1 % is cut
    cutoff = choose_cutoff(long_tail, 32_768)
    assert cutoff[:2] == (384, 2)
    assert "6,000" in cutoff.reason and "2 (1.0%)" in cutoff.reason
    assert choose_cutoff([300] * 197 + [5000] * 3, 32_768)[:2] == (6144, 0)
    assert choose_cutoff([200_000], None)[:2] == (200_000, 0)


def test_cutoff_len_ends_at_the_positions_of_the_model() -> None:
    cutoff = choose_cutoff([100] * 9 + [3000], 2048)
    assert cutoff[:2] == (2048, 1) and "2,048 positions" in cutoff.reason
    with pytest.raises(RequestError, match=r"2,048 positions \(the shortest has 3,000 tokens\)"):
        choose_cutoff([3000, 4000], 2048)


def test_blocks_of_running_text() -> None:
    assert choose_block(10_000_000, 100_000, 32_768)[:2] == (2048, 0)
    assert choose_block(10_000_000, 100_000, 1024).tokens == 1024
    assert choose_block(60_000, 6_000, 32_768).tokens == 512  # 117 blocks, of 1,024 tokens 58
    assert choose_block(10_000_000, 600, 32_768).tokens == 512  # the eval split fills one
    with pytest.raises(RequestError, match="100 to evaluate"):
        choose_block(10_000, 100, None)


@pytest.mark.parametrize(
    ("rows", "ranks", "batch"),
    [(400, 1, 16), (399, 1, 8), (24, 1, 4), (1200, 4, 16), (24, 8, 8), (9999, 32, 32), (3, 1, 3), (3, 4, 4)],
)
def test_rows_of_a_step(rows: int, ranks: int, batch: int) -> None:
    assert rows_of_step(rows, ranks) == batch


# Memory


def upper_end(
    settings: dict[str, Any], shapes: Shapes, tokens: int, ranks: int, changed: dict[str, Any]
) -> float:
    setup = setup_of(Recipe(Path(), {**settings, **changed}, {}), tokens, ranks)
    return total_bytes(estimate(shapes, setup))[1]


def test_the_largest_micro_batch_that_fits() -> None:
    fit = gpu_fit(LORA, QWEN_7B, 4096, 1, 40 * GB, 16)
    assert fit.rows < 16 and fit.recomputes and not fit.deepspeed
    at = {
        rows: upper_end(LORA, QWEN_7B, 4096, 1, {"per_device_train_batch_size": rows})
        for rows in (1, 2, 4, 8)
    }
    assert at[fit.rows] == fit.upper <= 40 * GB < at[2 * fit.rows]


def test_activations_are_kept_where_they_fit() -> None:
    fit = gpu_fit(LORA, QWEN_7B, 128, 1, 80 * GB, 16)
    assert not fit.recomputes
    assert fit.settings == {"disable_gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("settings", "shapes", "ranks", "room", "file"),
    [
        (LORA, QWEN_7B, 1, 80, ""),
        (LORA, QWEN_7B, 4, 16, "z3.json"),
        (FULL, QWEN_7B_WHOLE, 8, 80, "z2.json"),
        (FULL, QWEN_7B_WHOLE, 8, 40, "z3.json"),
        (FULL, QWEN_7B_WHOLE, 1, 80, "z3_offload.json"),
        ({**LORA, "quantization_bit": 4}, QWEN_7B, 1, 16, ""),
    ],
)
def test_the_zero_file_that_shares_least(
    settings: dict[str, Any], shapes: Shapes, ranks: int, room: float, file: str
) -> None:
    fit = gpu_fit(settings, shapes, 1024, ranks, room * GB, 4)
    assert fit.upper <= room * GB
    assert Path(fit.deepspeed).name == file
    assert round(fit.main_memory / GB) == (122 if file == "z3_offload.json" else 0)


def test_what_no_setup_of_a_gpu_holds() -> None:
    assert gpu_fit(LORA, QWEN_7B, 1024, 1, 16 * GB, 4) is None


# Text


@pytest.mark.parametrize(
    "value",
    [1e-4, 5e-6, 5e-7, 9e-6, 3.0, 16, True, False, "saves/x", "a: b", "#x", "yes", "1e-4", "数据", None],
)
def test_values_are_read_back_as_they_were_written(value: object) -> None:
    assert OmegaConf.create(f"key: {scalar(value)}")["key"] == value


def test_a_learning_rate_is_a_number_for_every_reader_of_yaml() -> None:
    assert scalar(1.25e-5) == "1.25e-5"
    assert scalar(5e-7) == "5.0e-7" and yaml.safe_load("5.0e-7") == 5e-7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["answers_train", "pairs_train", "marked"])
def test_basic_settings_are_settings_of_llamafactory(with_datasets: Path, method: str, name: str) -> None:
    wanted = request(name, method)
    with in_language("zh"):
        text = recipe_text([_("every linear layer")], [("all", wanted.basic_values())])
    assert "# 所有线性层\n" in text
    Path("r.yaml").write_text(text)
    recipe = read_recipe(Path("r.yaml"))
    assert recipe.settings == wanted.basic_settings()
    assert [problem.line() for problem in setting_problems(recipe)] == []
    assert all(len(line) <= 110 for line in text.splitlines())


# The whole, with measures in place of LLaMA-Factory's


QWEN = TemplateChoice("qwen")
LENGTHS = {"answers_train": [[n] for n in range(1, 1001)], "answers_eval": [[50]] * 100}
MODEL = LaidOut(QWEN_7B, positions=32_768)


class Measures:
    """Stands for LLaMA-Factory's subprocess: it answers with the same measures, and no recipe has errors."""

    def __init__(self, **changed: Any) -> None:
        self.changed = {"template": QWEN, "lengths": LENGTHS, "model": MODEL} | changed

    def __call__(self, *_: object, **__: object) -> tuple[Facts, TemplateChoice | None]:
        answer = dict(self.changed)
        lengths, template = answer.pop("lengths"), answer.pop("template")
        problems = [(3, "LLaMA-Factory drops it")]
        data = {name: Rows(3, 3, problems, lengths=rows) for name, rows in lengths.items()}
        return Facts(data=data, **answer), template


@pytest.fixture
def written(with_datasets: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a recipe of `answers_train` by measures; its settings and its text, or the error.

    `written.summary` is what the command printed, `written.checked` the recipe that was checked.
    """

    def checked(recipe: Recipe, wanted: RecipeRequest) -> Checked:
        write.checked = recipe
        return Checked(recipe, wanted.machine, [], [])

    monkeypatch.setattr(new, "may_be_here", lambda _: True)
    monkeypatch.setattr(new_recipe, "_checked", checked)
    monkeypatch.setattr(new_recipe, "_expected", lambda *_: ["memory       as planned"])

    def write(*words: str, **changed: Any) -> Any:
        monkeypatch.setattr(new_recipe, "ask_measures", Measures(**changed))
        ended = invoke(cli, *NEW, "--dataset", "answers_train", "--out", "my recipe.yaml", *words)
        if ended.exception is not None:
            assert not Path("my recipe.yaml").exists()
            return ended.exception
        out = "my recipe.yaml"
        if "--out" in words:
            out = words[words.index("--out") + 1]
        text = Path(out).read_text()
        Path(out).unlink()
        assert f"result: {relative(out)}" in ended.stderr
        assert f"tuneyard recipe train {shlex.quote(relative(out))}" in ended.stderr
        write.summary = ended.stdout
        return yaml.safe_load(text), text

    return write


def test_a_whole_recipe(written: Any) -> None:
    settings, text = written()
    assert settings["template"] == "qwen" and settings["cutoff_len"] == 1024
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    assert batch == 16 and settings["bf16"] is True
    assert settings["learning_rate"] == 1e-4 and "qwen3_lora_sft.yaml" in text
    assert settings["num_train_epochs"] == 3 and settings["eval_dataset"] == "answers_eval"
    # 1,000 rows, 16 a step: 63 steps an epoch, 189 in all, ten evaluations
    assert settings["eval_steps"] == settings["save_steps"] == 19
    assert settings["load_best_model_at_end"] is True and settings["metric_for_best_model"] == "eval_loss"
    assert settings["output_dir"] == "saves/my-recipe"
    assert "--for" in written.summary  # the machine is an assumption
    written("--for", "A100-80")
    assert "--for" not in written.summary
    assert (
        "longest of 1,000 rows has 1,000 tokens" in text and "tuneyard recipe train 'my recipe.yaml'" in text
    )
    assert all(len(line) <= 110 for line in text.splitlines())


def test_without_an_eval_split_the_training_holds_out_a_tenth(written: Any) -> None:
    lengths = {"alone": [[n] for n in range(1, 1001)]}
    settings, text = written("--dataset", "alone", lengths=lengths)
    assert settings["val_size"] == 0.1 and "eval_dataset" not in settings
    assert "no alone_eval is registered" in text
    # 900 rows are trained, 16 a step: 57 steps an epoch, 171 in all, at most ten evaluations
    assert settings["eval_steps"] == settings["save_steps"] == 18 and settings["logging_steps"] == 8


def test_one_row_cannot_be_divided(written: Any) -> None:
    error = written("--dataset", "alone", lengths={"alone": [[9]]})
    assert isinstance(error, RequestError) and "alone" in str(error)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--for", "T4", "--method", "qlora"], {"fp16": True, "quantization_bit": 4, "bf16": None}),
        (["--for", "cpu"], {"use_cpu": True, "bf16": None, "fp16": None, "per_device_train_batch_size": 4}),
        (["--method", "dora"], {"use_dora": True, "bf16": True}),
        (["--method", "freeze"], {"finetuning_type": "freeze", "freeze_trainable_layers": 2}),
    ],
)
def test_machines_and_methods(written: Any, words: list[str], expected: dict[str, object]) -> None:
    settings, _ = written(*words)
    assert {key: settings.get(key) for key in expected} == expected


@pytest.fixture
def recipe_of_answers(written: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a command that has written `there.yaml`."""
    monkeypatch.setattr(new_recipe, "ask_measures", Measures())
    words = [*NEW, "--dataset", "answers_train", "--for", "4xT4", "--out", "there.yaml"]
    assert invoke(cli, *words).exit_code == 0
    return words


def test_a_recipe_that_would_be_written_again_is_up_to_date(recipe_of_answers: list[str]) -> None:
    content = Path("there.yaml").read_bytes()
    again = invoke(cli, *recipe_of_answers)
    assert again.exit_code == 0
    assert again.stdout.splitlines() == ["there.yaml: up to date"]
    assert again.stderr.splitlines()[1:] == ["next: tuneyard recipe train there.yaml"]
    assert Path("there.yaml").read_bytes() == content
    Path("z3.json").unlink()
    assert invoke(cli, *recipe_of_answers).exit_code == 0
    assert Path("z3.json").read_bytes() == ZERO_FILE.read_bytes()


@pytest.mark.parametrize(
    ("words", "edit"),
    [
        ([], lambda text: text.replace("stage: sft", "stage: pt ")),
        ([], lambda text: text + "# mine\n"),
        ([], lambda text: text[:-1]),
        (["--method", "full"], lambda text: text),
        (["--for", "H100"], lambda text: text),
    ],
)
def test_another_recipe_is_never_replaced(recipe_of_answers: list[str], words: list[str], edit: Any) -> None:
    path = Path("there.yaml")
    path.write_text(edit(path.read_text()))
    content = path.read_bytes()
    assert b"stage: sft" in content or b"stage: pt " in content
    refused = invoke(cli, *recipe_of_answers, *words)
    assert isinstance(refused.exception, RequestError)
    printed(str(refused.exception), "there.yaml", "exists")
    assert path.read_bytes() == content


ZERO_FILE = ROOT / "recipes/deepspeed/z3.json"


def test_the_zero_file_travels_with_the_recipe(written: Any, with_datasets: Path) -> None:
    settings, text = written("--for", "4xT4", "--out", "build/r.yaml")
    assert settings["deepspeed"] == "build/z3.json" and str(ROOT) not in text
    assert Path("build/z3.json").read_bytes() == ZERO_FILE.read_bytes()
    printed(written.summary, "deepspeed    build/z3.json", "travels with the recipe")
    again, _ = written("--for", "4xT4", "--out", str(with_datasets / "build/r.yaml"))  # the copy is there
    assert again["deepspeed"] == "build/z3.json"


def test_the_zero_file_of_the_current_folder_is_not_copied(written: Any, with_datasets: Path) -> None:
    Path("recipes/deepspeed").mkdir(parents=True)
    Path("recipes/deepspeed/z3.json").write_bytes(ZERO_FILE.read_bytes())
    settings, _ = written("--for", "4xT4")
    assert settings["deepspeed"] == "recipes/deepspeed/z3.json" and not Path("z3.json").exists()


def test_another_file_is_not_replaced_by_the_zero_file(written: Any) -> None:
    Path("z3.json").write_text("mine")
    error = written("--for", "4xT4")
    assert isinstance(error, RequestError) and Path("z3.json").read_text() == "mine"
    printed(str(error), "z3.json: is another file", "--out")


def test_the_check_reads_the_bundled_zero_file(written: Any) -> None:
    """The copy does not exist before the check has passed."""
    written("--for", "4xT4")
    assert written.checked.settings["deepspeed"] == str(ZERO_FILE)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "template     none: plain text"),
        (TemplateChoice(None), "template     none: the chat template of the tokenizer"),
    ],
)
def test_the_summary_says_why_there_is_no_template(
    written: Any, template: TemplateChoice | None, words: str
) -> None:
    written(template=template)
    assert words in written.summary.splitlines()


@pytest.mark.parametrize(
    ("words", "changed", "parts"),
    [
        ([], {"rejected": "Cannot use PiSSA for current training stage."}, ["--method lora", "PiSSA"]),
        ([], {"template_error": "not on this machine"}, ["--model me/model", "hf download me/model"]),
        ([], {"model": LaidOut(error="no config")}, ["--model me/model", "no config"]),
        (
            [],
            {"template": TemplateChoice("yi", findings=(TemplateFinding("E325", "at token 3"),))},
            ["no template", "nearest is yi", "at token 3"],
        ),
        (
            ["--for", "1000xB200"],
            {"lengths": {"answers_train": [[9]] * 82, "answers_eval": [[9]] * 9}},
            ["1,000 rows", "answers_train has 82 rows", "at most 82 GPUs", "--for 4xB200"],
        ),
        (["--for", "T4"], {}, ["--for T4", "1,000 tokens", "16 GB", "--for 1xA10", "--method qlora"]),
        (
            ["--for", "8xB200", "--method", "full"],
            {"lengths": {"answers_train": [[10_000_000]] * 8, "answers_eval": [[1]]},
             "model": LaidOut(QWEN_7B)},
            ["10,000,000 tokens", "shorter rows", "smaller model"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_made_well_is_refused(
    written: Any, words: list[str], changed: dict[str, Any], parts: list[str]
) -> None:
    error = written(*words, **changed)
    assert isinstance(error, RequestError)
    printed(str(error), *parts)


def test_the_name_of_a_dataset_is_no_recipe(with_datasets: Path) -> None:
    with raises(RequestError, "a dataset of data/"):
        read_recipe(Path("answers_train"))


def test_a_folder_is_never_to_be_downloaded(written: Any) -> None:
    """An adapter's base is named, a folder that is not there is one."""
    Path("saves/a").mkdir(parents=True)
    write_json(Path("saves/a/adapter_config.json"), {"base_model_name_or_path": "me/base"})
    for model, parts in (
        ("saves/a", ["saves/a: an adapter", "its base is me/base"]),
        ("saves", ["--model saves: ", "name a folder with config.json"]),
        ("/not/here/model", ["/not/here/model: no such folder", "name a folder with config.json"]),
        ("Qwen2.5-7B", ["OWNER/NAME"]),
    ):
        error = written("--model", model, template_error="not on this machine")
        printed(str(error), *parts)
        assert "download" not in str(error)


@pytest.mark.parametrize("model", ["nope", "./nope/model", "Qwen/nope"])
def test_a_model_that_is_not_here_is_refused_before_llamafactory_starts(
    with_datasets: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(new_recipe, "ask_measures", None)
    ended = invoke(cli, "recipe", "new", "--model", model, "--dataset", "answers_train", "--out", "r.yaml")
    assert isinstance(ended.exception, RequestError)
    printed(str(ended.exception), f"--model {model}: no such folder", "name a folder with config.json")


def test_rows_that_cannot_be_trained_on_are_refused(written: Any) -> None:
    error = written(lengths={"answers_train": [], "answers_eval": [[1]]})
    printed(
        str(error), "answers_train: no row can be trained on", "row 3: LLaMA-Factory drops it", "data verify"
    )


def test_several_gpus_are_named_if_no_single_one_is_large_enough(written: Any) -> None:
    largest = max(GPUS, key=lambda name: GPUS[name].memory)
    model = LaidOut(replace(QWEN_7B, parameters=110 * GB, linear=108 * GB), positions=32_768)
    printed(str(written("--for", largest, model=model)), "--for 2xB200")
