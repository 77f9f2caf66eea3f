"""The real vLLM scores and answers as transformers does: the base and two adapters, side by side.

It wants `.venv-vllm` (`make setup-vllm`, where vLLM's build for CPUs is enough), or the folder that
TUNEYARD_VLLM names. One process does most runs, since an engine takes up to a minute to load.
"""

from dataclasses import dataclass

import pytest

from tests.json_files import read_json
from tests.vllm_compare import AT_ONCE, GENERATE, ROWS, Comparison, Run, needs_vllm
from tuneyard.eval.runs.results import RESULTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), needs_vllm]
CANDIDATES = ("base", "base (2 shots)", "one", "two")


@dataclass(frozen=True)
class Scored:
    """Runs of a comparison, and the number of requests in each call to vLLM by run."""

    comparison: Comparison
    calls: dict[str, list[int]]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Choose and generate with both backends; interrupt, resume and divide with vLLM."""
    home = tmp_path_factory.mktemp("vllm")
    comparison = Comparison(home, "fp32", hidden=64, heads=2)  # vLLM's heads on a CPU have 32 numbers or more
    shots = comparison.shots
    runs = {
        "choose": Run("choose", shots),
        "generate": Run("generate", GENERATE),
        "interrupted": Run("interrupted", shots, stop_after=1),
        "resumed": Run("interrupted", (*shots, "--resume")),
    }
    calls = comparison.by_vllm(list(runs.values()))
    comparison.by_vllm([Run("divided", (*shots, "--tensor-parallel", "2"))])  # two cores in place of two GPUs
    comparison.by_transformers("choose-here", *shots)
    comparison.by_transformers("generate-here", *GENERATE)
    return Scored(comparison, dict(zip(runs, calls, strict=True)))


@pytest.mark.parametrize("run", ["choose", "divided"])
def test_labels_score_as_with_transformers(scored: Scored, run: str) -> None:
    scored.comparison.check_labels(run, "choose-here", CANDIDATES, 0.02)


def test_all_candidates_are_in_each_call(scored: Scored) -> None:
    first, *others = scored.calls["choose"]
    assert others == [first, first]
    assert scored.calls["generate"][:3] == [3 * AT_ONCE] * 3


def test_answers_are_those_of_transformers(scored: Scored) -> None:
    same = scored.comparison.same_answers("generate", "generate-here", ("base", "one", "two"))
    assert same >= 3 * len(ROWS) - 2


def test_an_interrupted_run_resumes_to_the_same_bytes(scored: Scored) -> None:
    assert scored.calls["interrupted"] == scored.calls["choose"][:1]
    assert scored.calls["resumed"] == scored.calls["choose"][1:]
    assert scored.comparison.bytes("interrupted") == scored.comparison.bytes("choose")


def test_the_results_say_which_vllm_scored(scored: Scored) -> None:
    results = read_json(scored.comparison.home / "divided/two/walks" / RESULTS)
    assert (results["device"], results["settings"]["tensor_parallel"]) == ("vllm", 2)
    assert results["versions"]["vllm"]
