"""python -m eval.ab on a tiny model, in this process: from prompts to a verdict, and what stops it."""

from pathlib import Path

import click
import pytest

from testing.tiny import write_adapter
from tests.cli import scoring
from tests.json_files import read_json, write_json, write_lines
from tests.messages import printed_line, raises
from tests.unit.eval_report.test_sheet import rows_of, save
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.ab.__main__ import cli
from tuneyard.eval.ab.ratings import CRITERIA

PROMPTS = ["什么是 LoRA？", "=1+1", "A man is walking a dog.", "Explain <b>HTML</b>."]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def ab(tiny_model: Path, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    adapter = write_adapter(tmp_path / "tuned")

    def call(*arguments: object, adapters=(f"tuned={adapter}",)) -> Path:
        given = ["--model", tiny_model, "--out", tmp_path / "out", "--max-new-tokens", 8]
        given += [x for adapter in adapters for x in ("--adapter", adapter)]
        sets = [] if "--data" in arguments else ["--data", tmp_path / "prompts.txt"]
        scoring.call(cli, *given, *sets, *arguments)
        return tmp_path / "out"

    return call


def tally(*arguments: object) -> None:
    scoring.call(cli, "tally", *map(str, arguments))


def sheet_of(out: Path) -> list[dict[str, str]]:
    return rows_of((out / "sheet.csv").read_bytes())


def fill(out: Path, name: str, marks: dict[str, int]) -> Path:
    """A rater who gives every model the same marks everywhere, by what the key says."""
    key = read_json(out / "key.json")["answers"]
    rows = [{**row, **dict.fromkeys(CRITERIA, marks[key[row["id"]]["model"]])} for row in sheet_of(out)]
    (out / name).write_bytes(save(rows))
    return out / name


def test_from_prompts_to_a_verdict(ab, capsys, tmp_path) -> None:
    out = ab()
    base, tuned = (scoring.predictions(out / model / "prompts") for model in ("base", "tuned"))
    assert [row["model_output"] for row in base] != [row["model_output"] for row in tuned]
    key = read_json(out / "key.json")
    assert key["models"] == ["base", "tuned"] and len(key["answers"]) == 8
    page = (out / "answers.md").read_text(encoding="utf-8")
    for prompt in PROMPTS:
        assert f"```text\n{prompt}\n```" in page
    assert [row["prompt"] for row in sheet_of(out)][2:4] == ["'=1+1"] * 2
    assert "4 prompts, 8 answers" in capsys.readouterr().out

    anna, ben = fill(out, "anna.csv", {"base": 2, "tuned": 5}), fill(out, "ben.csv", {"base": 3, "tuned": 4})
    tally(anna, ben, "--out", tmp_path / "tally")
    said = capsys.readouterr().out
    assert said == (tmp_path / "tally/tally.md").read_text()
    printed_line(said, "tuned and base", "4 prompts won", "0 lost", "0 tied")
    found = read_json(tmp_path / "tally/tally.json")
    assert found["raters"] == ["anna", "ben"] and found["mean_marks"]["tuned"]["depth"] == 4.5
    assert found["outcomes"][0]["p"] == pytest.approx(2 / 2**4)
    tally(anna, "--out", tmp_path / "tally")
    (tmp_path / "tally/tally.json").unlink()
    with raises(RequestError, "tally.md would be replaced"):
        tally(anna, "--out", tmp_path / "tally")


def test_references_conversations_and_refused_prompts(ab, tmp_path, capsys) -> None:
    rows = [
        {"instruction": "A dog?", "output": "yes"},
        {"instruction": "dog " * 3000, "output": ""},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
    ]
    write_lines(tmp_path / "p.jsonl", rows)
    out = ab("--data", tmp_path / "p.jsonl")
    shown = [(row["prompt"], row["reference"]) for row in sheet_of(out)]
    assert shown == [("A dog?", "yes")] * 2 + [("system: Be brief.\nuser: Why?", "")] * 2
    warnings = capsys.readouterr().err
    for model in ("base", "tuned"):
        printed_line(warnings, model, "1 prompt", "context", "left out")


def test_marks_are_never_overwritten(ab) -> None:
    out = ab()
    whole = (out / "sheet.csv").read_bytes()
    (out / "sheet.csv").unlink()
    ab("--resume")
    assert (out / "sheet.csv").read_bytes() == whole
    fill(out, "sheet.csv", {"base": 1, "tuned": 2})
    marked = (out / "sheet.csv").read_bytes()
    ab("--resume")  # up to date
    with raises(RequestError, "sheet.csv", "marks"):
        ab("--force")
    (out / "base/rows/results.json").unlink(missing_ok=True)
    (out / "key.json").unlink()
    with raises(RequestError, "sheet.csv", "marks"):
        ab("--resume")
    assert (out / "sheet.csv").read_bytes() == marked


def test_a_key_that_raters_may_need_is_kept(ab, tmp_path) -> None:
    out = ab()
    sheet, key = (out / "sheet.csv").read_bytes(), (out / "key.json").read_bytes()
    with raises(RequestError, "key.json"):
        ab("--resume", "--seed", 7)
    more = (f"tuned={tmp_path / 'tuned'}", f"other={write_adapter(tmp_path / 'other', seed=3)}")
    with raises(RequestError, "key.json"):
        ab("--resume", adapters=more)
    assert ((out / "sheet.csv").read_bytes(), (out / "key.json").read_bytes()) == (sheet, key)
    ab("--force", "--seed", 7)
    assert (out / "sheet.csv").read_bytes() != sheet


def test_a_misspelt_command_is_no_question() -> None:
    with raises(click.UsageError, "talley"):
        scoring.call(cli, "talley", "sheet.csv")
    with raises(click.MissingParameter, "--model"):
        scoring.call(cli, "--max_new_tokens", "3")


def test_one_model_is_not_compared(ab, refused) -> None:
    with refused(RequestError, "--adapter"):
        ab(adapters=())


def test_sheets_that_do_not_belong(ab, tmp_path) -> None:
    out = ab()
    sheet = fill(out, "a.csv", {"base": 1, "tuned": 2})
    with raises(RequestError, "no.csv"):
        tally(out / "no.csv")
    (tmp_path / "b").mkdir()
    away = tmp_path / "b/a.csv"
    away.write_bytes(sheet.read_bytes())
    with raises(RequestError, "key.json"):
        tally(away)
    tally(away, "--key", out / "key.json")
    tally(away, sheet, "--key", out / "key.json")  # two raters whose sheets have one name
    key = read_json(out / "key.json")
    write_json(tmp_path / "b/key.json", {**key, "answers": {"s0-1": {"prompt": 1, "model": "x"}}})
    with raises(ContentError, "row 2", "a.csv", "key"):
        tally(away)


def test_answers_are_sampled_at_a_temperature_and_each_seed_draws_others(ab, tmp_path) -> None:
    def drawn(*arguments: object) -> list[str]:
        out = ab("--temperature", 0.7, "--top-p", 0.9, *arguments, "--force")
        assert read_json(out / "run.json")["settings"]["sampling"]["temperature"] == 0.7
        return [row["model_output"] for row in scoring.predictions(out / "tuned/prompts")]

    first = drawn()
    assert first == drawn() != drawn("--seed", 7)
