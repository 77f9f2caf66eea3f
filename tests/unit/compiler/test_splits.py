"""Splits, samples, filters: every row in one place, exact shares, the same draw for the same seed."""

from collections import Counter
from hashlib import sha256
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.compiler.conftest import exchange, questions
from tuneyard.compiler.engine.splits import sampled, split_rows
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.text_keys import cluster_key, keys_of_ids
from tuneyard.compiler.publish.report import counts_line
from tuneyard.compiler.rows import Prefix
from tuneyard.compiler.spec.model import Split

SPEC = """
about: a test
columns: {question: [q], answer: {names: [a], is: answer}, kind: [kind]}
write: [{dataset: "t_{split}", file: "t-{split}.jsonl", format: alpaca,
         instruction: "{question}", output: "{answer}", keep: [kind]}]
"""
ONE = SPEC.replace("t_{split}", "t").replace("t-{split}", "t")
MANY = [
    {"q": f"question {number}", "a": f"answer {number}", "kind": f"k{number % 3}"} for number in range(60)
]


def seen_of(classes, groups=None) -> Fingerprints:
    seen = Fingerprints()
    rows = range(len(classes))
    columns = {"clusters": map(cluster_key, groups or rows), "prompts": rows, "answers": rows}
    seen.add(Prefix("file"), rows, columns)
    seen.add_values("classes", classes)
    return seen


@given(
    st.lists(st.sampled_from("aaaabbc"), min_size=4, max_size=60).filter(
        lambda found: len(set(found)) < len(found)
    ),
    st.sampled_from([0.1, 0.2, 0.5]),
    st.integers(0, 9),
)
def test_stratified_splits_are_exact_with_one_of_each_class_at_least(classes, share, seed):
    rows = range(len(classes))
    parts = split_rows(Split({"test": share}, stratify="kind"), seen_of(classes), rows, seed)
    assert sorted(parts["train"] + parts["test"]) == list(rows)
    assert set(classes) == {classes[row] for row in parts["test"]}
    counts, taken = Counter(classes), Counter(classes[row] for row in parts["test"])
    least = sum(max(1, int(count * share)) for count in counts.values())
    assert len(parts["test"]) == max(round(len(classes) * share), least)
    assert all(abs(taken[name] - max(1, counts[name] * share)) <= 1 for name in counts)
    again = split_rows(Split({"test": share}, stratify="kind"), seen_of(classes), rows, seed)
    assert again == parts


@given(st.lists(st.integers(0, 9), min_size=4, max_size=60), st.booleans())
def test_groups_stay_together(groups, stratified):
    split = Split({"test": 0.25}, stratify="kind" if stratified else None, group="id")
    classes = ["even" if group % 2 else "odd" for group in groups]
    parts = split_rows(split, seen_of(classes, groups), range(len(groups)), 3)
    split_numbers = {groups[row]: name for name, rows in parts.items() for row in rows}
    assert all(split_numbers[groups[row]] == name for name, rows in parts.items() for row in rows)
    assert parts["test"] and sum(map(len, parts.values())) == len(groups)


def test_the_key_of_an_id_does_not_depend_on_its_neighbours():
    values = [1, True, 1.0, -1, -2, 2**63, "1", "a"]
    alone = [keys_of_ids([value])[0] for value in values]
    assert list(keys_of_ids(values)) == alone
    assert alone[0] == alone[1] == alone[2] == 1 and len(set(alone)) == 6


def test_equal_numbers_are_one_group_and_a_number_as_text_is_another():
    assert cluster_key(1) == cluster_key(1.0) == cluster_key(True) and cluster_key(0.0) == cluster_key(-0.0)
    assert len({cluster_key(value) for value in (1, "1", 1.5, -1, -2, None, "None", float("inf"))}) == 8


def test_the_same_texts_in_other_columns_are_another_row(bench):
    rows = [{"q": "a", "a": "b c", "kind": "k"}, {"q": "a b", "a": "c", "kind": "k"}]
    report = bench.compile_rows(ONE, rows)
    assert not report.problems.warnings


def test_a_hash_split_does_not_move_rows_when_others_are_appended(bench):
    spec = f"{SPEC}split: {{test: 0.3, by: hash}}\n"
    bench.compile_rows(spec, MANY[:40])
    before = {row["instruction"] for row in bench.records("t-test.jsonl")}
    bench.compile_rows(spec, list(reversed(MANY)))
    after = {row["instruction"] for row in bench.records("t-test.jsonl")}
    first = {f"question {number}" for number in range(40)}
    assert after & first == before and 8 <= len(after) <= 28


def test_a_split_takes_every_row_once_and_keeps_order(bench):
    spec = f"{SPEC}split: {{eval: 0.1, test: 0.2, stratify: kind, seed: 1}}\n"
    report = bench.compile_rows(spec, MANY)
    assert report.datasets == {"t_train": 42, "t_eval": 6, "t_test": 12}
    numbers = [
        [int(row["instruction"].split()[1]) for row in bench.records(f"t-{name}.jsonl")]
        for name in ("train", "eval", "test")
    ]
    assert sorted(chain.from_iterable(numbers)) == list(range(60))
    assert all(part == sorted(part) for part in numbers)
    assert list(bench.out.rglob("*.rows")) == []


@pytest.mark.parametrize(("sample", "kept"), [("0.25", 15), ("7", 7), ("7.0", 7), ("1", 1), ("100", 60)])
def test_samples_are_seeded_and_keep_the_order(bench, sample, kept):
    spec = bench.write("t.yaml", f"{ONE}sample: {sample}\n")
    report = bench.compile_rows(spec, MANY)
    assert (report.read, report.kept, report.not_sampled) == (60, kept, 60 - kept)
    standing = bench.compile(spec, bench.folder / "train.jsonl")
    assert standing.up_to_date and (standing.kept, standing.not_sampled) == (kept, 60 - kept)
    numbers = [int(row["instruction"].split()[1]) for row in bench.records("t.jsonl")]
    assert numbers == sorted(numbers) and len(set(numbers)) == kept
    first = (bench.out / "t/t.jsonl").read_bytes()
    bench.compile(spec, bench.folder / "train.jsonl", force=True)
    assert (bench.out / "t/t.jsonl").read_bytes() == first
    bench.compile(spec, bench.folder / "train.jsonl", seed=7)
    assert kept == 60 or (bench.out / "t/t.jsonl").read_bytes() != first


@pytest.mark.parametrize(
    ("share", "rows", "kept"),
    [
        (0.575, 1000, 575),  # 0.575 * 1000 is 574.9999999999999
        (0.575, 100, 58),  # 57.5, to the even number
        (0.145, 100, 14),  # 14.5, to the even number
        (0.29, 100, 29),
        (0.1, 10, 1),
        (1e-5, 100_000, 1),
        (0.999, 1000, 999),
    ],
)
def test_a_share_is_rounded_as_it_is_written(share, rows, kept):
    assert len(sampled(range(rows), share, 42)) == kept


def test_a_sample_of_no_row_is_said(bench):
    report = bench.compile_rows(f"{ONE}sample: 0.5\n", MANY[:1])
    assert report.problems.errors[0].message == "no rows left of 1"


def test_duplicates_are_dropped_and_counted(bench):
    spec = f"{ONE}drop_duplicates: true\n"
    again = {"q": "Question  0 ", "a": "ANSWER 0", "kind": "x"}
    report = bench.compile_rows(spec, [*MANY, again])
    assert (report.kept, report.dropped) == (60, {"duplicate": 1})
    assert bench.codes(report) == []


def test_texts_are_cleaned_only_when_asked(bench):
    row = {"q": " e\u0301 &amp; co ", "a": "b", "kind": "k"}
    plain = bench.write("t.yaml", ONE)
    bench.compile_rows(plain, [row])
    assert bench.first("t.jsonl")["instruction"] == row["q"]
    cleaned = bench.write("t.yaml", f"{ONE}clean: [nfc, strip, unescape]\n")
    bench.compile(cleaned, bench.folder / "train.jsonl")
    assert bench.first("t.jsonl")["instruction"] == "\u00e9 & co"


def test_after_a_bad_row_nothing_is_said_of_what_was_not_counted(bench):
    """Rows after a bad one are checked, not kept: no part is called short, no class lone."""
    good = questions(40)
    one = bench.rows("one.jsonl", [{"question": "q", "answer": 7}, *good])
    report = bench.compile(MIXTURE, f"one={one}", f"two={bench.rows('two.jsonl', good)}")
    assert [code for code, _ in bench.codes(report)] == ["E105"]
    assert not any("wanted" in note for note in report.problems.notes)
    many = [{"q": f"q{n}", "a": f"a{n}", "kind": "rare" if n in (0, 5999) else "k"} for n in range(6000)]
    many[3000]["a"] = 7
    classes = f"{SPEC}split: {{test: 0.2, stratify: kind}}\n"
    report = bench.compile_rows(classes, many)
    assert [code for code, _ in bench.codes(report)] == ["E105"]


def test_a_kto_file_with_a_bad_row_is_not_called_one_of_a_single_class(bench):
    turns = exchange("q", "a")
    rows = [{"messages": turns, "label": number < 3_000} for number in range(3_002)]
    rows[2_999]["messages"] = 7
    report = bench.compile_rows("kto", rows)
    assert [code for code, _ in bench.codes(report)] == ["E105"]
    assert not any("to 1" in note for note in report.problems.notes)


MIXTURE = """
about: t
mix: {total: 20, shuffle: 1, parts: {one: {share: 0.5, as: qa}, two: {share: 0.5, as: qa}}}
write: [{dataset: m, file: m.jsonl, format: alpaca}]
"""
STOPPED = {
    "a plain spec": (ONE, 60, 59),
    "a sample of rows without duplicates": (f"{ONE}sample: 0.5\ndrop_duplicates: true\n", 60, 59),
    "splits": (f"{SPEC}split: {{eval: 0.1, stratify: kind}}\ndrop_leaks: true\n", 60, 59),
    "a filter": (f"{ONE}filter: {{keywords: [question]}}\n", 60, None),
}


@pytest.mark.parametrize("name", STOPPED)
def test_every_row_of_a_stopped_compile_is_counted(bench, name):
    text, read, not_written = STOPPED[name]
    rows = [*MANY[:30], {"q": 7, "a": "", "kind": "k1"}, *MANY[31:]]
    report = bench.compile_rows(text, rows)
    assert report.failed and (report.read, report.rejected, report.kept) == (read, 1, 0)
    dropped = sum(report.dropped.values())
    assert report.read == report.rejected + dropped + report.not_sampled + report.not_written
    assert not_written in (None, report.not_written)
    assert f"not written {report.not_written}" in counts_line(report)


def test_every_row_of_a_stopped_mixture_is_counted(bench):
    """The first part is sampled before the second one stops the compile."""
    one = bench.rows("one.jsonl", questions(40))
    bad = [{"question": f"r{n}", "answer": [n] if n == 8 else f"a{n}"} for n in range(30)]
    report = bench.compile(MIXTURE, f"one={one}", f"two={bench.rows('two.jsonl', bad)}")
    assert (report.read, report.rejected, report.kept) == (70, 1, 0)
    assert (report.not_sampled, report.not_written) == (30, 39)


def sides(bench) -> dict[str, str]:
    """The split of each question that was compiled."""
    by_question = {}
    for path in bench.out.rglob("t-*.jsonl"):
        for record in bench.records(path.name):
            by_question[record["instruction"]] = path.stem.removeprefix("t-")
    return by_question


def test_a_seed_draws_another_split_by_hash_in_which_no_row_moves_either(bench):
    by_seed = {}
    for seed in (1, 2):
        spec = f"{SPEC}split: {{test: 0.3, by: hash, seed: {seed}}}\n"
        bench.compile_rows(spec, MANY[:40])
        before = sides(bench)
        bench.compile_rows(spec, list(reversed(MANY)))
        after = sides(bench)
        assert {question: after[question] for question in before} == before
        by_seed[seed] = after
    assert by_seed[1] != by_seed[2]


def test_a_corrected_answer_moves_no_row_of_a_split_by_hash(bench):
    spec = f"{SPEC}split: {{test: 0.3, by: hash, seed: 1}}\n"
    bench.compile_rows(spec, MANY)
    before = sides(bench)
    report = bench.compile_rows(spec, [row | {"a": "another answer", "kind": "k"} for row in MANY])
    assert sides(bench) == before
    assert report.problems.counts["W435"] == 0


def test_an_eval_split_that_comes_later_takes_rows_from_train_alone(bench):
    bench.compile_rows(f"{SPEC}split: {{test: 0.2, by: hash, seed: 3}}\n", MANY)
    before = sides(bench)
    bench.compile_rows(f"{SPEC}split: {{eval: 0.2, test: 0.2, by: hash, seed: 3}}\n", MANY)
    after = sides(bench)
    assert {name for name in before if before[name] == "test"} == {
        name for name in after if after[name] == "test"
    }
    assert {"train", "eval", "test"} == set(after.values())


def test_without_a_seed_the_bytes_are_as_they_were(bench):
    bench.compile_rows(f"{SPEC}split: {{eval: 0.2, test: 0.3, by: hash}}\n", MANY)
    digests = {
        name: sha256(next(bench.out.rglob(f"t-{name}.jsonl")).read_bytes()).hexdigest()[:12]
        for name in ("train", "eval", "test")
    }
    assert digests == {"train": "8e882b6a9bc3", "eval": "9b85baa6c27b", "test": "460f712d54de"}


@pytest.mark.parametrize(
    ("first", "then", "is_named"),
    [
        ("{test: 0.2, seed: 1}", "{test: 0.2, seed: 1}", True),  # drawn by number: new rows draw anew
        ("{test: 0.2, by: hash, seed: 1}", "{test: 0.2, by: hash, seed: 1}", False),
        ("{test: 0.2, by: hash, seed: 1}", "{test: 0.2, by: hash, seed: 2}", True),
        ("{test: 0.2, by: hash}", "{test: 0.3, by: hash}", True),
    ],
)
def test_a_compile_that_moves_rows_between_splits_says_how_many(bench, first, then, is_named):
    bench.compile_rows(f"{SPEC}split: {first}\n", MANY[:40])
    before = sides(bench)
    report = bench.compile_rows(f"{SPEC}split: {then}\n", MANY)
    after = sides(bench)
    moves = Counter((after[question], before[question]) for question in before)
    moved = {pair: count for pair, count in moves.items() if len(set(pair)) == 2}
    assert bool(moved) == is_named
    warnings = [warning for warning in report.problems.warnings if warning.code == "W435"]
    assert len(warnings) == bool(moved)
    for (split, earlier), count in moved.items():
        assert f"{count} rows of {split} were in {earlier}" in warnings[0].message.replace(
            "1 row of", "1 rows of"
        )


def test_a_group_by_hash_keeps_its_value_on_one_side_when_rows_come(bench):
    spec = f"{SPEC}split: {{test: 0.4, by: hash, group: kind, seed: 5}}\n"
    rows = [row | {"kind": f"k{number % 12}"} for number, row in enumerate(MANY)]
    bench.compile_rows(spec, rows[:48])
    before = sides(bench)
    bench.compile_rows(spec, rows[::-1])
    after = sides(bench)
    assert {question: after[question] for question in before} == before
    by_kind = {(row["kind"], after[row["q"]]) for row in rows}
    assert len(by_kind) == 12


LABELS = """
about: a test
columns: {question: [q], label: {names: [kind], is: label}}
labels: {k0: [k0], k1: [k1], k2: [k2]}
write: [{dataset: "t_{split}", file: "t-{split}.jsonl", format: alpaca,
         instruction: "{question}", output: "{label}"}]
"""


def test_a_class_without_rows_in_a_split_is_named(bench):
    rows = [{"q": f"question {number}", "kind": "k0"} for number in range(60)]
    rows += [{"q": "rare", "kind": "k1"}]
    report = bench.compile_rows(f"{LABELS}split: {{test: 0.3, by: hash, seed: 1}}\n", rows)
    side = sides(bench)["rare"]
    other = {"train": "test", "test": "train"}[side]
    warnings = [warning.message for warning in report.problems.warnings if warning.code == "W217"]
    assert warnings == [f'{other}: no row of "k1"']  # k2 has no row at all
