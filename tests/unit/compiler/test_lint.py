"""What is fit to train on: duplicates by normalised text, conflicts, leaks, lengths, odd characters."""

import pytest

from tests.unit.compiler.conftest import ROWS
from tuneyard.compiler.lint.unbalanced_labels import imbalance


def row(number=0, **changes):
    return (
        ROWS[0]
        | {"sentence1": f"Premise {number}.", "sentence2": f"Claim {number}.", "idx": number}
        | changes
    )


def test_case_and_blanks_do_not_hide_a_duplicate(bench):
    rows = [row(0), row(1, sentence1="PREMISE\t0. ", sentence2=" claim  0."), row(2, sentence1="Premise 00.")]
    report = bench.compile_rows("rte", rows)
    assert bench.codes(report) == [("W202", "train.jsonl:2")]
    assert "train.jsonl:1; `drop_duplicates: true`" in report.problems.warnings[0].message


def test_swapped_sentences_are_no_duplicate(bench):
    rows = [row(0), row(1, sentence1="Claim 0.", sentence2="Premise 0.")]
    assert bench.codes(bench.compile_rows("rte", rows)) == []


def test_conflicts_leaks_and_shared_premises_are_told_apart(bench):
    train = bench.rows(
        "train.jsonl", [row(0), row(1), row(2, sentence1="Premise 0.", sentence2="Claim 0.", label=1)]
    )
    dev = bench.rows("dev.jsonl", [row(9, sentence1="Premise 0."), row(1), row(8, sentence1="Premise 0.")])
    report = bench.compile("rte", train, dev)
    assert sorted(bench.codes(report)) == [("W203", "train.jsonl:3"), ("W208", "train.jsonl:2")]
    assert report.quality["premise shared by train and eval"] == 2
    assert report.quality["train"]["labels"] == {"no": 1, "yes": 2}


def test_a_label_that_is_only_kept_is_no_answer(bench):
    labels = 'labels: {"yes": [1], "no": [0]}'
    write = "write: [{file: t.jsonl, format: alpaca, instruction: '{q}', output: '{a}', keep: [label]}]"
    spec = f"about: a\ncolumns: {{q: [q], a: [a], label: [label]}}\n{labels}\n{write}"
    report = bench.compile_rows(spec, [{"q": "a", "a": "b", "label": n} for n in (0, 1)])
    assert bench.codes(report) == [("W202", "train.jsonl:2")]


def test_lengths_are_characters_of_the_texts(bench):
    rows = [row(n, sentence1="x" * (n + 1), sentence2="苹" * 10) for n in range(20)]
    report = bench.compile_rows("rte", rows)
    assert report.quality["train"]["characters"] == {"min": 11, "median": 20, "p95": 29, "max": 30}


@pytest.mark.parametrize("text", ["tab\tnewline\nreturn\r", "a < b |> c", "[INSTANCE]", "苹果\u3000"])
def test_usual_characters_are_no_warning(bench, text):
    assert bench.codes(bench.compile_rows("rte", [row(0, sentence2=text)])) == []


def test_places_survive_blank_lines_drops_and_files(bench):
    rows = [row(0), row(1, label=-1), row(2), row(2, sentence2="Other.")]
    bench.rows("train.jsonl", rows)
    source = bench.folder / "train.jsonl"
    source.write_text(source.read_text().replace("\n", "\n\n"))
    report = bench.compile("rte", source, f"train={bench.rows('more.jsonl', [row(0, idx=77)])}")
    assert sorted(bench.codes(report)) == [("W201", "train.jsonl:7"), ("W202", "more.jsonl:1")]


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ({"yes": 90, "no": 10}, ""),
        ({"yes": 91, "no": 9}, "yes 91.0 %, no 9.0 %"),
        ({"a": 88, "b": 8, "c": 4}, ""),
        ({"a": 90, "b": 7, "c": 3}, "a 90.0 %, b 7.0 %, c 3.0 %"),
        ({"a": 91, "b": 5, "c": 4}, "a 91.0 %, b 5.0 %, c 4.0 %"),
        ({"yes": 100}, "yes 100.0 %, no 0.0 %"),
        ({"yes": 49}, ""),
    ],
)
def test_labels_are_out_of_balance_by_the_rarest_or_the_most_common(counts, shares):
    """The documented rule: a tenth of an equal share, or nine of ten rows."""
    labels = sorted({*counts, "no"} if "yes" in counts else counts)
    assert imbalance(counts, labels) == shares


def test_only_the_rows_to_train_on_are_looked_at_for_balance(bench):
    even = bench.rows("train.jsonl", [row(n, label=n % 2) for n in range(60)])
    uneven = bench.rows("dev.jsonl", [row(n, sentence1=f"Dev {n}.", label=0) for n in range(60)])
    assert [code for code, _ in bench.codes(bench.compile("rte", even, uneven))] == []
    turned = bench.compile("rte", f"train={uneven}", f"eval={even}", force=True)
    assert [code for code, _ in bench.codes(turned)] == ["W222", "W435"]
