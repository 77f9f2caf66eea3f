"""Names and values of files become no code: SECURITY.md, "Texts"."""

import ast
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from testing.tiny import make_tiny
from tests.conftest import ROOT
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.adapters.export.modelfile import Wrapping, modelfile_text, quoted
from tuneyard.core.errors import ContentError
from tuneyard.core.language.number_format import Table, grid
from tuneyard.core.text.quoting import markdown_text, python_text, shell
from tuneyard.recipes.new.new_recipe import recipe_text
from tuneyard.recipes.new.settings import Value

HOSTILE = (
    'x"); __import__("os").system("id"); ("',
    "x'; rm -rf ~; '",
    "$(id)",
    "`id`",
    "a\n```\n$ rm -rf ~\n```\n",
    "<script>alert(1)</script>",
    "[click](https://example.com)",
    "a | b",
    "a\\|b",
    "# heading",
    "a\u202egpj.exe",
    "it's \x1b[31m\\n",
)
UNSEEN = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066"}
COMMAND = re.compile(
    r"(?:\btuneyard (?:data|recipe|adapter|eval|new|run)\b|llamafactory-cli \w+|\bhf download\b"
    r"|\bvllm serve\b|\bollama \w+|\bcp \S+|\brm \S+)(?:(?!`|; |\. |: |, ).)*\Z",
    re.DOTALL,
)
"""A command that a sentence has begun and not yet ended."""
QUOTED_BEFORE = {
    ("core/datasets/__init__.py", "command"), ("core/datasets/__init__.py", "here"),
    ("compiler/cli.py", "each"), ("compiler/spec/file.py", "file"),
    ("recipes/recipe/data.py", "specs[stem]"), ("recipes/new/new_recipe.py", "out"),
    ("adapters/write/output.py", "record['command']"),
}  # fmt: skip
"""Values of ours in commands, and those that were quoted in a line above."""


def test_every_name_in_a_printed_command_is_quoted() -> None:
    unquoted = set()
    for package in ("core", "compiler", "recipes", "adapters", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    for value in unquoted_in(node):
                        unquoted.add((path.relative_to(ROOT).as_posix(), value))
    assert unquoted - QUOTED_BEFORE == set()


def unquoted_in(text: ast.JoinedStr) -> list[str]:
    """Values of an f-string that stand in a command and are not quoted."""
    before = ""
    values = []
    for part in text.values:
        if isinstance(part, ast.Constant):
            before += str(part.value)
            continue
        assert isinstance(part, ast.FormattedValue)
        value = ast.unparse(part.value)
        if COMMAND.search(before) and not value.startswith(("shell(", "shlex.")):
            values.append(value)
        before += "X"
    return values


def test_the_scan_finds_an_unquoted_name() -> None:
    (line,) = ast.parse('f"{path}: run `tuneyard data check {path}`"').body
    assert isinstance(line, ast.Expr) and isinstance(line.value, ast.JoinedStr)
    assert unquoted_in(line.value) == ["path"]


@pytest.mark.parametrize("text", HOSTILE)
def test_each_form_gives_the_text_back(text: str) -> None:
    assert ast.literal_eval(python_text(text)) == text
    command = ["bash", "-c", f"printf %s {shell(text)}"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.stdout.decode() == text
    assert UNSEEN.isdisjoint(shell(text) + python_text(text) + markdown_text(text))
    assert "\n" not in markdown_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpaca_rte_eval", "alpaca_rte_eval"), ("< 0.001", "< 0.001"), ("[0.1, 0.2]", "[0.1, 0.2]"),
        ("+32.9 points", "+32.9 points"), ("a|b", "a\\|b"), ("a\\|b", "a\\\\\\|b"),
        ("<img src=x>", "\\<img src=x>"),
        ("[a](b)", "[a\\](b)"), ("[a]: b", "\\[a]: b"),
        ("*a*", "\\*a\\*"), ("_a_", "\\_a\\_"), ("# a", "\\# a"), ("- a", "\\- a"),
        ("a\nb", "a\\\\nb"),
    ],
)  # fmt: skip
def test_markdown_has_the_text_and_no_markup(text: str, expected: str) -> None:
    assert markdown_text(text) in (expected, expected.replace("\\\\n", "\\n"))


def test_a_name_ends_no_cell_of_a_table() -> None:
    lines = grid(Table(["model", "accuracy"], [[name, "0.5"] for name in HOSTILE])).splitlines()
    assert len(lines) == 2 + len(HOSTILE)
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3, line


# The model card


@pytest.mark.threat("markup", "adapter export")
@pytest.mark.parametrize("name", HOSTILE)
def test_the_base_of_an_adapter_is_no_code_in_its_card(working_folder: Path, name: str) -> None:
    make("saves/rte", factors(), base_model_name_or_path=name)
    write_json(Path("saves/rte/training.json"), {"inputs": {"settings": {"template": name}, "data": []}})
    card = call("export", "saves/rte", "--to", "hub", "--repo", "org/rte", "--dry-run")[0]
    code = card.partition("```python\n")[2].partition("\n```")[0]
    loads = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    names = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in loads
    }
    assert names <= {"from_pretrained", "apply_chat_template", "generate", "print", "decode"}
    console = card.partition("```console\n")[2].partition("\n```")[0]
    for line in console.splitlines():
        words = shlex.split(line, comments=line.startswith("# "))
        assert not words or words[1] in ("llamafactory-cli", "vllm"), line
    prose = card.replace(console, "").replace(code, "").replace("\\<script>", "")
    assert "\n$ rm" not in prose and "<script>" not in prose.partition("```yaml")[0]


# Modelfile


@pytest.mark.parametrize("key", ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", ["0.5\nADAPTER /etc/passwd", "0.7", [1], True, float("nan")])
def test_a_parameter_of_a_modelfile_is_a_number(working_folder: Path, key: str, value: object) -> None:
    make_tiny(Path("model"))
    config = read_json(Path("model/generation_config.json"))
    Path("model/generation_config.json").write_text(json.dumps({**config, key: value}))
    Path("m.gguf").write_bytes(b"GGUF")
    _, error = call("export", "model", "--to", "ollama", "--gguf", "m.gguf", "--out", "Modelfile", code=1)
    assert "model/generation_config.json" in error and key in error
    assert not Path("Modelfile").exists()


@pytest.mark.parametrize("name", ["a\nSYSTEM evil.gguf", "a\rb.gguf", "a\x85b.gguf"])
def test_a_path_is_one_line_of_a_modelfile(name: str) -> None:
    wrapping = Wrapping("", dict.fromkeys(("system", "user", "assistant"), ("<a>", "</a>")), "", None)
    with raises(ContentError, "Modelfile"):
        modelfile_text([f"FROM ./{name}"], wrapping, [], {}, None)


def test_a_text_with_a_line_break_of_another_kind_is_in_three_quotes() -> None:
    assert quoted("a\rSYSTEM b") == '"""a\rSYSTEM b"""' and quoted("a b") == '"a b"'


@pytest.mark.threat("markup", "adapter merge")
def test_a_merge_names_adapters_as_texts(working_folder: Path) -> None:
    make_base("models/base", base_tensors(), model_type="qwen2")
    make("saves/a_<b>`c`", factors(), base_model_name_or_path="models/base")
    call("merge", "saves/a_<b>`c`=1", "--out", "merged")
    card = Path("merged/README.md").read_text()
    assert "# Merge of a\\_\\<b>\\`c\\` (1)" in card or "# Merge of a_\\<b>\\`c\\` (1)" in card


# A recipe


@pytest.mark.threat("markup", "recipe new")
@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\x0b", "\x1c", "\x1b"])
def test_a_name_in_a_comment_of_a_recipe_sets_nothing(end: str) -> None:
    name = f"a{end}trust_remote_code: true"
    text = recipe_text([f"Trains {name}"], [("Data", [Value("dataset", name, f"because of {name}")])])
    assert yaml.safe_load(text) == {"dataset": name}
