"""A scoring command of another package: the example of docs/extending.md, with an option of its own."""

from pathlib import Path

import pytest

from tests.cli.scoring import ask, call, even_rows, invoke, results
from tests.json_files import write_json
from tests.messages import raises
from tests.plug_ins import documented, installing
from tests.serving import answering
from tuneyard.core import plugins
from tuneyard.core.errors import RequestError
from tuneyard.eval import suite
from tuneyard.eval.__main__ import GROUP, cli, plugin_commands
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.scoring.command import ScoringCommand

ROWS = even_rows(4)
ANSWERS = {"Is 0 even?": "Yes.", "Is 1 even?": "I say no", "Is 2 even?": "yes", "Is 3 even?": "yes"}


@pytest.fixture
def contains(tmp_path, monkeypatch):
    """Install the example as a distribution; the command."""
    with installing(tmp_path / "site", GROUP, monkeypatch, plugin_commands) as lay:
        lay("plugged", documented("@scoring_command").replace("contains", "plugged"))
        yield plugin_commands()["plugged"]


@pytest.fixture
def plugin_rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    write_json(path, ROWS)
    return path


def test_the_command_is_listed_with_its_option(contains) -> None:
    assert isinstance(contains, ScoringCommand) and contains.module == "eval.plugged"
    assert "plugged" in invoke(cli, "--help").output
    text = invoke(cli, "plugged", "--help").output
    for option in ("--ignore-case", "--shots", "--rescore", "--max-new-tokens", "--adapter", "--resume"):
        assert option in text


def test_it_scores_resumes_and_scores_again_with_its_option(contains, plugin_rows, tmp_path) -> None:
    with answering(ANSWERS.__getitem__) as url:
        server = ("--model", "m", "--backend", "openai", "--url", url, "--data", plugin_rows)
        call(contains, *server, "--out", tmp_path / "old")
        with raises(RequestError, "ignore_case"):  # not the run that is there
            call(contains, *server, "--ignore-case", "--out", tmp_path / "old", "--resume")
    old = results(tmp_path / "old/m/rows")
    assert (old["accuracy"], old["n"], old["majority"]) == (0.5, 4, 0.5)
    assert old["settings"]["command"] == "eval.plugged" and old["settings"]["ignore_case"] is False
    again = ("--rescore", tmp_path / "old", "--data", plugin_rows, "--out", tmp_path / "new")
    with raises(RequestError, "--max-new-tokens"):
        call(contains, *again, "--max-new-tokens", 4)
    call(contains, *again, "--ignore-case")
    assert results(tmp_path / "new/m/rows")["accuracy"] == 0.75
    call(compare.cli, tmp_path / "old", tmp_path / "new/m/rows", "--out", tmp_path / "compared")


def test_rows_with_images_are_refused_by_their_place(contains, tmp_path, refused) -> None:
    seen = tmp_path / "seen.json"
    write_json(seen, [{"instruction": "<image>?", "output": "no", "images": ["a.png"]}])
    with refused(plugins.ContentError, "record 1", "seen.json"):
        call(contains, "--model", "m", "--data", seen, "--out", tmp_path / "out")


def test_it_is_a_step_of_a_suite(contains, plugin_rows, tmp_path) -> None:
    steps = tmp_path / "suite.yaml"
    steps.write_text("even: {command: plugged, data: rows.json, ignore-case: true}")
    ask(suite.cli, ANSWERS.__getitem__, steps, "--out", tmp_path / "out")
    assert results(tmp_path / "out/even/m/rows")["accuracy"] == 0.75


def test_a_name_of_ours_is_not_taken(contains, monkeypatch, capsys) -> None:
    plugin_commands.cache_clear()
    monkeypatch.setattr(contains, "name", "nli")
    monkeypatch.setattr(
        "tuneyard.eval.__main__.load", lambda *_: {"x": plugins.Plugin(GROUP, "x", "p 1", contains)}
    )
    assert plugin_commands() == {}
    assert "'nli'" in capsys.readouterr().err
