"""`tuneyard eval nli` alone: it takes what is in the folder, or names all that is missing."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS, call, even_rows, invoke
from tests.json_files import read_json, write_json
from tests.messages import ROOT, printed, printed_line, raises
from tuneyard.cli import cli as tuneyard
from tuneyard.core.errors import RequestError
from tuneyard.eval.nli import cli

pytestmark = pytest.mark.usefixtures("one_thread", "working_folder")
TEXTS = [{"instruction": f"What is {n} + {n}?", "output": f"It is {2 * n}."} for n in range(5)]


def register(**rows: list[dict]) -> None:
    """Register datasets by hand, as users of LLaMA-Factory do."""
    folder = Path("dataset_info")
    folder.mkdir(exist_ok=True)
    entries = {}
    for name, records in rows.items():
        write_json(folder / f"{name}.json", records)
        entries[name] = {"file_name": f"{name}.json"}
    write_json(folder / "dataset_info.json", entries)


def adapter(name: str, base: object, trained_on: str = "", seed: int = 0) -> None:
    """Write the adapter saves/NAME, with LLaMA-Factory's own record of its dataset."""
    folder = write_adapter(Path("saves") / name, seed=seed, base_model_name_or_path=str(base))
    if trained_on:
        card = f"This model is a fine-tuned version of [b](b) on the {trained_on} dataset."
        (folder / "README.md").write_text(card)


def scored(out: str = "results/nli") -> tuple[list[str], list[str]]:
    """The models and the datasets of a run."""
    run = read_json(Path(out) / "run.json")
    return sorted(run["models"]), sorted(run["datasets"])


@pytest.fixture
def base(tiny_model: Path) -> Path:
    """The tiny model in models/base."""
    return Path(shutil.copytree(tiny_model, "models/base"))


def test_bare_it_scores_the_base_and_the_adapters_of_the_datasets_that_are_here(base, capsys):
    register(
        alpaca_rte_train=even_rows(4), alpaca_rte_eval=even_rows(4), alpaca_mnli_train=PAIRS,
        alpaca_mnli_eval=PAIRS, alpaca_mnli_test=PAIRS, qa_train=TEXTS, qa_eval=TEXTS,
    )  # fmt: skip
    adapter("rte", base, "alpaca_rte_train")
    adapter("mnli", base, "alpaca_mnli_train", seed=1)
    adapter("qa", base, "qa_train", seed=2)
    adapter("mnli/checkpoint-20", base)
    adapter("unfinished/checkpoint-20", base)
    call(cli)
    assert scored() == (["base", "mnli", "rte"], ["alpaca_mnli_test", "alpaca_rte_eval"])
    assert read_json(Path("results/nli/run.json"))["settings"]["mode"] == "choice"
    error = capsys.readouterr().err
    printed_line(error, "not scored", "saves/qa", "qa_train")
    line = printed_line(error, "chosen here")
    words = shlex.split(line)
    assert [words[n + 1] for n, word in enumerate(words) if word == "--adapter"] == ["mnli", "rte"]
    assert words[words.index("--model") :][:2] == ["--model", "models/base"]
    assert words[-2:] == ["--out", "results/nli"]


def test_the_chosen_command_is_the_same_run(base, capsys):
    register(alpaca_rte_eval=even_rows(4))
    adapter("rte", base)
    adapter("deep/lora/sft", base, seed=1)
    call(cli)
    line = printed_line(capsys.readouterr().err, "chosen here")
    words = shlex.split(line)[shlex.split(line).index("--model") :]
    result = invoke(tuneyard, "eval", "nli", *words, "--resume")
    assert result.exit_code == 0, result.output
    assert "chosen here" not in result.stderr
    assert scored()[0] == ["base", "deep-lora-sft", "rte"]


def test_explicit_options_stay(base, tmp_path, capsys):
    register(alpaca_rte_eval=even_rows(4), mine_eval=PAIRS)
    adapter("rte", base)
    adapter("mnli", base, seed=1)
    call(cli, "--adapter", "half=rte:0.5+mnli:0.5", "--dataset", "mine_eval", "--out", "mine")
    assert scored("mine") == (["base", "half"], ["mine_eval"])
    call(cli, "--model", base, "--data", "dataset_info/mine_eval.json", "--out", "other")
    assert scored("other") == (["base"], ["mine_eval"])
    assert capsys.readouterr().err.count("chosen here") == 1


def test_a_second_run_is_up_to_date_and_a_changed_one_needs_force(base, capsys):
    register(alpaca_rte_eval=even_rows(4))
    adapter("rte", base)
    call(cli)
    capsys.readouterr()
    call(cli)
    assert "results/nli: up to date" in capsys.readouterr().out
    with raises(RequestError, "results/nli", "--limit", "--force"):
        call(cli, "--limit", 2)
    call(cli, "--force", "--limit", 2)
    assert read_json(Path("results/nli/base/alpaca_rte_eval/results.json"))["n"] == 2


def test_adapters_of_several_bases_are_named_with_a_command_for_each(base):
    shutil.copytree(base, "models/other")
    register(alpaca_rte_eval=even_rows(4))
    adapter("rte", base)
    adapter("two", base.resolve(), seed=1)  # the same base by its absolute path
    adapter("mnli", "models/other", seed=2)
    with raises(RequestError, 2, "models/base", "models/other") as refused:
        call(cli)
    commands = [line.split(": ", 1) for line in str(refused.value).splitlines()[1:]]
    bases = {place.strip(): shlex.split(command)[-4:] for place, command in commands}
    assert bases["models/base"] == ["--adapter", "rte", "--adapter", "two"]
    assert bases["models/other"][-2:] == ["--adapter", "mnli"]
    call(cli, "--adapter", "mnli")
    assert scored()[0] == ["base", "mnli"]


def test_one_error_names_all_that_is_missing_and_a_command(monkeypatch):
    with raises(RequestError, "dataset_info/dataset_info.json", "saves/") as refused:
        call(cli)
    command = str(refused.value).splitlines()[-1]
    printed(command, "tuneyard data compile demo_rte && tuneyard recipe base &&", "--model models/demo-base")
    assert not Path("results").exists()


def test_the_command_of_the_error_runs_here(base):
    with raises(RequestError, "dataset_info/dataset_info.json") as refused:
        call(cli)
    line = str(refused.value).splitlines()[-1].partition(": ")[2]
    compile_words, score_words = [shlex.split(command) for command in line.split(" && ")]
    assert invoke(tuneyard, *compile_words[1:]).exit_code == 0
    model = score_words[score_words.index("--model") :]
    result = invoke(tuneyard, "eval", "nli", *model, "--limit", 2)
    assert result.exit_code == 0, result.output
    assert scored() == (["base"], ["demo_rte_eval"])


def test_raw_files_that_are_here_are_compiled_first(base):
    Path("data/raw/mnli").mkdir(parents=True)
    Path("data/raw/qa").mkdir()  # no labels
    with raises(RequestError, "tuneyard data compile mnli &&"):
        call(cli)


def test_a_recipe_trains_the_adapter_that_is_missing(base):
    register(alpaca_rte_train=even_rows(4), alpaca_rte_eval=even_rows(4))
    adapter("qa", base, "qa_train")
    with raises(RequestError, "alpaca_rte_eval", "recipes/rte.yaml", "saves/qa", "qa_train") as refused:
        call(cli)
    assert "data compile" not in str(refused.value)


@pytest.mark.parametrize("with_dataset", [True, False])
def test_a_base_that_is_not_here_is_missing(base, monkeypatch, with_dataset):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if with_dataset:
        register(alpaca_rte_eval=even_rows(4))
    adapter("rte", "nobody/nothing")
    with raises(RequestError, "nobody/nothing") as refused:
        call(cli)
    assert ("dataset_info.json" in str(refused.value)) is not with_dataset
    printed(str(refused.value).splitlines()[-1], "--model models/base")


def test_a_broken_dataset_is_left_out_with_its_reason(base, capsys):
    register(alpaca_rte_eval=even_rows(4), other_eval=PAIRS)
    Path("dataset_info/other_eval.json").write_text("[{")
    adapter("rte", base)
    call(cli)
    assert scored()[1] == ["alpaca_rte_eval"]
    printed_line(capsys.readouterr().err, "not scored", "other_eval.json")


@pytest.mark.parametrize(
    "words", [["--rescore", "x"], ["--backend", "openai", "--url", "http://localhost:1/v1"]]
)
def test_kept_outputs_and_servers_need_their_options(words):
    result = invoke(tuneyard, "eval", "nli", *words)
    assert result.exit_code == 2
    assert type(result.exception).__name__ == "SystemExit" or "--" in str(result.exception)


def test_the_documents_scoring_is_one_word(sampling_model, tmp_path):
    """Its script generates up to 512 tokens and looks for yes, no and maybe in the text."""
    model = sampling_model(temperature=0.7, eos_token_id=[*range(1024)])
    write_json(Path("rows.json"), PAIRS)
    given = ["--model", model, "--data", "rows.json", "--limit", 1, "--preset", "document"]
    call(cli, *given, "--out", "one")
    settings = read_json(Path("one/base/rows/results.json"))["settings"]
    assert (settings["mode"], settings["parser"], settings["max_new_tokens"]) == (
        "generate",
        "substring",
        512,
    )
    assert settings["sampling"]["temperature"] == 0.7
    call(cli, *given, "--parser", "word", "--max-new-tokens", 3, "--out", "two")
    settings = read_json(Path("two/base/rows/results.json"))["settings"]
    assert (settings["mode"], settings["parser"], settings["max_new_tokens"]) == ("generate", "word", 3)
    call(cli, "--rescore", "two", "--data", "rows.json", "--out", "three")
    assert read_json(Path("three/base/rows/results.json"))["settings"]["parser"] == "word"
    with raises(RequestError, "--preset", "--mode"):
        call(cli, *given, "--mode", "choice", "--out", "four")


def cut_off(name: str, *checkpoints: int, **started: object) -> Path:
    """A training in saves/ without a final adapter, of `recipe train` if it has settings."""
    folder = Path("saves") / name
    folder.mkdir(parents=True)
    for step in checkpoints:
        write_adapter(folder / f"checkpoint-{step}")
    if started:
        data = [{"dataset": started["dataset"]}]
        write_json(folder / "started.json", {"settings": started, "data": data})
    return folder


def bundled_settings(name: str) -> dict:
    """What started.json has of a bundled recipe."""
    settings = yaml.safe_load((ROOT / "recipes" / name).read_text())
    del settings["output_dir"], settings["overwrite_output_dir"]
    return settings


@pytest.mark.parametrize("with_another", [True, False])
def test_an_unfinished_training_is_named_with_the_command_that_resumes_it(base, capsys, with_another):
    register(alpaca_rte_train=even_rows(4), alpaca_rte_eval=even_rows(4), alpaca_mnli_eval=PAIRS)
    cut_off("mnli", 9, 100, **bundled_settings("mnli.yaml"))
    cut_off("rte", 20)  # by llamafactory-cli
    cut_off("deep/er", 7, **{**bundled_settings("mnli.yaml"), "lora_rank": 4})
    cut_off("none", **bundled_settings("rte.yaml"))
    cut_off("qa", 5, dataset="qa_train")  # of other data
    whole = Path("saves/whole/checkpoint-3")  # a whole model is no adapter
    whole.mkdir(parents=True)
    (whole / "model.safetensors").touch()
    if with_another:
        adapter("other", base)
        call(cli)
        assert scored()[0] == ["base", "other"]
        text = capsys.readouterr().err
    else:
        with raises(RequestError, "saves/") as refused:
            call(cli)
        text = str(refused.value)
    line = printed_line(text, "saves/mnli", "checkpoint-100")
    assert line.endswith("`tuneyard recipe train recipes/mnli.yaml` resumes it")
    line = printed_line(text, "saves/rte", "checkpoint-20", "llamafactory-cli train", "recipes/rte.yaml")
    assert "overwrite_output_dir=false resume_from_checkpoint=saves/rte/checkpoint-20" in line
    line = printed_line(text, "saves/deep/er", "checkpoint-7")
    assert "recipes/mnli.yaml lora_rank=4 output_dir=saves/deep/er" in line
    printed_line(text, "saves/none", "no checkpoint", "output_dir=saves/none")
    assert "saves/qa" not in text
    assert "saves/whole" not in text


@pytest.mark.parametrize(
    ("name", "is_a_try"),
    [("try", True), ("try_mnli", True), ("deep/try-2", True), ("trying", False), ("retry", False)],
)
def test_a_try_is_left_out(base, capsys, name, is_a_try):
    register(alpaca_rte_eval=even_rows(4))
    adapter("rte", base)
    adapter(name, base, seed=1)
    call(cli)
    assert len(scored()[0]) == (2 if is_a_try else 3)
    if is_a_try:
        printed_line(capsys.readouterr().err, "not scored", f"saves/{name}: a try")


def test_a_finished_run_is_compared_and_the_command_for_another_runs(base, monkeypatch):
    register(alpaca_rte_eval=even_rows(4))
    monkeypatch.setattr("sys.argv", ["tuneyard", "eval", "nli", "--limit", "2"])
    adapter("rte", base)
    call(cli)
    with raises(RequestError, "results/nli", "finished", "tuneyard eval compare results/nli") as refused:
        raise invoke(tuneyard, "eval", "nli", "--limit", "2").exception
    command = str(refused.value).rpartition("`")[0].rpartition("`")[2]
    assert command == "tuneyard eval nli --limit 2 --out results/nli-2"
    assert invoke(tuneyard, *shlex.split(command)[1:]).exit_code == 0
    Path("results/nli/rte/alpaca_rte_eval/results.json").unlink()
    with raises(RequestError, "results/nli", "unfinished", "--resume", "--out results/nli-3") as refused:
        call(cli)
    assert "eval compare" not in str(refused.value)


def test_a_run_of_other_settings_is_not_resumed(base):
    register(alpaca_rte_eval=even_rows(4))
    adapter("rte", base)
    call(cli)
    with raises(RequestError, "results/nli", "--preset", "document", "--out results/nli-document"):
        call(cli, "--preset", "document")


def test_below_the_root_of_a_checkout_the_root_is_named(base, monkeypatch):
    register(alpaca_rte_eval=even_rows(4))
    root = Path.cwd()
    for folder in ("eval", "recipes/weights"):
        Path(folder).mkdir(parents=True)
        monkeypatch.chdir(folder)
        with raises(RequestError, "dataset_info/dataset_info.json", f"cd {root}") as refused:
            call(cli)
        assert "registers" not in str(refused.value)
        monkeypatch.chdir(root)


def test_in_a_checkout_the_tutorials_datasets_are_named(base):
    Path("compiler/specs").mkdir(parents=True)
    for name in ("Makefile", "compiler/specs/rte.yaml", "compiler/specs/mnli.yaml"):
        Path(name).touch()
    with raises(RequestError, "make compile DATA='rte mnli'", "tuneyard data compile demo_rte"):
        call(cli)
    register(qa_train=TEXTS)
    with raises(RequestError, "make compile DATA='rte mnli'", "registers"):
        call(cli)
