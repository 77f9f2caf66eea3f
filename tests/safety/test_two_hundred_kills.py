"""Every command that writes is killed at its steps on the disk, and run again. SECURITY.md, "Interruptions".

After a kill OUT is the old one or the new one, or one that the same command goes on with. Run again, it
ends with the bytes of an unbroken run. Nothing hidden is left then, and no other file has changed.
"""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from testing.forks import Forks, RunningFork
from testing.tiny import make_tiny, write_adapter
from tests.cli.test_ab import fill
from tests.conftest import ROOT
from tests.exams import HEAD, ROW, write_exam
from tests.json_files import write_json, write_lines
from tuneyard.cli import cli

pytestmark = pytest.mark.slow
SEED = 73
ATTENTION = {
    f"model.layers.{layer}.self_attn.{name}_proj": (outputs, 64)
    for layer in (0, 1)
    for name, outputs in (("q", 64), ("v", 32))
}
Contents = dict[str, bytes]
"""Files of a folder with their bytes, folders with a slash, links with their targets."""
FILL = "a rater fills in the sheet"
USERS = {
    "notes.txt": "mine",
    "data/.dataset_info.json.1a2b3c4d": "an editor's",
    "data/.tuneyard-0123456789abcdef": "mine, too",
    "data/mine/rows.json": "[]",
}
"""Files of the user, next to what commands write."""


@dataclass(frozen=True)
class Case:
    """A command to kill in so many steps: its words, what it writes, and the commands that ran before it.

    Each path of `out` is replaced as a whole. With `resumes` its files are written one after the other.
    """

    words: str
    out: tuple[str, ...]
    before: tuple[str, ...] = ()
    kills: int = 6
    resumes: bool = False


MODEL = "--model ../inputs/model"
LEFT = "--adapter l=../inputs/l"
BOTH = f"{LEFT} --adapter r=../inputs/r"
ROWS = "--data ../inputs/rows.json"
SHORT = "--max-new-tokens 2"
COMPILE = "data compile rte --source train=../inputs/rte.jsonl --out data"
VIEW = f"data view alpaca_rte_train {MODEL} --dataset-dir data --out page.html"
NLI = f"eval nli {MODEL} {LEFT} {ROWS} --out scored --resume"
MERGE = "adapter merge ../inputs/l=0.5 ../inputs/r=0.5 --out merged"
FUSE = "adapter fuse ../inputs/l --base ../inputs/model --max-shard-size 1MB --dtype fp32 --out fused"
GGUF = "adapter export ./fused --to gguf --out model.gguf"
OLLAMA = "adapter export --to ollama --out ollama/Modelfile"
COMPARE = "eval compare scored --out compared"
REGISTRY = "data/dataset_info.json"
RTE = ("data/rte", REGISTRY)


def scoring(command: str, words: str, kills: int = 4) -> Case:
    """A command that scores the tiny model and resumes."""
    line = f"eval {command} {MODEL} {words} --out scored --resume"
    return Case(line, ("scored",), kills=kills, resumes=True)


CASES = {
    "data compile": Case(COMPILE, RTE, kills=10),
    "data compile, again": Case(f"{COMPILE} --limit 5 --force", RTE, (COMPILE,), kills=10),
    "data compile, a mixture": Case("data compile ../inputs/mix.yaml --out data", ("data/mix", REGISTRY)),
    "data compile, pictures": Case(
        "data compile media --source ../inputs/media --out data", ("data/media", REGISTRY)
    ),
    "data remove": Case("data remove rte --out data", RTE, (COMPILE,), kills=10),
    "data init": Case("data init ../inputs/rte.jsonl --out specs/mine.yaml", ("specs/mine.yaml",)),
    "data view": Case(VIEW, ("page.html",), (COMPILE,)),
    "data view, again": Case(VIEW, ("page.html",), (COMPILE, f"{VIEW} --rows 3")),
    "recipe new": Case(
        f"recipe new --dataset alpaca_rte_train {MODEL} --dataset-dir data --out r.yaml",
        ("r.yaml",),
        (COMPILE,),
    ),
    "adapter merge": Case(MERGE, ("merged",), kills=8),
    "adapter merge, again": Case(
        f"{MERGE} --force", ("merged",), ("adapter merge ../inputs/l=1 --out merged",), kills=10
    ),
    "adapter merge, svd": Case(f"{MERGE} --method svd --rank 2", ("merged",)),
    "adapter fuse": Case(FUSE, ("fused",), kills=12),
    "adapter fuse, again": Case(
        f"{FUSE} --force", ("fused",), (FUSE.replace("inputs/l", "inputs/r"),), kills=10
    ),
    "adapter extract": Case(
        "adapter extract ../inputs/tuned --base ../inputs/model --rank 4 --out extracted", ("extracted",)
    ),
    "adapter rename": Case("adapter rename ../inputs/named --out renamed", ("renamed",)),
    "adapter export, gguf": Case(GGUF, ("model.gguf",), (FUSE,), kills=8),
    "adapter export, gguf again": Case(f"{GGUF} --type q8_0 --force", ("model.gguf",), (FUSE, GGUF)),
    "adapter export, ollama": Case(f"{OLLAMA} ./fused", ("ollama",), (FUSE,), resumes=True),
    "adapter export, ollama with a base": Case(f"{OLLAMA} ../inputs/l", ("ollama",), kills=10, resumes=True),
    "adapter export, ollama adapter": Case(
        f"{OLLAMA} ../inputs/l --from tiny --base ../inputs/model", ("ollama",), resumes=True
    ),
    "eval nli": Case(NLI, ("scored",), kills=12, resumes=True),
    "eval qa": scoring("qa", f"{LEFT} {ROWS} {SHORT}"),
    "eval text": scoring("text", f"{ROWS} {SHORT} --token-losses"),
    "eval cmmlu": scoring("cmmlu", "--data ../inputs/exam --shots 1"),
    "eval defect": scoring("defect", f"--data ../inputs/reports.jsonl {SHORT}"),
    "eval dialogue": scoring("dialogue", f"--data ../inputs/talks.jsonl {SHORT}"),
    "eval preference": scoring("preference", "--data ../inputs/pairs.jsonl"),
    "eval tools": scoring("tools", f"--template qwen --data ../inputs/calls.jsonl {SHORT}"),
    "eval ab ask": scoring("ab ask", f"{LEFT} {ROWS} {SHORT}", kills=6),
    "eval suite": Case(
        f"eval suite ../inputs/suite.yaml {MODEL} --out scored --resume", ("scored",), kills=8, resumes=True
    ),
    "eval sweep": scoring("sweep", f"{BOTH} {ROWS} --grid 0,1", kills=10),
    "eval compare": Case(COMPARE, ("compared",), (NLI,), kills=10, resumes=True),
    "eval compare, again": Case(
        f"{COMPARE} --errors 0 --force", ("compared",), (NLI, COMPARE), kills=10, resumes=True
    ),
    "eval ab tally": Case(
        "eval ab tally sheet/anna.csv --out tally",
        ("tally/tally.json", "tally/tally.md"),
        (f"eval ab ask {MODEL} {LEFT} {ROWS} {SHORT} --out sheet", FILL),
    ),
    "eval prove": Case(
        f"eval prove {MODEL} {LEFT} --fused ./fused {ROWS} --limit 2 {SHORT} --out proof",
        ("proof/prove.json", "proof/prove.md"),
        (FUSE,),
    ),
}
KILLED_ELSEWHERE = {
    "demo": "tests/integration/conftest.py",
    "recipe sweep": "tests/integration/test_recipes_sweep_pool.py",
    "recipe train": "tests/integration/test_recipes_train.py",
    "data restore": "tests/unit/compiler/test_kept.py",
}
READ_ONLY = ("data check", "data diff", "data list", "data stats", "data verify")
"""Commands whose --out is the folder of datasets that they read."""
WITHOUT_TEST = ("adapter serve", "recipe base")
"""They wait for a server, or for a download of 93 MB; their files are staged as those of `adapter fuse`."""


def contents(folder: Path) -> Contents:
    """Everything below a folder, hidden files too, but for earlier compiles: test_kept.py has those."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith("data/.kept"):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink()).encode()
        elif path.is_dir():
            found[f"{name}/"] = b""
        else:
            found[name] = path.read_bytes()
    return found


def below(everything: Contents, place: str) -> Contents:
    """The files that are at a path, or in the folder there."""
    return {
        name: content
        for name, content in everything.items()
        if not name.endswith("/") and (name == place or name.startswith(f"{place}/"))
    }


def is_hidden(name: str) -> bool:
    """True for a hidden file, and for one in a hidden folder."""
    return any(part.startswith(".") for part in name.split("/"))


def write_models(folder: Path) -> None:
    """A tiny model, a full fine-tune of it, two adapters, and one whose tensors have other names."""
    make_tiny(folder / "model")
    make_tiny(folder / "tuned", seed=1)
    for seed, name in enumerate("lr"):
        base = {"base_model_name_or_path": str(folder / "model")}
        write_adapter(folder / name, shapes=ATTENTION, seed=seed, **base)
    named = {f"base_model.model.model.{name}": shape for name, shape in ATTENTION.items()}
    write_adapter(folder / "named", shapes=named)


def write_sources(folder: Path) -> None:
    """Raw files, and specs of a single dataset and of a mixture."""
    pairs = [{"idx": n, "sentence1": f"A man {n}.", "sentence2": "He.", "label": n % 2} for n in range(12)]
    write_lines(folder / "rte.jsonl", pairs)
    spec = yaml.safe_load((ROOT / "compiler/specs/rte.yaml").read_text(encoding="utf-8"))
    write_json(folder / "rte.yaml", {**spec, "source": {"files": {"train": "rte.jsonl"}}})
    shutil.copytree(ROOT / "tests/examples/good/media", folder / "media")
    shutil.copytree(ROOT / "tests/examples/good/mix-small", folder / "mix")
    parts = {
        "reports": {"share": 0.5, "source": {"files": "mix/reports.jsonl"}, "as": "reports"},
        "pubmed": {"share": 0.5, "source": {"files": "mix/pubmed.jsonl"}, "as": "pubmedqa"},
    }
    written = {"dataset": "mix", "file": "mix.jsonl", "format": "alpaca"}
    mixture = {"total": 8, "shuffle": 1, "parts": parts}
    spec = {"about": "A mixture", "mix": mixture, "write": [written]}
    write_json(folder / "mix.yaml", spec)


def write_questions(folder: Path) -> None:
    """Rows for each scoring command, and a suite of two steps."""
    rows = [{"instruction": f"Is {n} even?", "output": "no" if n % 2 else "yes"} for n in range(8)]
    write_json(folder / "rows.json", rows)
    write_lines(folder / "pairs.jsonl", [{"instruction": "2 + 2?", "chosen": "4", "rejected": "5"}] * 2)
    talk = [{"from": ("human", "gpt")[n % 2], "value": f"word {n}"} for n in range(4)]
    write_lines(folder / "talks.jsonl", [{"conversations": talk}] * 2)
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    tools = json.dumps([{"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}])
    question = {"from": "human", "value": "Add 1."}
    write_lines(folder / "calls.jsonl", [{"conversations": [question, call], "tools": tools}] * 2)
    asked = {"role": "user", "content": "任务：判断\n\n事件：\n甲\n\n输出格式：\n判断:<组件>"}
    answer = {"role": "assistant", "content": "判断:主机\n\n原因：见上"}
    write_lines(folder / "reports.jsonl", [{"subtype": "断线", "text": [asked, answer]}])
    write_exam(folder / "exam", test=HEAD + ROW * 3)
    steps = {
        "first": {"command": "nli", "data": "rows.json", "choices": "yes,no"},
        "second": {"command": "text", "data": "rows.json", "max-new-tokens": 2},
    }
    write_json(folder / "suite.yaml", steps)


@dataclass(frozen=True)
class Home:
    """Folders: `inputs`, `work` in which commands run, `start` from which it is made anew, `temporary`."""

    folder: Path
    forks: Forks

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    @property
    def printed(self) -> str:
        """What the last command printed."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def start(self, words: str, step: int = 0) -> RunningFork:
        """Start a command, which is killed at a step. 0: it is not."""
        report = self.folder / "steps"
        command = [step, self.work, self.temporary, report, "tuneyard", *words.split()]
        with (self.folder / "log").open("wb") as log:
            return self.forks.start("tests.kills", *command, out=log.fileno(), error=log.fileno())

    def run(self, words: str) -> int:
        """Run a command to its end. Result: the number of its steps."""
        code = self.start(words).wait()
        assert code == 0, f"{words}: exit {code}\n{self.printed}"
        return int((self.folder / "steps").read_text())

    def prepare(self, case: Case) -> None:
        """Run what comes before a case, and keep the folder as it is then."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for words in case.before:
            if words == FILL:
                fill(self.work / "sheet", "anna.csv", {"base": 2, "l": 5})
            else:
                self.run(words)
        for name, text in USERS.items():
            (self.work / name).parent.mkdir(exist_ok=True)
            (self.work / name).write_text(text)
        shutil.rmtree(self.folder / "start", ignore_errors=True)
        shutil.copytree(self.work, self.folder / "start", symlinks=True)

    def reset(self) -> None:
        """Bring back what was there before the case."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "start", self.work, symlinks=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Home]:
    """The folders, with the inputs, which no command changes."""
    folder = tmp_path_factory.mktemp("kills")
    for name in ("inputs", "temporary"):
        (folder / name).mkdir()
    inputs = folder / "inputs"
    write_models(inputs)
    write_sources(inputs)
    write_questions(inputs)
    before = contents(inputs)
    yield Home(folder, forks)
    assert contents(inputs) == before


def kill_at_a_time(home: Home, words: str, seconds: float) -> None:
    """Kill a command, with the processes that it started, after some time. It may have ended before."""
    running = home.start(words)
    time.sleep(seconds)
    if running.poll() is None:
        try:
            os.killpg(running.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            running.send_signal(signal.SIGKILL)
        running.wait()


def check_state(case: Case, found: Contents, old: Contents, new: Contents) -> None:
    """Check what a killed command left: the old OUT or the new one, and every other file as it was."""
    visible = {name: content for name, content in found.items() if name in old or not is_hidden(name)}
    for place in case.out:
        there, before, after = (below(everything, place) for everything in (visible, old, new))
        if case.resumes:
            check_unfinished(there, before, after)
        else:
            assert there in (before, after), place
    written = {name for place in case.out for name in (*below(visible, place), *below(old, place))}
    others = {name: content for name, content in visible.items() if name not in written}
    new_folders = {name for name in others if name.endswith("/") and name not in old}
    expected = {name: content for name, content in old.items() if name not in written}
    for name in (*new_folders, *(f"{place}/" for place in case.out)):
        others.pop(name, None)
        expected.pop(name, None)
    assert others == expected


def check_unfinished(there: Contents, before: Contents, after: Contents) -> None:
    """Check the files of a command that resumes: all are of one run, and a log may end early."""
    unlike = {name for name, content in there.items() if content != before.get(name)}
    for name in unlike:
        content, whole = there[name], after.get(name, b"")
        is_begun = name.endswith(".jsonl") and whole.startswith(content)
        if name.endswith("/run.json"):  # the hashes of its files come at the end
            record, ended = json.loads(content), json.loads(whole)
            is_begun = record.pop("outputs", {}).items() <= ended.pop("outputs", {}).items()
            is_begun = is_begun and record == ended
        assert content == whole or is_begun, name
    if unlike:
        left = {name for name in there if name not in unlike and there[name] != after.get(name)}
        assert not left, left


@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_leaves_the_old_or_the_new_and_ends_as_an_unbroken_one(home, name) -> None:
    case = CASES[name]
    home.prepare(case)
    old = contents(home.work)
    began = time.perf_counter()
    steps = home.run(case.words)
    seconds = time.perf_counter() - began
    new = contents(home.work)
    assert contents(home.temporary) == {} and {name for name in new if is_hidden(name)} <= old.keys()
    draw = random.Random(f"{SEED} {name}")
    for step in [*sorted(draw.sample(range(1, steps + 1), case.kills)), None]:
        home.reset()
        if step is None:
            kill_at_a_time(home, case.words, draw.random() * seconds)
        else:
            assert home.start(case.words, step).wait() == -signal.SIGKILL, home.printed
        found = contents(home.work)
        check_state(case, found, old, new)
        code = home.start(case.words).wait()
        refused = code == 2 and all(below(found, place) == below(new, place) for place in case.out)
        assert code == 0 or refused, f"killed at step {step}, then exit {code}: {home.printed}"
        assert contents(home.work) == new, f"killed at step {step}"
        assert contents(home.temporary) == {}, f"killed at step {step}"


def test_there_are_two_hundred_kills_over_all_commands_that_write() -> None:
    assert sum(case.kills for case in CASES.values()) >= 200
    writing = set()
    for words, command in commands(cli, click.Context(cli)):
        if any("--out" in parameter.opts for parameter in command.params):
            writing.add(words)
    killed = {name.partition(",")[0] for name in CASES}
    elsewhere = {*KILLED_ELSEWHERE, *READ_ONLY, *WITHOUT_TEST}
    assert writing <= killed | elsewhere and not killed & elsewhere


def commands(
    command: click.Command, context: click.Context, *words: str
) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands below one, each with its words."""
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    for name in command.list_commands(context):
        below_it = command.get_command(context, name)
        assert below_it is not None
        yield from commands(below_it, click.Context(below_it, parent=context, info_name=name), *words, name)
