"""A slice of the fuzzers with a fixed seed, and each file of the corpus as its name says: good or bad."""

import random
from pathlib import Path

import orjson
import pytest

from tools.fuzz import differential, hostile, mutations, structures
from tools.fuzz.execute import Outcome, execute, scratch
from tools.fuzz.invariants import leftovers, miscounts, records_of, rows_of
from tools.fuzz.structures import KINDS
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.write import render
from tuneyard.compiler.write.render import Renderer

FILES = sorted(
    path for path in mutations.CORPUS.glob("*-*/*") if path.parent.name.startswith(("good", "bad"))
)


@pytest.mark.parametrize("fuzzer", [mutations, differential, structures])
def test_a_slice_finds_nothing(fuzzer):
    findings = {seed: wrong for seed in map(str, range(30)) if (wrong := fuzzer.run(seed))}
    assert findings == {}


def test_hostile_files_of_some_seeds_harm_nobody():
    """Seed 1-46 has a list in place of a template's name, which was a traceback."""
    seeds = ["hostile-1-46", "hostile-0-0", "hostile-0-1"]
    assert {seed: wrong for seed in seeds if (wrong := hostile.run(seed))} == {}


def compiled(path: Path, folder: Path, *options: str) -> Outcome:
    (folder / path.name).write_bytes(path.read_bytes())
    return execute("compile", "qa", "--source", path.name, "--out", "out", *options)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_of_the_corpus_comes_to_what_its_name_says(path):
    good = path.parent.name.startswith("good")
    with scratch() as folder:
        outcome = compiled(path, folder)
        assert (outcome.code, outcome.wrong) == (0 if good else 1, [])
        assert leftovers(folder / "out", outcome) == []
        if good:
            rows = rows_of(path.name, path.read_bytes())
            texts = [[*row][:2] if isinstance(row, list) else [*row.values()][:2] for row in rows]
            found = records_of(folder / "out/qa/qa.json")
            assert [[record["instruction"], record["output"]] for record in found] == texts


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == "bad-json"], ids=lambda p: p.stem
)
def test_the_lines_around_a_broken_one_are_kept(path):
    with scratch() as folder:
        outcome = compiled(path, folder, "--on-error", "reject")
        assert outcome.code == 0 and f"{path.name}:2: E00" in outcome.err
        kept = records_of(folder / "out/qa/qa.json")
        assert [record["instruction"] for record in kept] == ["Good?", "Last?"]
        assert miscounts(folder / "out", 3) == []


def test_a_compiler_that_loses_or_moves_rows_is_found_out(monkeypatch):
    whole = Renderer.block

    def swapped(self: Renderer, batch: Batch, between: bytes) -> bytes:
        records = whole(self, batch, between).split(between)[:-1]
        if len(records) > 1:
            records = [*records[1:], records[-1]]
        return between.join([*records, b""])

    monkeypatch.setattr(Renderer, "block", swapped)
    for name, run in KINDS.items():
        findings = [wrong for seed in range(8) for wrong in run(random.Random(seed))]
        assert findings, f"{name} finds nothing"


def test_a_broken_compiler_is_found_out(monkeypatch):
    def split_at_what_texts_hold(values: list[object]) -> tuple[list[bytes], bytes]:
        if set(map(type, values)) == {str}:
            return orjson.dumps(values)[2:-2].split(b'","'), b'"'
        return list(map(orjson.dumps, values)), b""

    monkeypatch.setattr(render, "json_texts", split_at_what_texts_hold)
    assert [finding for seed in range(30) for finding in differential.run(str(seed))]
    monkeypatch.setattr(render, "json_texts", lambda _: 1 / 0)
    assert [finding for seed in range(9) for finding in mutations.run(str(seed)) if "ZeroDivision" in finding]
