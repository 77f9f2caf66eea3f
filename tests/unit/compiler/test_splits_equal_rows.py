"""Equal rows fall into one split of those that are drawn, and the last row is one to train on."""

from collections import Counter

import pytest

SPEC = """about: x
columns:
  question: [question]
  answer: {{names: [answer], is: answer}}
  kind: {{names: [kind], default: a}}
split: {{{split}}}
write:
- dataset: mine_{{split}}
  file: mine_{{split}}.jsonl
  format: alpaca
  instruction: "{{question}}"
  output: "{{answer}}"
"""


def split_numbers(bench, rows, split):
    """How often each split has each instruction."""
    spec = SPEC.format(split=split)
    bench.compile_rows(spec, rows)
    found = {}
    for path in sorted((bench.out).rglob("mine_*.jsonl")):
        found[path.stem.removeprefix("mine_")] = Counter(
            row["instruction"] for row in bench.records(path.name)
        )
    return found


def row(text, kind="a"):
    return {"question": text, "answer": f"so: {text}", "kind": kind}


@pytest.mark.parametrize("split", ["test: 0.3", "eval: 0.2, test: 0.2", "test: 0.3, stratify: kind"])
def test_equal_rows_fall_into_one_split(bench, split):
    rows = [row(f"number {n % 40}", "ab"[n % 2]) for n in range(100)]
    found = split_numbers(bench, rows, split)
    for text in {each["question"] for each in rows}:
        assert sum(text in counts for counts in found.values()) == 1
    assert sum(counts.total() for counts in found.values()) == 100
    assert any("equal rows were drawn into one split" in note for note in bench.manifest("spec")["notes"])
    assert found["test"].total() == pytest.approx(100 * (0.2 if "eval" in split else 0.3), abs=3)


def test_a_class_of_equal_rows_is_in_train_and_test(bench):
    rows = [row(f"number {n}") for n in range(20)] + [row("the same", "b")] * 10
    found = split_numbers(bench, rows, "test: 0.3, stratify: kind")
    assert (found["train"]["the same"], found["test"]["the same"]) == (7, 3)
    assert bench.manifest("spec")["problems"]["W208"] == 7  # each row to train on that is in the test split


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_last_row_is_one_to_train_on(bench, count):
    rows = [row(f"number {n}") for n in range(count)]
    found = split_numbers(bench, rows, "eval: 0.2, test: 0.2")
    assert found["train"].total() == 1
    assert sum(counts.total() for counts in found.values()) == count
