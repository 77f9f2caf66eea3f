"""`data check` finds the column that only some shards fill, as a compile does, also in chunks."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messages import raises
from tests.unit.compiler.conftest import Bench
from tests.unit.compiler.test_chunks import Ahead
from tuneyard.compiler import chunked_reading, compile
from tuneyard.compiler.compile import check_spec, compile_spec
from tuneyard.compiler.read import jsons, stream
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.model import load_spec
from tuneyard.core.errors import ContentError

SPEC = """
about: rows in shards
columns:
  question: [question]
  meta: {names: [meta], is: any}
MOREwrite:
  - {dataset: "cut_{split}", file: "cut-{split}.jsonl", format: FORMAT, keep: [meta], shards: SHARDS}
"""
ALPACA = 'alpaca, instruction: "{question}", output: "{question}"'
PIECES = 'text, text: "{question}", pieces: {characters: 4, overlap: 1}'
WAYS = {
    "in order": "",
    "sampled": "sample: 0.6\n",
    "without repeats": "drop_duplicates: true\n",
    "split": "split: {test: 0.4, seed: 1}\n",
    "by hash": "split: {test: 0.3, by: hash}\n",
}


def rows_of(filled):
    metas = {0: [], 1: None, 2: ["a"], 3: ["b"]}
    return [{"question": f"What is {n % 9}?", "meta": metas[kind]} for n, kind in enumerate(filled)]


def outcome(run, spec, request):
    try:
        report = run(load_spec(str(spec)), request)
    except ContentError as error:
        return str(error)
    return report.kept


@pytest.mark.slow
@pytest.mark.parametrize("form", [ALPACA, PIECES])
@pytest.mark.parametrize("way", list(WAYS))
@settings(max_examples=12, deadline=None)
@given(
    filled=st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=1, max_size=14), shards=st.integers(1, 5)
)
def test_a_check_says_what_a_compile_says(form, way, filled, shards):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        bench = Bench(Path(folder))
        text = SPEC.replace("MORE", WAYS[way]).replace("FORMAT", form).replace("SHARDS", str(shards))
        spec, source = bench.write("cut.yaml", text), bench.rows("rows.jsonl", rows_of(filled))
        patch.setattr(stream, "BLOCK", 64)
        patch.setattr(jsons, "LOOKED_AT", 64)
        patch.setattr(chunked_reading, "CHUNK", 100)
        request = CompileRequest(sources=(str(source),), out=bench.out)
        expected = outcome(compile_spec, spec, request)
        assert outcome(check_spec, spec, request) == expected
        patch.setattr(compile, "executor_for", lambda *_: Ahead(3))
        assert outcome(check_spec, spec, request) == expected


def test_a_check_names_the_shard_and_the_column(bench):
    """Two shards of two rows each: by hand, the first has no `meta`."""
    text = SPEC.replace("MORE", "").replace("FORMAT", ALPACA).replace("SHARDS", "2")
    spec = bench.write("cut.yaml", text)
    for filled, is_loaded in (([0, 1, 0, 2], False), ([0, 2, 0, 3], True), ([0, 1, 0, 1], True)):
        source = bench.rows("rows.jsonl", rows_of(filled))
        request = CompileRequest(sources=(str(source),), out=bench.out)
        if is_loaded:
            assert check_spec(load_spec(str(spec)), request).kept == 4
            continue
        with raises(ContentError, "cut-train/00000-of-00002.jsonl", "meta", "shards"):
            check_spec(load_spec(str(spec)), request)
    assert not bench.out.exists()


def test_a_check_of_a_mixture_finds_it(bench):
    part = bench.write("part.yaml", SPEC.replace("MORE", "").replace("FORMAT", ALPACA).replace("SHARDS", "1"))
    mixture = {
        "about": "a mixture",
        "mix": {
            "total": 6,
            "parts": {
                "one": {"share": 0.5, "as": str(part)},
                "two": {"share": 0.5, "as": str(part)},
            },
        },
        "write": [{"dataset": "m", "file": "m.jsonl", "format": "alpaca", "keep": ["meta"], "shards": 2}],
    }
    spec = bench.write("mix.yaml", json.dumps(mixture))
    empty = bench.rows("one.jsonl", rows_of([0, 0, 0]))
    filled = bench.rows("two.jsonl", rows_of([2, 2, 2]))
    request = CompileRequest(sources=(f"one={empty}", f"two={filled}"), out=bench.out)
    said = outcome(compile_spec, spec, request)
    assert isinstance(said, str) and "m/00000-of-00002.jsonl" in said
    assert outcome(check_spec, spec, request) == said
