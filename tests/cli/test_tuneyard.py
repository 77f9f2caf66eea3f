"""`tuneyard`: every command under one name, lazily, from any folder; doctor says what is missing."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from testing.forks import Forks
from tests.cli.scoring import invoke
from tests.conftest import ROOT, Done, Here
from tests.messages import printed_line
from tuneyard.cli import cli
from tuneyard.core.cli import doctor
from tuneyard.core.cli.main import source
from tuneyard.core.installation.checkout import version

ENTRY = "import sys; sys.argv[0] = 'tuneyard'; from tuneyard.__main__ import main; main()"


def tuneyard(*words: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> Done:
    """Run `tuneyard WORDS` as the installed script does: the working folder is on no module path."""
    code = f"import sys; sys.path[0] = {str(ROOT)!r}; {ENTRY}"
    own = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=cwd, env=own
    )


def forked(forks: Forks, folder: Path, *words: str) -> Done:
    """What `tuneyard WORDS` says in a folder, in a process that has its imports."""
    return subprocess.run(["tuneyard", *words], capture_output=True, text=True, cwd=folder, env=forks.env)


@pytest.fixture
def typed(here: Here, monkeypatch: pytest.MonkeyPatch) -> Here:
    """`typed("eval", "nil", code=2)`: the words after `tuneyard`, in this process."""
    monkeypatch.setattr(cli, "name", "tuneyard")
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)  # `python -m pytest`
    return partial(here, cli)


HELP = """
import contextlib, io, sys
from importlib import import_module

cli = import_module(f"tuneyard.{sys.argv[1]}.__main__").cli
for name in cli.list_commands(None):
    with contextlib.redirect_stdout(io.StringIO()):
        cli.get_command(None, name).main(["--help"], standalone_mode=False)
heavy = "numpy torch transformers datasets pyarrow pandas scipy sklearn matplotlib httpx asyncio"
print(*sorted({*heavy.split(), "multiprocessing"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("module", "heavy"), [("eval", ""), ("adapters", ""), ("recipes", "multiprocessing")]
)
def test_the_help_of_a_command_imports_no_heavy_module(module: str, heavy: str) -> None:
    """Which each takes a tenth of a second or more: they are to answer within 0.35 s."""
    ended = subprocess.run([sys.executable, "-c", HELP, module], capture_output=True, text=True, cwd=ROOT)
    assert (ended.stdout, ended.stderr) == (f"{heavy}\n", "")


def test_version_and_commit() -> None:
    ended = tuneyard("--version")
    commit = version().get("commit", "")[:12]
    assert (ended.returncode, ended.stdout) == (
        0,
        f"tuneyard {version()['version']} {commit}".rstrip() + "\n",
    )


@pytest.mark.parametrize(
    ("group", "module"),
    [("data", "compiler"), ("recipe", "recipes"), ("adapter", "adapters"), ("eval", "eval")],
)
def test_both_entrances_are_the_same_commands(group: str, module: str, tmp_path: Path) -> None:
    ours = tuneyard(group, "--help", cwd=tmp_path)
    theirs = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert (ours.returncode, ours.stderr) == (0, "")
    assert f"Usage: tuneyard {group} " in ours.stdout
    assert ours.stdout == theirs.stdout


def test_every_command_is_found_and_its_summary_is_its_own() -> None:
    """The summaries in a list are read from the source files, which must say what Click would."""
    import click

    for group in (cli, cli.get_command(click.Context(cli), "eval")):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert group._summary(context, name) == command.get_short_help_str(limit=1000)
            assert source(group.lazy[name].partition(":")[0]).is_file()


def test_lists_of_commands_import_no_command() -> None:
    for words in (["--help"], ["eval", "--help"]):
        code = f"{ENTRY.replace('; main()', '')}\ntry: main()\nexcept SystemExit: print(*sys.modules)"
        ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
        loaded = ended.stdout.split()
        assert "click" in loaded and not {
            "numpy",
            "tuneyard.eval.nli",
            "tuneyard.compiler.cli",
            "tuneyard.core.cli.doctor",
        } & set(loaded)


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        ("dcotor", "`tuneyard doctor`"),
        ("recipies check", "`tuneyard recipe`"),
        ("eval nil", "`tuneyard eval nli`"),
        ("data verfy", "`tuneyard data verify`"),
        ("recipe chekc", "`tuneyard recipe check`"),
        ("adapter mrge", "`tuneyard adapter merge`"),
        ("compile", "`tuneyard data compile`"),
        ("check", "`tuneyard data check` or `tuneyard recipe check`"),
    ],
)
def test_an_unknown_command_gets_the_nearest_one(typed: Here, words: str, suggested: str) -> None:
    assert f"Did you mean {suggested}" in typed(*words.split(), code=2).stderr


@pytest.mark.parametrize("words", ["qqq", "eval qqq"])
def test_an_unknown_command_like_none_gets_the_list(typed: Here, words: str) -> None:
    message = typed(*words.split(), code=2).stderr
    group = " ".join(["tuneyard", *words.split()[:-1]])
    assert "No such command 'qqq'" in message and f"`{group} --help`" in message


def test_doctor_finds_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = invoke(doctor.cli, "--json")
    told = json.loads(ended.stdout)
    found = {one["name"]: one for one in told["checks"]}
    assert ended.exit_code == (0 if told["ok"] else 1)
    assert found["llamafactory"]["status"] == "ok" and "0.9.5" in found["llamafactory"]["detail"]
    assert found["hub"]["detail"].endswith("not asked: HF_HUB_OFFLINE is set")


def test_doctor_names_a_lack_its_fix_and_exits_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "versions", lambda *_: {"torch": "2.11.0+cpu", "transformers": "4.0.0"})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.chdir(tmp_path)
    ended = invoke(doctor.cli)
    assert ended.exit_code == 1
    lines = ended.output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("missing  llamafactory"))
    assert lines[at].endswith("not installed (tested: 0.9.5)")
    assert lines[at + 1].endswith(f"fix: cd {ROOT} && rm -f .venv/.core && make setup")
    assert any(line.startswith("ok       torch") for line in lines)
    assert any(line.startswith("warning  transformers  4.0.0 (tested: ") for line in lines)
    printed_line("\n".join(lines), "warning", "hub", "http://127.0.0.1:9")


IDENTITY = '{"identity": {"file_name": "identity.json"}}'
ROW = '[{"instruction": "Who are you?", "input": "", "output": "A model."}]'


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder as LLaMA-Factory's: its registry in data/, packages of its own with the names of ours."""
    for name in ("core", "recipes", "eval"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a module of the working folder')\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(IDENTITY)
    (tmp_path / "data/identity.json").write_text(ROW)
    return tmp_path


@pytest.mark.slow  # starts LLaMA-Factory, 20 s
def test_verify_in_a_folder_of_llamafactory_takes_data_and_says_so(foreign: Path) -> None:
    ended = tuneyard("data", "verify", "identity", cwd=foreign)
    assert ended.returncode == 0, ended.stderr
    printed_line(ended.stdout, "identity", "1 records", "1 rows")
    printed_line(ended.stderr, "dataset_info/dataset_info.json", "reading data/dataset_info.json")
    assert not (foreign / "dataset_info").exists()


@pytest.mark.slow  # starts LLaMA-Factory
@pytest.mark.parametrize("option", ["--dataset-dir", "--out"])
def test_a_registry_that_is_named_is_not_announced(foreign: Path, forks: Forks, option: str) -> None:
    ended = forked(forks, foreign, "data", "verify", "identity", option, "data")
    assert ended.returncode == 0 and "reading data/dataset_info.json" not in ended.stderr


def test_a_registry_of_ours_is_taken_first(
    typed: Here, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(foreign)
    (foreign / "dataset_info").mkdir()
    (foreign / "dataset_info/dataset_info.json").write_text('{"identity": {"file_name": "gone.json"}}')
    ended = typed("data", "verify", "identity", code=2)
    assert "dataset_info/gone.json: file of dataset" in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        "data verify identity",
        "data stats identity",
        "data diff identity identity",
        "data remove identity",
        "eval nli --model m --dataset identity --out out",
    ],
)
def test_a_folder_without_datasets_says_where_to_go(typed: Here, working_folder: Path, words: str) -> None:
    message = typed(*words.split(), code=2).stderr
    said = "there is no dataset_info/ or data/ here: cd to your LLaMA-Factory folder"
    assert said in message and "identity" in message
    (working_folder / "data").mkdir()
    assert said not in typed(*words.split(), code=2).stderr


def test_list_and_check_say_so_too(typed: Here, working_folder: Path) -> None:
    listed = typed("data", "list")
    checked = typed("recipe", "check", "rte", "--quick", code=1)
    for text in (listed.stdout, checked.stdout):
        printed_line(text, "dataset_info/", "data/", "cd")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["data", "init", "https://x.org/a.csv"], "download it first"),
        (["data", "init", "https://x.org/datasets/nyu-mll/glue/viewer"], "--source hub:nyu-mll/glue"),
        (["data", "init", "hub:nyu-mll/glue"], "--source hub:nyu-mll/glue"),
        (["data", "compile", "rte", "--source", "train=https://x.org/a?b=c"], "download it first"),
        (["recipe", "check", "rte", "dataset"], "dataset=…"),
        (["eval", "nli", "--model", "m", "--out", "out", "--data", "my x.csv"], "data init 'my x.csv' --out"),
    ],
)
def test_what_a_command_does_not_read_gets_the_words_that_it_reads(
    typed: Here, working_folder: Path, words: list[str], command: str
) -> None:
    (working_folder / "my x.csv").write_text("a,b\n")
    message = typed(*words, code=2).stderr
    assert command in message
    assert next((word for word in words[2:] if "://" in word), "").removeprefix("train=") in message


def test_bundled_specs_are_compiled_into_the_current_folder(foreign: Path) -> None:
    ended = tuneyard("data", "compile", "demo_rte", "--limit", "4", cwd=foreign)
    assert ended.returncode == 0, ended.stderr
    assert (foreign / "dataset_info/demo_rte/demo_rte-train.json").is_file()
    assert "demo_rte_train" in (foreign / "dataset_info/dataset_info.json").read_text()


ASKS = pytest.param("demo-rte", [], marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("named", "options"), [("demo-rte", ["--quick"]), ("recipes/demo-rte.yaml", ["--quick"]), ASKS]
)
def test_bundled_recipes_are_found_from_anywhere(foreign: Path, named: str, options: list[str]) -> None:
    """Without --quick LLaMA-Factory is asked, in a process that must not import what lies in this folder."""
    tuneyard("data", "compile", "demo_rte", "--limit", "4", cwd=foreign)
    ended = tuneyard("recipe", "check", named, "deepspeed=recipes/deepspeed/z2.json", *options, cwd=foreign)
    assert f"{ROOT}/recipes/demo-rte.yaml: " in ended.stdout
    assert "E343" not in ended.stdout and "E310" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr and "working folder" not in ended.stderr


def test_a_recipe_of_the_folder_goes_before_a_bundled_one(
    typed: Here, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(foreign)
    (foreign / "recipes/demo-rte.yaml").write_text("stage: sft\n")
    ended = typed("recipe", "check", "demo-rte", "--quick", code=1)
    assert str(ROOT) not in ended.stdout and "recipes/demo-rte.yaml: " in ended.stdout


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("tuneyard", ["eval", "nli", "--out", "a b", "--resume"]),
        ("tuneyard eval nli", ["--out", "a b", "--resume"]),  # python -m eval.nli
        ("nli", ["--out", "a b", "--resume"]),  # in a program that calls the command
    ],
)
def test_a_recorded_command_can_be_typed_again(
    monkeypatch: pytest.MonkeyPatch, program: str, words: list[str]
) -> None:
    import click

    from tuneyard.core.cli.main import command_line

    monkeypatch.setattr(sys, "argv", [program, *words])
    with click.Context(cli, info_name=program):
        assert command_line("eval.nli", ("--resume",)) == "tuneyard eval nli --out 'a b'"


def test_a_command_without_options_ends_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added to it comes after one space."""
    from tuneyard.core.cli.main import command_line

    monkeypatch.setattr(sys, "argv", ["nli"])
    assert command_line("eval.nli") == "tuneyard eval nli"
    monkeypatch.setattr(sys, "argv", ["nli", "--resume"])
    assert command_line("eval.nli", ("--resume",)) == "tuneyard eval nli"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("tuneyard da", "data"), ("tuneyard data co", "compile"), ("tuneyard eval nli --adap", "--adapter")],
)
def test_the_shell_completes_groups_commands_and_options(typed: str, offered: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    ended = tuneyard(env={**words, "_TUNEYARD_COMPLETE": "bash_complete"})
    assert f"plain,{offered}" in ended.stdout.splitlines()


def test_the_line_that_the_docs_have_for_completion_defines_it(tmp_path: Path) -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    line = next(one for one in page.split("`") if one.startswith("echo 'eval"))
    script = tmp_path / "tuneyard"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{ENTRY}\n")
    script.chmod(0o755)
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    then = f"{line}; source ~/.bashrc; complete -p tuneyard"
    ended = subprocess.run(["bash", "-c", then], capture_output=True, text=True, env=env)
    assert ended.returncode == 0 and "_tuneyard_completion" in ended.stdout, ended.stderr
