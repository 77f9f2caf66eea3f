"""Twice the file takes twice the time, not four times: SECURITY.md, "Texts".

Each text or file here took a minute or longer when the time grew with the square of its size.
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from click.testing import CliRunner

from tests.json_files import write_json
from tests.messages import raises
from tests.unit.adapters.make import make
from tuneyard.adapters.model.store import open_adapter
from tuneyard.cli import cli
from tuneyard.compiler.chat.forms import glaive, hermes
from tuneyard.compiler.chat.message_forms import common_messages
from tuneyard.compiler.chat.message_rows import joined_messages
from tuneyard.compiler.read import read
from tuneyard.compiler.rows import Fields
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.core.documents import parse_yaml
from tuneyard.core.errors import ContentError, nearest_name
from tuneyard.core.text.secrets import HIDDEN, hide_secrets
from tuneyard.core.training.training_run import training_data
from tuneyard.eval.defect.reports import parse_report
from tuneyard.eval.figures.answers import parse_word
from tuneyard.eval.report.plots import kinds_chart
from tuneyard.eval.runs.find import parse_source, read_scored_runs
from tuneyard.eval.runs.scored_run import ScoredRun
from tuneyard.eval.tools.call_forms import read_answer
from tuneyard.recipes.llamafactory.config_sizes import check_sizes

SECONDS = 8
N = 300_000


@contextmanager
def within(seconds: float = SECONDS) -> Iterator[None]:
    """Fail once this process has computed for so long. `re` lets the signal through."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        pytest.fail(f"more than {seconds:g} s of computing")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def rows_of(path: Path, text: str, *form: str) -> list[Fields]:
    """The rows of a file with this text."""
    path.write_text(text, encoding="utf-8")
    rows = []
    for batch in read(path, str(path), Source(rows={"": form} if form else {}), Problems()):
        rows += [batch.row(number) for number in range(len(batch.lines))]
    return rows


@pytest.mark.parametrize(
    "text",
    [
        "# " + " " * N + "x?y",
        "# a?" + " " * N + "x",
        "# " + "?" * N + "x",
        "User" + " " * N + "x:",
        "User1" + "1" * N + "x:",
        "User: a\nAssistant: b\n" + "more\n" * N,
        "#" * N,
    ],
)
def test_dialogues_in_markdown(tmp_path: Path, text: str) -> None:
    with within():
        rows_of(tmp_path / "a.md", f"User: hi\n{text}", "turns")


CHAT = "12/03/2024, 21:15 - Anna: hi "


@pytest.mark.parametrize(
    "text", [" " * N + "x", "<edited" * N, "<" * N, "\u200e<a" * N, "<" + "edited" * N, "\n" + "more\n" * N]
)
def test_exported_chats(tmp_path: Path, text: str) -> None:
    with within():
        rows_of(tmp_path / "a.txt", f"{CHAT}{text}\n{CHAT}", "chat")


def test_further_lines_stay_below_their_message(tmp_path: Path) -> None:
    text = f"{CHAT}\nmore\n\nlast\n{CHAT}\n"
    assert [row["text"] for row in rows_of(tmp_path / "a.txt", text, "chat")] == ["hi \nmore\n\nlast", "hi "]
    (row,) = rows_of(tmp_path / "a.md", "User: a\n\nb\nAssistant:\nc\nd\n", "turns")
    assert [turn["content"] for turn in row["messages"]] == ["a\n\nb", "c\nd"]  # type: ignore[attr-defined]


BLANKS = " \n" * N
ROLES = {"user": "user", "assistant": "assistant"}
TEXTS: dict[str, tuple[Callable[[str], object], str]] = {
    "ChatML": (lambda text: common_messages(text, ROLES), f"<|im_start|>user\na{BLANKS}b"),
    "headed turns": (lambda text: common_messages(text, ROLES), f"### Human: a{BLANKS}b### Assistant: c"),
    "a turn in lines": (lambda text: common_messages(text, ROLES), f"User: a\nUser{' ' * N}x:"),
    "Hermes": (lambda text: hermes.without_tags({"value": text}), f"<tool_call>a{BLANKS}b"),
    "blanks before Hermes": (lambda text: hermes.without_tags({"value": text}), f"a{BLANKS}b"),
    "Glaive's arguments": (
        lambda text: hermes.without_tags({"value": text}),
        "<functioncall> {" + '"arguments": \'{' * N,
    ),
    "Glaive": (lambda text: glaive.with_messages({"chat": text, "system": "SYSTEM: "}), f"USER: a{BLANKS}b"),
    "web tokens": (hide_secrets, "-eyJ" * N),
    "a key": (hide_secrets, "hf_" * N),
    "judgement": (parse_report, "\n" * N),
    "judgement in stars": (parse_report, "*" * N),
    "quotes": (parse_report, "> \n" * N),
    "negated labels": (lambda text: parse_word(text, ["yes", "no"]), "maybe yes " * 60_000),
    "blanks of a call": (lambda text: read_answer(text), "\n" * N + "x"),
    "lines before JSON": (lambda text: read_answer(text), "\n" * N + "{"),
    "Python's call": (lambda text: read_answer(text), f"<|tool_call_start|>[f({BLANKS}"),
    "a pair": (lambda text: read_answer(text), f"<tool_call>{' ' * N}a{' ' * N}b"),
    "functools": (lambda text: read_answer(text), "x " + "functools[" * 60_000),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str) -> None:
    function, text = TEXTS[name]
    with within():
        function(text)


def test_a_web_token_is_hidden() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
    assert hide_secrets(f"a-{token} b") == f"a-{HIDDEN} b"


def test_hermes_reads_objects_in_single_quotes() -> None:
    turn = hermes.without_tags(
        {"from": "gpt", "value": '<functioncall> {"name": "f", "arguments": \'{"a": 1}\'} '}
    )
    assert turn["tool_calls"] == [{"name": "f", "arguments": {"a": 1}}]


def test_cards(tmp_path: Path) -> None:
    head = "This model is a fine-tuned version of base on "
    (tmp_path / "README.md").write_text(head * 20_000)
    with within():
        assert training_data(tmp_path) == []
    (tmp_path / "README.md").write_text(f"{head}the rte and the mnli datasets.\n")
    assert training_data(tmp_path) == [{"dataset": "rte"}, {"dataset": "mnli"}]


def test_turns_of_one_speaker() -> None:
    turns = [{"role": "user", "content": "x" * 40, f"key {number}": 1} for number in range(20_000)]
    with within():
        (message,) = joined_messages(turns)
    assert len(message) == 2 + 20_000
    assert message["content"] == "\n\n".join(["x" * 40] * 20_000)
    assert turns[0] == {"role": "user", "content": "x" * 40, "key 0": 1}


def invoke(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What a command prints in a folder, an error included."""
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli, words)
    return f"{result.output}{result.exception or ''}"


COLUMNS: dict[str, Callable[[int], object]] = {
    "lists of objects": lambda _: [{"a": 1}, {"b": 2}],
    "suggestions": lambda number: f"text number {number}",
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_many_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    names = [f"c{number}{'_suggestion' * (kind == 'suggestions')}" for number in range(8_000)]
    rows = [
        {"text": f"hello {row} my friend", "label": "ab"[row], **{name: COLUMNS[kind](row) for name in names}}
        for row in range(2)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--text", "text", "--label", "label", "--out", "s.yaml")
    with within():
        assert "result: s.yaml" in invoke(tmp_path, monkeypatch, "data", "init", "a.jsonl", *words)


@pytest.mark.slow
def test_too_many_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many names as rows have values: these are data."""
    (tmp_path / "a.jsonl").write_text(json.dumps({f"id {number}": 1 for number in range(210_000)}))
    with within(2 * SECONDS):
        message = invoke(tmp_path, monkeypatch, "data", "init", "a.jsonl")
    assert "a.jsonl:1: found more than 200,000 columns" in message


def test_many_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list that may have the rows is one more reading of the file."""
    write_json(tmp_path / "a.json", {f"list {number}": [{"a": number}] for number in range(1_500)})
    with within():
        message = invoke(tmp_path, monkeypatch, "data", "init", "a.json", "--text", "text")
    assert "a.json: found 1,500 lists of objects" in message
    assert "20 longest" in message


def test_names_are_compared_while_they_are_short() -> None:
    with within():
        assert nearest_name("a" * 50_000, ["ab" * 25_000]) == ""
        assert nearest_name("ruler", [f"x{number}" for number in range(300_000)]) == ""
    assert nearest_name("ruel", ["rule", "role"]) == "rule"


SIZES = {
    "num_hidden_layers: 30000000": {"num_hidden_layers": 30_000_000},
    "num_hidden_layers: 10^100": {"num_hidden_layers": 10**100},
    "n_layer: 10000000": {"n_layer": 10_000_000},
    "num_local_experts: 100000000": {"num_local_experts": 100_000_000},
    "text_config.n_routed_experts: 1000000": {"text_config": {"n_routed_experts": 1_000_000}},
    "vision_config.depth: 5000000": {"vision_config": {"depth": 5_000_000}},
    "num_labels: 1000000000": {"num_labels": 1_000_000_000},
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_no_model_has(tmp_path: Path, case: str) -> None:
    write_json(tmp_path / "config.json", {"model_type": "qwen2", **SIZES[case]})
    with raises(ContentError, "config.json", case.partition(":")[0], "100,000"):
        check_sizes(tmp_path / "config.json")


def test_layers_without_tensors(tmp_path: Path) -> None:
    """1,000 layers are few enough to be laid out; the weights have tensors for less than 10."""
    config = tmp_path / "config.json"
    write_json(config, {"num_hidden_layers": 1000, "num_experts": 1000})
    check_sizes(config)
    names = [f"layers.{number}.weight" for number in range(9)]
    write_json(
        tmp_path / "model.safetensors.index.json", {"weight_map": dict.fromkeys(names, "a.safetensors")}
    )
    with raises(ContentError, "config.json", "num_hidden_layers", "1,000", 9):
        check_sizes(config)
    write_json(config, {"num_hidden_layers": 9, "num_experts": 1000})
    check_sizes(config)


def test_many_targets(tmp_path: Path) -> None:
    """The ends of each module are looked up in `target_modules`, not compared with each name: it took 5 s."""
    names = [f"x{number}" for number in range(8_000)]
    factor = np.ones((1, 1), np.float32)
    folder = make(
        tmp_path / "a", {f"h.0.{name}": (factor, factor) for name in names}, r=1, target_modules=names
    )
    with within():
        assert len(open_adapter(folder).modules) == 8_000


NAMES = [f"m{number}" for number in range(100_000)]
PATTERNS: dict[str, dict[str, object]] = {
    "rank_pattern": {"rank_pattern": dict.fromkeys(NAMES, 2)},
    "rank_pattern of paths": {"rank_pattern": {f"layers.{name}.q": 2 for name in NAMES}},
    "alpha_pattern": {"alpha_pattern": dict.fromkeys(NAMES, 2)},
    "exclude_modules": {"exclude_modules": NAMES},
    "layers_pattern": {"layers_pattern": [*NAMES, "layers"], "layers_to_transform": list(range(100_000))},
}


@pytest.mark.parametrize("field", PATTERNS)
def test_many_patterns(tmp_path: Path, field: str) -> None:
    """PEFT tries one pattern after another; it took 5 s, and the message was about (a+)+."""
    factor = np.ones((1, 1), np.float32)
    modules = {f"model.layers.{number}.q": (factor, factor) for number in range(400)}
    folder = make(tmp_path / "a", modules, r=1, target_modules=["q"], **PATTERNS[field])
    with within():
        assert len(open_adapter(folder).modules) == 400


def test_many_names_that_are_not_there(tmp_path: Path) -> None:
    factor = np.ones((1, 1), np.float32)
    biases = {f"base_model.model.x.{number}.bias": factor[0] for number in range(3_000)}
    folder = make(
        tmp_path / "a", {"q": (factor, factor)}, extra=biases, r=1, bias="all",
        target_modules=["q", *NAMES], exclude_modules=[f"{name}x" for name in NAMES], modules_to_save=NAMES,
    )  # fmt: skip
    with within(), raises(ContentError, "m0", "199995"):
        open_adapter(folder)


def test_many_expressions(tmp_path: Path) -> None:
    """Each of them is tried on each module."""
    factor = np.ones((1, 1), np.float32)
    folder = make(
        tmp_path / "a", {"q": (factor, factor)}, r=1, rank_pattern={f"{name}|x": 2 for name in NAMES}
    )
    with within(), raises(ContentError, "adapter_config.json", "rank_pattern", "100,000", "1,000"):
        open_adapter(folder)


def test_long_names(tmp_path: Path) -> None:
    """A path of 100,000 parts has as many ends: 10 GB."""
    factor = np.ones((1, 1), np.float32)
    folder = make(tmp_path / "a", {"a." * 100_000 + "q": (factor, factor)}, r=1)
    with within(), raises(ContentError, "adapter_model.safetensors", "1,000"):
        open_adapter(folder)
    folder = make(tmp_path / "b", {"q": (factor, factor)}, r=1, target_modules=["q", "a." * 100_000 + "q"])
    with within(), raises(ContentError, "adapter_config.json", "target_modules", "1,000"):
        open_adapter(folder)


def test_many_types() -> None:
    """150 types have a bar, of 681 for which a picture has room. All rows were copied for each of them."""
    count = 60_000
    correct = [row % 3 == 0 for row in range(count)]
    records = [{"type": f"type {row % 30_000}"} for row in range(count)]
    texts = ["a"] * count
    runs = [ScoredRun(name, "d", "s", texts, texts, texts, correct, records=records) for name in ("x", "y")]
    with within():
        chart = kinds_chart(runs, "type")
    assert (len(chart.places), len(chart.series)) == (150, 2)
    assert "59,702" in chart.places[-1]
    assert "149" in chart.title and "30,000" in chart.title


def test_many_models(tmp_path: Path) -> None:
    """A log may name a model in each row: a run was compared with all runs before it."""
    lines = [{"id": 1, "gold": "a", "prediction": "b", "model": f"model {row}"} for row in range(30_000)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with within():
        runs, _ = read_scored_runs([parse_source(str(tmp_path / "log.jsonl"))])
    assert [len(by_model) for by_model in runs.values()] == [30_000]


@pytest.mark.parametrize(
    "number", ["1" + "0" * 100_000, "-" + "9" * 5_000, "0x" + "f" * 100_000, "0b" + "1" * 2_000]
)
def test_numbers_of_many_digits(number: str) -> None:
    """Python prints no number above 4,300 digits, and takes a hexadecimal one of any length."""
    with within(), raises(ContentError, "a.yaml:2", "1,000", f"{len(number):,}"):
        parse_yaml(f"a: 1\nb: [{number}]\n", "a.yaml")


def test_a_document_of_one_large_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix for a .json is not to name it .json."""
    large = json.dumps({f"key {number}": number for number in range(900_000)})
    (tmp_path / "a.json").write_text(large)
    (tmp_path / "a.jsonl").write_text(large)
    with within():
        message = invoke(tmp_path, monkeypatch, "data", "init", "a.json")
        assert "a.json:1: E014" in message and "name it .json" not in message
        assert "name it .json" in invoke(tmp_path, monkeypatch, "data", "init", "a.jsonl")
