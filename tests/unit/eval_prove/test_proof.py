"""Where token ids and answers first differ, what a tolerance allows, and what the page says of it."""

import dataclasses
import json

import jsonschema_rs

from tests.conftest import ROOT
from tests.json_files import read_json
from tests.messages import golden_text
from tuneyard.eval.prove.page import markdown, to_json
from tuneyard.eval.prove.proof import (
    Answers,
    FirstDifference,
    Proof,
    Tolerance,
    first_difference,
    prove_answers,
    prove_prompts,
)

VALID = jsonschema_rs.validator_for(read_json(ROOT / "core/schemas/prove.json"))
NONE = Tolerance(0, 0.1)


def decode(ids: list[int]) -> str:
    return "".join(chr(i) for i in ids)


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def proof(prompts=(), answers=()) -> Proof:
    facts = {
        "model": "m", "adapters": [], "dtype": "fp32", "device": "cpu", "limit": 9, "max_new_tokens": 4,
        "hashes": {}, "versions": {}, "servers": [],
    }  # fmt: skip
    return Proof("qwen", facts, NONE, comparisons=[*prompts, *answers], unchecked=["no --gguf"])


def answer(token: int, yes: float, no: float) -> Answers:
    """The answer to one row: its token, and the log-probabilities of both labels."""
    return Answers({0: [token]}, {0: {"yes": yes, "no": no}})


def test_the_first_difference_and_both_texts() -> None:
    found = first_difference(3, ids("a cat sat on a mat"), ids("a car"), decode)
    assert found == FirstDifference(3, 4, ord("t"), ord("r"), "t sat on", "r")
    assert first_difference(0, ids("ab"), ids("a"), decode) == FirstDifference(0, 1, ord("b"), None, "b", "")
    assert first_difference(0, ids("ab"), ids("ab"), decode) is None


def test_prompts_are_equal_or_counted() -> None:
    expected = {0: ids("ab"), 1: ids("cd"), 2: ids("ef")}
    assert prove_prompts("w", "s", expected, expected, decode).failure(NONE) == ""
    one = prove_prompts("w", "s", expected, {**expected, 1: ids("cx"), 2: ids("xf")}, decode)
    assert (one.n, one.differing) == (3, 2) and one.failure(NONE)
    assert one.first == FirstDifference(1, 1, ord("d"), ord("x"), "d", "x")
    refused = prove_prompts("w", "s", expected, {1: ids("cx"), 2: ids("xf")}, decode)
    assert (refused.n, refused.differing, refused.refused) == (3, 3, [0])


def test_flips_are_of_labels_where_there_are_some() -> None:
    live = Answers({0: ids("y"), 1: ids("n")}, {0: {"yes": -0.1, "no": -2.0}, 1: {"yes": -1.0, "no": -0.9}})
    served = Answers({0: ids("Y"), 1: ids("n")}, {0: {"yes": -0.2, "no": -2.0}, 1: {"yes": -0.8, "no": -0.9}})
    one = prove_answers("fused", "s", live, served, decode)
    assert (one.flips, one.differing, one.largest_row) == ([1], 1, 1)
    assert abs(one.largest - 0.2) < 1e-12
    free = prove_answers(
        "f", "s", dataclasses.replace(live, labels=None), dataclasses.replace(served, labels=None), decode
    )
    assert (free.flips, free.largest) == ([0], None)
    labels = prove_answers(
        "f", "s", dataclasses.replace(live, tokens=None), dataclasses.replace(served, tokens=None), decode
    )
    assert (labels.n, labels.flips, labels.differing) == (2, [1], None)


def test_what_a_tolerance_allows() -> None:
    live = answer(1, -1.0, -1.1)
    near = prove_answers("f", "s", live, answer(2, -1.05, -1.1), decode)
    flip = prove_answers("f", "s", live, answer(1, -1.15, -1.1), decode)
    far = prove_answers("f", "s", live, answer(1, -0.5, -1.1), decode)
    assert [not one.failure(NONE) for one in (near, flip, far)] == [True, False, False]
    assert not flip.failure(Tolerance(1, 0.2)) and flip.failure(Tolerance(0, 0.2))
    assert not far.failure(Tolerance(0, 0.5)) and far.failure(Tolerance(0, 0.4))


def test_the_verdict_and_the_page() -> None:
    same = prove_prompts("chat template", "s", {0: [1]}, {0: [1]}, decode)
    other = prove_prompts("TEMPLATE of M|F", "s", {0: ids("a")}, {0: ids("b")}, decode)
    live = answer(1, -1.0, -1.1)
    near = prove_answers("fused", "s", live, live, decode)
    flip = prove_answers("x.gguf", "s", live, answer(2, -3.0, -1.1), decode)
    good, bad = proof([same], [near]), proof([same, other], [near, flip])
    assert not good.failures() and len(bad.failures()) == 2
    golden_text(good.verdict(), "Equal", "1 example", "1 other way", "1 served model", "0 flips", "0 nats")
    golden_text(bad.verdict(), "Not equal", "TEMPLATE of M|F", "1 of 1 prompt of s", "x.gguf", "2 nats")
    page = markdown(bad)
    assert '| 1 (row 0)     | row 0, token 0: 97 "a" became 98 "b"' in page and "TEMPLATE of M\\|F" in page
    assert "## Not checked\n\n- no --gguf" in page and "Allowed: 0 flips, 0.1 nats." in page
    for one in (good, bad):
        VALID.validate(json.loads(json.dumps(to_json(one, "tuneyard eval prove"), allow_nan=False)))
    assert to_json(good, "c")["proved"] is True and to_json(bad, "c")["proved"] is False
