"""Click's errors as messages: Click's own words in English, and the same values in Chinese."""

import io
from pathlib import Path

import click
import pytest

from tuneyard.core.cli.click_errors import click_lines
from tuneyard.core.language.message import translated
from tuneyard.core.language.reader import CHINESE, in_language


@click.command()
@click.argument("name")
@click.option("--limit", type=int)
@click.option("--share", type=click.FloatRange(0, 1))
@click.option("--workers", type=click.IntRange(1))
@click.option("-t", "--to", type=click.Choice(["hub", "gguf"]))
@click.option("--file", type=click.Path(exists=True, dir_okay=False))
@click.option("--folder", type=click.Path(exists=True, file_okay=False))
@click.option("--force", is_flag=True)
def work(**_options: object) -> None:
    """Do some work."""


@click.command()
@click.option("--to", type=click.Choice(["hub", "gguf"]), required=True)
def send(**_options: object) -> None:
    """Send it."""


@click.group()
def tools() -> None:
    """Group two commands."""


def refused(command: click.Command, *words: str) -> click.ClickException:
    """The error of a command line."""
    with pytest.raises(click.ClickException) as raised:
        command.main(list(words), prog_name="tool", standalone_mode=False)
    return raised.value


MISTAKES = [
    ("a", "--limit", "x"),
    ("a", "--limit", "{x} 50 %"),
    ("a", "--limit", "'"),
    ("a", "--share", "2"),
    ("a", "--share", "much"),
    ("a", "--workers", "0"),
    ("a", "--workers", "two"),
    ("a", "-t", "hug"),
    ("a", "--file", "gone.csv"),
    ("a", "--file", "."),
    ("a", "--folder", "文件夹"),
    ("a", "--limit"),
    ("a", "--force=yes"),
    ("a", "b", "c"),
    ("a", "b"),
    (),
    ("a", "--forc"),
    ("a", "--fo"),
    ("a", "--zzz"),
]


@pytest.mark.parametrize("words", MISTAKES)
def test_the_english_lines_are_those_of_click(words: tuple[str, ...], working_folder: Path) -> None:
    assert working_folder.is_dir()
    error = refused(work, *words)
    shown_by_click = io.StringIO()
    error.show(shown_by_click)
    lines = click_lines(error, ["a slip"])  # a slip takes the place of a hint
    assert "\n".join(lines) == f"{shown_by_click.getvalue()}a slip"


def test_the_choices_of_a_missing_option_are_listed() -> None:
    error = refused(send)
    shown_by_click = io.StringIO()
    error.show(shown_by_click)
    assert "\n".join([*click_lines(error, ["a slip"])[:-1], ""]) == shown_by_click.getvalue()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("a", "--limit", "{x}"), "错误：--limit 的值无效：“{x}”不是整数。"),
        (("a", "-t", "hug"), "错误：'-t' / '--to' 的值无效：“hug”不在 'hub', 'gguf' 之中。"),
        (("a", "--file", "gone.csv"), "错误：--file 的值无效：文件“gone.csv”不存在。"),
        (("a", "--limit"), "错误：选项 --limit 需要一个值。"),
        ((), "错误：缺少参数 NAME。"),
        (("a", "b"), "错误：多余的参数（b）；见上面的用法：带空格的文字加引号，每多一个值就再写一次它的选项"),
        (
            ("a", "--temperature", "1"),
            "错误：没有选项“--temperature”。回答用贪心解码；--preset document 才采样。",
        ),
    ],
)
def test_a_chinese_reader_gets_the_same_values(words: tuple[str, ...], line: str) -> None:
    error = refused(work, *words)
    with in_language(CHINESE):
        assert line in [translated(each) for each in click_lines(error, [])]


def test_options_before_the_command_of_a_group_are_named() -> None:
    lines = click_lines(refused(tools, "--out", "x"), [])
    assert lines[-1] == "Error: No such option '--out'. Options come after the command: tool COMMAND --out …"


def test_a_group_without_a_command_prints_its_help_and_nothing_else_than_an_example() -> None:
    error = refused(tools)
    help_of_click = tools.get_help(click.Context(tools, info_name="tool"))
    assert click_lines(error, []) == [help_of_click]
    example = "my tool work a"
    tools.examples = (example,)  # type: ignore[attr-defined]  # as our groups have
    assert click_lines(refused(tools), []) == [help_of_click, f"Example: {example}"]
