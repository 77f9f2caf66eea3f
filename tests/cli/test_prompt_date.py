"""A chat template that writes today's date has one date in a run, also in a run that is resumed later."""

import datetime
import shutil
from pathlib import Path

import pytest

from testing.tiny import CHATML
from tests.cli.scoring import PAIRS, call
from tests.json_files import read_json, write_json
from tests.runs_cut import tree
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt import chat_renderer
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.eval.data.prompts import choose_prompting
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.scoring import request
from tuneyard.eval.suite import cli as suite

pytestmark = pytest.mark.usefixtures("one_thread")
DATED = CHATML.replace("You are a helpful assistant.", "Today is ' + strftime_now('%d %b %Y') + '.")
MACRO = "{% macro today() %}{{ strftime_now('%Y-%m-%d %H:%M') }}{% endmacro %}{{ today() }}"
IF_DEFINED = "{% if strftime_now is defined %}{{ strftime_now('%B %d, %Y') }}{% endif %}"
TALK = [{"role": "user", "content": "?"}]
FIRST, LATER = datetime.date(2020, 1, 2), datetime.date(2021, 10, 11)


@pytest.fixture
def dated_model(tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "dated"))
    (folder / "chat_template.jinja").write_text(DATED)
    return folder


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    """`on(day)` makes it today for the options of a run."""

    def change(day: datetime.date) -> None:
        class Today(datetime.date):
            @classmethod
            def today(cls) -> datetime.date:
                return day

        monkeypatch.setattr(request, "date", Today)

    return change


@pytest.mark.parametrize(
    ("template", "text"),
    [(DATED, "Today is 02 Jan 2020."), (MACRO, "2020-01-02 00:00"), (IF_DEFINED, "January 02, 2020")],
)
def test_a_template_writes_the_date_of_the_run(tiny_model, template, text) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert text in chat_renderer(tokenizer, template, day=FIRST)(TALK, True)
    assert text in template_renderer(template, {}, day=FIRST)(TALK, True)
    today = datetime.date.today()
    assert template_renderer(template, {})(TALK, True) == template_renderer(template, {}, day=today)(
        TALK, True
    )
    tokenizer.chat_template = template
    prompting = choose_prompting(tokenizer, (), None, day=FIRST)
    assert text in tokenizer.decode(prompting.encode(TALK)) and prompting.day == FIRST


def test_a_run_resumed_on_another_day_ends_with_the_bytes_of_an_unbroken_one(
    score, dated_model, tmp_path, on
) -> None:
    datasets = []
    for name in ("one", "two"):
        write_json(tmp_path / f"{name}.json", PAIRS)
        datasets += ["--data", tmp_path / f"{name}.json"]
    on(FIRST)
    unbroken = score(nli, *datasets, model=dated_model, out="unbroken")
    broken = score(nli, *datasets[:2], model=dated_model, out="broken")
    assert read_json(broken / "run.json")["settings"]["date"] == "2020-01-02"
    on(LATER)
    later = score(nli, *datasets, model=dated_model, out="later")
    score(nli, *datasets, "--resume", model=dated_model, out="broken")
    assert tree(broken) == tree(unbroken)
    predictions = "base/two/predictions.jsonl"
    assert (later / predictions).read_bytes() != (unbroken / predictions).read_bytes()


def test_a_suite_is_resumed_with_its_date(dated_model, data, tmp_path, on) -> None:
    on(FIRST)
    (tmp_path / "suite.yaml").write_text("even: {command: nli, data: tiny.json}\n")
    words = (tmp_path / "suite.yaml", "--model", dated_model, "--out", tmp_path / "out")
    call(suite, *words)
    before = tree(tmp_path / "out")
    on(LATER)
    call(suite, *words, "--resume")
    assert tree(tmp_path / "out").keys() == before.keys()
    assert read_json(tmp_path / "out/even/run.json")["settings"]["date"] == "2020-01-02"


def test_a_run_without_a_date_in_its_prompts_has_none(score, data) -> None:
    assert "date" not in read_json(score(nli, "--data", data) / "run.json")["settings"]


@pytest.mark.parametrize("value", ["yesterday", 3, [], "2020-13-01"])
def test_a_damaged_date_is_refused_with_its_place(score, dated_model, data, tmp_path, refused, value) -> None:
    score(nli, "--data", data, model=dated_model, out="broken")
    file = tmp_path / "broken/run.json"
    run = read_json(file)
    next(file.parent.rglob("results.json")).unlink()
    write_json(file, {**run, "settings": {**run["settings"], "date": value}})
    with refused(ContentError, file, "date", "2026-01-31"):
        score(nli, "--data", data, "--resume", model=dated_model, out="broken")
