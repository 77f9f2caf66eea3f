"""Examples that a model got wrong: which are shown, and how many of each kind."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.fake_runs import page_of, write_run
from tests.messages import printed_line
from tuneyard.eval.compare.__main__ import compare_results
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.report.html import collect_incorrect, fair_shares
from tuneyard.eval.runs.find import ScoredRunSource


def test_other_tools_logs_have_their_questions() -> None:
    judged = compare_results([ScoredRunSource(ROOT / "tests/golden/compare/harness")])
    printed_line("\n".join(map(sentence, judged.findings)), "tuned", "not checked")
    errors = collect_incorrect(judged.runs, 1000)
    nli = next(one for one in errors if one.dataset == "nli3")
    assert "imply An animal is outside." in str(nli.rows[0]["question"])
    assert {len(row["answers"]) for one in errors for row in one.rows} == {2}


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_shares_are_fair_and_use_what_there_is(counts: dict[str, int], most: int) -> None:
    shares = fair_shares(counts, most)
    assert sum(shares.values()) == min(most, sum(counts.values()))
    assert all(shares[name] <= count for name, count in counts.items())
    short = [share for name, share in shares.items() if share < counts[name]]
    assert not short or (max(short) - min(short) <= 1 and max(shares.values()) <= max(short) + 1)


@pytest.mark.usefixtures("without_plots")
def test_examples_of_too_many_letters_are_thinned_out_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneyard.eval.report.html.MOST_LETTERS", 12_000)
    gold = ["yes", "no"] * 50
    write_run(tmp_path, "base", "s", gold, gold[::-1], kinds={"type": gold})
    found = compare_results([ScoredRunSource(tmp_path)])
    (errors,) = collect_incorrect(found.runs, 1000)
    assert errors.total == 100 and 0 < len(errors.rows) < 100 and len(json.dumps(errors.rows)) < 12_500
    places = [int(row["row"]) for row in errors.rows]
    assert places[-1] > 90 and max(b - a for a, b in pairwise(places)) <= 3
    assert f"{len(errors.rows)} of them, evenly spread, are shown" in page_of(found)
