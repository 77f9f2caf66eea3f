"""What a newcomer gets wrong has a next step in its message."""

import sys
from pathlib import Path

import click
import pytest

from tuneyard.cli import cli as tuneyard
from tuneyard.core.cli.run import run_command

RECIPE = "model_name_or_path: a/b\nstage: sft\ndataset: x\noutput_dir: out\n"


@pytest.mark.parametrize(
    ("words", "code", "next_step"),
    [
        (["data", "init", "mine.cvs"], 2, 'mine.cvs: source not found; did you mean "mine.csv"?'),
        (["eval", "compare", "zzz", "--out", "o"], 2, "zzz: results not found; name one that is there: ls "),
        (
            ["data", "compile", "mine.yaml"],
            1,
            "a training recipe, not a spec: tuneyard recipe check mine.yaml",
        ),
        (["data", "compile", "spec.yaml"], 2, 'the spec spec.yaml names it; did you mean "mine.csv"?'),
        (["data", "--out", "x", "compile"], 2, "Options come after the command: "),
        (["data", "compile", "--limit"], 2, "Example: tuneyard data compile "),
        (["data", "view", "x", "--recipe", "mine.yml"], 2, 'did you mean "mine.yaml"?'),
        (["data", "init", "mine.csv", "--out", "spec.csv"], 2, "--out spec.yaml"),
        (["data", "init", "mine.csv", "--answer", "a", "--answer", "b"], 2, "2 times, expected one column"),
        (["data", "init", "mine.yaml"], 2, "if it is a recipe: tuneyard recipe check mine.yaml"),
        (["data", "init", "nodata"], 2, "name the folder or file that has the rows"),
        (["data", "remove", "nope"], 2, "or name its folder (--dataset-dir; dataset_dir in a recipe)"),
        (["recipe", "check", "mine.csv"], 2, "`tuneyard recipe new --dataset NAME "),
        (["eval", "suite", "mine.yaml", "--model", "m", "--out", "o"], 1, "tuneyard recipe check mine.yaml"),
        (["eval", "compare", "nodata", "--out", "o"], 2, "score a model first: tuneyard eval nli "),
        (["eval", "ab", "tally", "mine.csv"], 2, "the one that `tuneyard eval ab` wrote"),
        (["eval", "suite", "kit", "--model", "m", "--out", "o"], 2, "(eval/suites/toolkit.yaml is bundled)"),
        (["data", "verify", "x", "--recipe", "spec.yaml"], 1, "spec.yaml: no training recipe: it names no"),
        (["adapter", "show", "nodata"], 2, "name the output_dir of a LoRA training (under saves/: none)"),
        (
            ["adapter", "export", "./nodata", "--to", "gguf", "--out", "a.gguf"],
            2,
            "name a LoRA's output_dir, or ",
        ),
        (
            ["demo", "--model", "lora", "--dry-run"],
            2,
            "`tuneyard adapter fuse lora --base b --out DIR` writes",
        ),
        (["data", "init", ""], 2, "init '': is a variable of your shell empty?"),
        (["data", "init", "lora"], 2, "lora: expected rows, found an adapter: tuneyard adapter show lora"),
        (["data", "init", "lora/scored"], 2, "tuneyard eval compare --out DIR lora/scored"),
        (["eval", "compare", "mine.csv", "--out", "lora"], 2, "--out lora: an adapter, or "),
        (["data", "compile", "nodata"], 2, "expected FILE.yaml; for data `tuneyard data init nodata`"),
        (["data", "check", "specs/comma.yaml"], 1, "write a decimal point, not a comma (0.2)"),
        (["data", "check", "specs/misspelt.yaml"], 1, 'did you mean "stratify"?'),
        (["adapter", "merge", "a=0,5", "--out", "o"], 2, "write a decimal point, not a comma: 0.5"),
        (["eval", "compare", "a", "--out", "o", "--margin", "5%"], 2, "alone if it counts in points"),
        (["adapter", "merge", "a=50%", "--out", "o"], 2, "write a share of 1, such as 0.5 for 50 %"),
        (["adapter", "merge", "a:0.5+b:0.5", "--out", "o"], 2, "a space between them: a:0.5 b:0.5"),
        (["adapter", "merge", "=0.5", "--out", "o"], 2, "'=0.5': is a variable of your shell empty?"),
        (
            ["adapter", "export", "lora", "--to", "gguf", "--base", "own", "--out", "o"],
            2,
            'did you mean "models/own"?',
        ),
        (["adapter", "fuse", "a", "--dtype", "float32"], 2, "Here it is fp32."),
        (["eval", "chat", "--device", "cpu"], 2, "CUDA_VISIBLE_DEVICES chooses it"),
        (
            ["eval", "chat", "--model", "own", "--once", "x"],
            2,
            'own: no such folder; did you mean "models/own"?',
        ),
        (["eval", "ab", "tally", "nodata"], 2, "nodata/sheet.csv: sheet not found"),
        (["eval", "compare", "lora/scored", "lora/scored", "--out", "o"], 2, "name each once"),
        (["eval", "compare", "lora/scored/run.json", "--out", "o"], 2, "lora/scored: unfinished"),
        (["eval", "nli", "--model", "m", "--data", "nodata", "--out", "o"], 2, "tuneyard data init nodata "),
        (["eval", "view", "x"], 2, "Did you mean `tuneyard data view`?"),
        (["demo", "--model", "specs/comma.yaml", "--dry-run"], 2, 'a folder: did you mean "specs"?'),
        (["recipe", "train", "lr=1", "mine.yaml"], 2, "expected FILE.yaml before key=value"),
        (["adapter", "show", "NAME"], 2, "NAME is a placeholder of the help"),
        (["data", "compile", "spec.yaml", "--out", ""], 2, "--out '': is a variable of your shell empty?"),
        (["recipe", "check", ""], 2, "a path is empty\ncheck '': is a variable of your shell empty?"),
        (
            ["recipe", "plan", "mine.yaml", "--for", "8xH800"],
            2,
            "for another GPU take one of its memory",
        ),
        (["data", "verify", "x", "--model", ""], 2, "--model '': is a variable of your shell empty?"),
        (["eval", "nli", "--model", "m", "--out", "o", "--dataset", "a,b"], 2, "--dataset a --dataset b"),
        (["recipe", "train", "mine.yaml", "--learning_rate", "1"], 2, "no dashes: learning_rate=1e-4"),
        (["recipe", "check", "spec.yaml"], 1, "a data spec, not a recipe: tuneyard data check spec.yaml"),
        (
            ["data", "init", "z links"],
            2,
            "z links/b.csv: it is a link to /gone.csv, which does not exist: remove it",
        ),
        (["data", "init", "z links/b.csv"], 2, "source not found; it is a link to /gone.csv, "),
        (["data", "verify", "typo", "--out", "z links"], 1, 'did you mean "file_name"?'),
        (
            ["data", "verify", "mine.csv"],
            2,
            "expected the name of a dataset; make one of it: tuneyard data init ",
        ),
        (["data", "view", "spec.yaml"], 2, "make one of it: tuneyard data compile spec.yaml"),
        (["data", "compile", "nodata/tab.yml"], 1, "indent with spaces"),
        (["data", "compile", "nodata/empty.yml"], 1, "`tuneyard data init FILE` proposes one"),
        (["data", "list", "--out", "nodir"], 2, "`tuneyard data compile` makes one"),
        (["data", "compile", "hub:a/b"], 2, "`tuneyard data compile SPEC --source hub:"),
        (["data", "init", "mine.csv", "--text", "b"], 2, "(columns: a)"),
        (["data", "diff", "./typo.jso", "a"], 2, 'file of records; did you mean "typo.json"?'),
        (["recipe", "plan", "nodata"], 2, "name one that is there: ls nodata"),
        (["adapter", "show", "z", "links"], 2, 'put a path with spaces in quotes: "z links"'),
        (
            ["data", "init", "my", "file.csv"],
            2,
            "quote a text with spaces, and give each",
        ),
        (["eval", "chat", "--once", "Who", "is", "it"], 2, "quote a text with spaces, and give each"),
        (["data", "check", "io", "--source", "a", "b"], 2, "quote a path with spaces"),
        (["data", "list", "io"], 2, "quote a text with spaces, and give each"),
        (
            ["data", "check", "io", "—limit", "2"],
            2,
            "—limit: a text editor's dash or quote; type two hyphens",
        ),
        (["data", "check", "io", "--limit", "10k"], 2, "write the digits alone: 10000"),
        (
            ["data", "init", "mine.csv", "--split", "20"],
            2,
            "write a share of 1, such as 0.5 for 50 %",
        ),
        (["data", "init", "mine.csv", "--text", "a", "--label", "a"], 2, "name one column twice"),
        (["recipe", "best", "mine.yaml"], 2, "mine.yaml is a file, expected a folder"),
        (["demo", "--model", "lor", "--dry-run"], 2, 'did you mean "lora"?'),
        (["data", "init", "~/mine.csv"], 2, f"{Path.home()}/mine.csv: source not found"),
        (["data", "init", "lora/scored/run.json"], 2, "tuneyard eval compare --out DIR lora/scored"),
        (
            ["data", "stats", "form", "--out", "z links"],
            1,
            'expected one of alpaca, sharegpt; did you mean "a',
        ),
    ],
)
def test_a_mistake_has_a_next_step(
    words: list[str],
    code: int,
    next_step: str,
    working_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("mine.csv").write_text("a\n1\n")
    Path("mine.yaml").write_text(RECIPE)
    Path("spec.yaml").write_text("like: qa\nsource: {files: mine.cvs}\n")
    Path("typo.json").write_text('[{"question": "a" "answer": "b"}]')
    Path("nodata").mkdir()
    Path("specs").mkdir()
    Path("specs/comma.yaml").write_text("like: qa\nsplit: {eval: 0,2}\n")
    Path("specs/misspelt.yaml").write_text("like: qa\nsplit: {stratfy: 0.2}\n")
    Path("nodata/tab.yml").write_text("about: x\n\tlike: qa\n")
    Path("nodata/empty.yml").touch()
    Path("lora/scored").mkdir(parents=True)
    Path("models/own").mkdir(parents=True)
    Path("lora/scored/run.json").write_text("{}")
    Path("lora/adapter_config.json").write_text('{"base_model_name_or_path": "b"}')
    Path("z links").mkdir()
    Path("z links/b.csv").symlink_to("/gone.csv")
    Path("z links/dataset_info.json").write_text(
        '{"typo": {"file_nam": "a.json"}, "form": {"file_name": "a.json", "formatting": "alpac"}}'
    )
    monkeypatch.setattr("sys.argv", ["tuneyard", *words])
    # Else Click calls the program `python -m pytest.tuneyard`, whose usage takes a line more: not in xdist.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command(tuneyard)
    message = capsys.readouterr().err
    assert ended.value.code == code and next_step in message and len(message.splitlines()) < 7


def test_no_line_of_help_is_cut() -> None:
    """Click cuts the first sentence of a command in the list of its group."""

    def check(command: click.Command, context: click.Context) -> None:
        lines = [line for line in command.get_help(context).splitlines() if not line.startswith("Usage: ")]
        assert not [line for line in lines if line.endswith("...") or len(line) > 80]
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                check(inner, click.Context(inner, info_name=name, parent=context, terminal_width=80))

    check(tuneyard, click.Context(tuneyard, info_name="tuneyard", terminal_width=80))
