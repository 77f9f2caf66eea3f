"""Parts of records that the registry entry does not name, which LLaMA-Factory leaves out without a word."""

import pytest

from tests.unit.compiler.conftest import Bench
from tuneyard.compiler.verify.expect import Expected
from tuneyard.core.errors import Problem
from tuneyard.core.records import format_of_entry

ROW = {"instruction": "And then?", "output": "We go home."}
RUNNING = "The sun stands high at noon."
NAMED = {"prompt": "instruction", "response": "output"}


def problems_of(bench: Bench, entry: dict, *rows: dict) -> list[tuple[Problem, int | None]]:
    """What is found in the records of a file."""
    found = Expected(bench.rows("a.jsonl", rows), format_of_entry({"file_name": "a.jsonl", **entry}))
    list(found.records())
    return found.problems


@pytest.mark.parametrize(
    ("beside", "entry", "expected"),
    [
        ({"history": [["Where?", "Here."]]}, {}, [("E409", "a.jsonl:2", "history")]),
        ({"system": "Be short."}, {"columns": NAMED}, [("E409", "a.jsonl:2", "system")]),
        ({"kto_tag": False}, {}, [("E409", "a.jsonl:1", "kto_tag")]),
        ({"input": "At noon."}, {"columns": NAMED}, [("E409", "a.jsonl:2", "input")]),
        ({"input": "At noon."}, {"columns": {**NAMED, "query": "input"}}, []),
        ({"input": "then"}, {"columns": NAMED}, []),  # the prompt contains it
        ({"Context": "Noon."}, {"columns": NAMED}, [("E409", "a.jsonl:2", "Context")]),
        ({"passage": "Noon."}, {"columns": {"messages": "talk"}, "formatting": "sharegpt"}, []),
        ({"facts": RUNNING}, {"columns": NAMED}, [("W409", "a.jsonl:2", "facts")]),
        ({"facts": "我们中午一起回家吃饭吧好吗"}, {"columns": NAMED}, [("W409", "a.jsonl:2", "facts")]),
        ({"facts": "https://example.org/a-long-address"}, {"columns": NAMED}, []),
        ({"facts": "And then? So: We go home."}, {"columns": NAMED}, []),  # the whole example
        ({"system": "", "history": [], "tools": None, "images": [], "topic": "x"}, {}, []),
    ],
)
def test_what_is_filled_and_not_named_is_an_error_with_its_first_place(bench, beside, entry, expected):
    empty = {name: False if value is False else None for name, value in beside.items()}
    found = problems_of(bench, entry, {**ROW, **empty}, {**ROW, **beside})
    assert [(p.code, p.place.rsplit("/", 1)[-1], p.field) for p, _ in found] == expected
    assert all(("in 1 record," in p.message) == (p.field != "kto_tag") for p, _ in found)


def test_several_parts_are_named_in_one_order(bench):
    """Whatever Python makes of a set of names: a report is the same bytes each time."""
    beside = {"kto_tag": True, "tools": "[{}]", "history": [["q", "a"]], "system": "s", "videos": ["v"]}
    found = problems_of(bench, {}, {**ROW, **beside})
    assert [p.field for p, _ in found] == ["system", "history", "tools", "videos", "kto_tag"]


@pytest.mark.parametrize(
    ("beside", "code", "field"),
    [
        ({"context": "Noon is near.", "passage": "We ate."}, "E409", "context, passage"),
        ({"facts": RUNNING, "more": f"{RUNNING} Again."}, "W409", "facts, more"),
    ],
)
def test_several_texts_that_one_key_would_map_are_one_finding(bench, beside, code, field):
    ((problem, row),) = problems_of(bench, {"columns": NAMED}, ROW, {**ROW, **beside})
    place = f"{bench.folder / 'a.jsonl'}:2"
    assert (problem.code, problem.field, problem.place, row) == (code, field, place, 1)
    assert all(f"{name!r} is filled in 1 record" in problem.message for name in beside)
