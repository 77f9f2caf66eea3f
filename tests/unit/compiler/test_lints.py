"""A lint is one file: found by existing, or an entry point of a package."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.messages import raises
from tests.plug_ins import documented, installing
from tests.unit.compiler.test_identity import listed
from tuneyard.cli import cli
from tuneyard.compiler.cli import cli as data
from tuneyard.compiler.lint import BatchLint, SplitLint, TextLint, lints
from tuneyard.compiler.lint.text_keys import plain_texts
from tuneyard.core.plugins import PluginError

ROWS = [
    {"question": "Who?", "answer": "Ada, ada@example.org"},
    {"question": "What?", "answer": "Sums."},
    {"question": "Is a@b one?", "answer": "No."},
]
OTHER_LINTS = """
from tuneyard.compiler.lint import batch_lint, split_lint
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode

SHORT = ProblemCode("W902", "a short row", "Write more.", template="a row of under 8 characters")
FEW = ProblemCode("W903", "few rows", "Add rows.")

@batch_lint(SHORT)
def short(batch):
    for number, length in enumerate(batch.lengths):
        if length < 8:
            yield number, "answer"

@split_lint(FEW, columns=["ids"])
def few(splits):
    for name, rows in splits.rows.items():
        yield Problem(FEW, name, f"{rows.rows} rows")
"""


@pytest.fixture
def emails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of an installed lint, which docs/extending.md has."""
    with installing(tmp_path / "lib", "tuneyard.lints", monkeypatch, lints) as lay:
        lay("emails", documented("def emails"))
        yield next((tmp_path / "lib").rglob("plug_emails.py"))


def test_the_lint_of_a_package_warns(bench, emails):
    report = bench.compile_rows("qa", ROWS)
    (warning,) = report.problems.warnings
    assert warning.code == "W901" and warning.place.endswith("train.jsonl:1")
    assert '"ada@example.org"' in warning.message


def test_the_lint_of_a_package_is_explained_and_counted(emails, tmp_path):
    lines = invoke(cli, "--explain", "w901").stdout.splitlines()
    assert lines == ["W901: warning: an e-mail address in a text", "fix: Replace it by a made-up one."]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:1] * 9))
    checked = invoke(data, "check", "qa", "--source", source)
    assert "… 6 more W901: an e-mail address in a text" in checked.stderr


@pytest.mark.parametrize(
    ("code", "error"), [("E250", "E900 to E999"), ("W204", "W900 to W999"), ("N909", "")]
)
def test_an_entry_beside_a_lint_of_a_package_is_explained_or_refused(emails, code, error):
    """A code of ours, or of a later version of ours, is no code of a package."""
    emails.write_text(emails.read_text() + f'OTHER = ProblemCode("{code}", "another", "Change it.")\n')
    result = invoke(cli, "--explain", "N909")
    if error:
        assert isinstance(result.exception, PluginError) and error in str(result.exception)
    else:
        assert result.stdout.splitlines() == ["N909: note: another", "fix: Change it."]


def test_an_edit_of_the_lint_of_a_package_makes_its_datasets_stale(bench, emails):
    bench.compile_rows("qa", ROWS)
    assert "stale" not in listed(bench)
    emails.write_text(emails.read_text() + "\n# an edit\n")
    assert "stale" in listed(bench)


def test_lints_of_columns_and_of_splits_come_from_packages_too(bench, tmp_path, monkeypatch):
    with installing(tmp_path / "lib", "tuneyard.lints", monkeypatch, lints) as lay:
        lay("short", OTHER_LINTS)
        lay("few", OTHER_LINTS.replace("W902", "W904"))
        report = bench.compile_rows("qa", [{"question": "A?", "answer": "B."}, ROWS[1]])
    problems = [
        (problem.code, problem.place.rpartition("/")[2], problem.field)
        for problem in report.problems.warnings
    ]
    assert sorted(problems) == [("W902", "train.jsonl:1", "answer"), ("W903", "train", "")]


@pytest.mark.parametrize(
    ("code", "broken", "error"),
    [
        ('"W901"', '"W204"', "W204"),
        ('"W901"', '"E901"', "E901"),
        ('"W901"', '"W9"', "W9"),
        ('    template="an e-mail address, which the model may repeat: {text}",\n', "", "template"),
        ("{text}", "{place}", "place"),
        ("@text_lint(EMAIL, ", "@(lambda *a, **b: lambda f: f)(EMAIL, ", "text_lint"),
        ("first_match(ADDRESS", "first_match(ADRESS", "ADRESS"),
    ],
)
def test_an_error_of_the_lint_of_a_package_names_it(bench, emails, code, broken, error):
    text = emails.read_text()
    assert code in text
    emails.write_text(text.replace(code, broken))
    with raises(PluginError, "emails", "plug_emails 1.2", "tuneyard.lints", error):
        bench.compile_rows("qa", ROWS)


def test_two_lints_of_one_code_are_refused(bench, tmp_path, monkeypatch):
    with installing(tmp_path / "lib", "tuneyard.lints", monkeypatch, lints) as lay:
        lay("emails", documented("def emails"))
        lay("mails", documented("def emails").replace("def emails", "def mails"))
        with raises(PluginError, "W901", "taken"):
            bench.compile_rows("qa", ROWS)


def test_each_kind_of_lint_has_its_files():
    kinds = {lint.name: type(lint) for lint in lints()}
    assert kinds["W205"] is TextLint and kinds["W204"] is BatchLint and kinds["W208"] is SplitLint
    assert list(kinds) == sorted(kinds)


@pytest.mark.parametrize(
    ("texts", "signs"),
    [
        (["plain", "a < b"], {b"<"}),
        (["[ INST ] x"], {b"inst]"}),
        (["tab\t", "bell\a"], {b"\0"}),
        (["a\x1eb"], {b"<", b"inst]", b"\0"}),  # the separator of texts: every lint looks
        (["in", "st]"], set()),  # not across texts
        (["", "ÄÖ 你好"], set()),
    ],
)
def test_signs_of_a_batch_by_hand(texts, signs):
    plain, signs_of_texts = plain_texts(texts, {b"<", b"inst]", b"\0"})
    assert signs_of_texts == signs and len(plain) == len(texts)
