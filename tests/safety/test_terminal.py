"""Control characters of users' texts reach no terminal: SECURITY.md, "Texts"."""

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.json_files import write_json, write_lines
from tests.unit.recipes.make import write_recipe
from tuneyard.core.text.terminal import visible, written
from tuneyard.eval.compare import __main__ as compare

BAD = "a\x1b]0;owned\x07b\x9bc\x7fd\re\x85f\u202eg\u2066h"
TURNS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""Characters that turn the direction of what follows."""
CONTROLS = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *TURNS} - {"\n", "\t"}
PROGRAM = "from tuneyard.__main__ import main; main()"


def printed_by(folder: Path, *words: str, program: str = PROGRAM) -> str:
    """Both streams of a command, as a terminal gets them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
    main, side = pty.openpty()
    command = [sys.executable, "-c", program, *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=side, stderr=side, stdin=side)
    os.close(side)
    output = b""
    while True:
        try:
            piece = os.read(main, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        output += piece
    process.wait()
    os.close(main)
    return output.decode("utf-8", errors="surrogateescape").replace("\r\n", "\n")  # as a terminal is set


def rows(folder: Path) -> list[str]:
    write_lines(folder / "a.jsonl", [{"question": f"{BAD}?", "answer": BAD, BAD: "x"}] * 3)
    return ["data", "check", "qa", "--source", "a.jsonl"]


def shown_row(folder: Path) -> list[str]:
    rows(folder)
    return ["data", "show", "qa", "--source", "a.jsonl"]


def file_name(folder: Path) -> list[str]:
    (folder / f"{BAD.replace('/', '')}.jsonl").write_text("{")
    return ["data", "check", "qa", "--source", "."]


def setting(folder: Path) -> list[str]:
    write_recipe(folder, **{"learning_rate": BAD, BAD: 1})
    return ["recipe", "check", "--quick", "r.yaml"]


def missing_model(folder: Path) -> list[str]:
    return ["adapter", "show", BAD.replace("\r", "")]


def option(folder: Path) -> list[str]:
    return ["eval", f"n{BAD}i", f"--mo{BAD}"]


def registry(folder: Path) -> list[str]:
    (folder / "dataset_info").mkdir()
    write_json(folder / "dataset_info/dataset_info.json", {BAD: {"file_name": BAD}})
    return ["data", "list"]


@pytest.mark.parametrize("make", [rows, shown_row, file_name, setting, missing_model, option, registry])
def test_a_terminal_gets_no_control_character(tmp_path: Path, make) -> None:
    output = printed_by(tmp_path, *make(tmp_path))
    assert output.strip() and "Traceback" not in output
    assert CONTROLS.isdisjoint(output), [line for line in output.splitlines() if CONTROLS & {*line}]


def test_json_on_stdout_keeps_its_values(tmp_path: Path) -> None:
    r"""JSON writes U+0085 as it is: it comes out as \u0085, which is the same text."""
    text = json.dumps({"text": BAD}, ensure_ascii=False)
    assert json.loads(visible(text)) == {"text": BAD}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\r 50%|█", "\r 50%|█"),  # a bar of tqdm
        ("\n\n", "\n\n"),
        ("\x1b[A\x1b[A", "\x1b[A\x1b[A"),  # which goes up to its line
        ("\r\x1b[Kscoring", "\r\x1b[Kscoring"),  # the demo's line
        ("\rnext: rm -rf\n", "\\u000dnext: rm -rf\n"),  # a line that pretends to be another one
        ("\r 50%\x1b[31m", "\r 50%\\u001b[31m"),  # the name of a bar
        ("\x1b[A spoof", "\\u001b[A spoof"),
        ("a\tb\nc", "a\tb\nc"),
    ],
)
def test_bars_stay_and_nothing_else(text: str, expected: str) -> None:
    assert written(text) == expected


def test_every_way_of_printing_goes_through_it(tmp_path: Path) -> None:
    program = f"""
import click, logging, sys, tqdm, warnings
from tuneyard.core.cli.run import run_command
@click.command()
def command():
    bad = {BAD!r}
    click.echo(bad); print(bad); print(bad, file=sys.stderr); sys.stdout.write(bad + "\\n")
    logging.warning(bad); warnings.warn(bad)
    for _ in tqdm.tqdm([1, 2], desc=bad.replace("\\r", ""), disable=False, leave=False): pass
    click.echo(click.style(bad, fg="red"))
    raise click.ClickException(bad)
run_command(command)
"""
    output = printed_by(tmp_path, program=program)
    assert output.count("owned") >= 8
    left = {*output} & CONTROLS - {"\r"}
    assert not left, left


def test_without_the_guard_they_reach_it(tmp_path: Path) -> None:
    output = printed_by(tmp_path, program=f"print({BAD!r})")
    assert CONTROLS & {*output}


FORGED = ("m\nerror: forged", "m\r\nerror: forged", "m\u2028error: forged", "m\nwarning: forged")
"""Names of models that would begin a line of ours."""


@pytest.mark.parametrize("name", FORGED)
def test_a_name_begins_no_line_of_ours(
    working_folder: Path, without_plots: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A warning is one line, and secrets in it are hidden."""
    monkeypatch.setenv("MY_PASSWORD", "open-sesame-9")
    named = f"{name} open-sesame-9"
    rows = [
        {"id": str(n), "gold": "yes", "prediction": "yes", "model": m}
        for n in range(9)
        for m in ("base", named)
    ]
    with Path("log.csv").open("w", newline="") as file:
        log = csv.DictWriter(file, rows[0])
        log.writeheader()
        log.writerows(rows)
    done = invoke(compare.cli, "log.csv", "--out", "out")
    assert done.exit_code == 0, done.output
    warnings = [line for line in done.stderr.split("\n") if line]
    assert any("forged" in line for line in warnings)
    for line in done.stderr.splitlines():
        assert not line.startswith(("error: forged", "warning: forged")), line
        assert "open-sesame" not in line
