"""vLLM on GPUs: choice, generation, two adapters, and the model divided among GPUs. Run with `pytest -m gpu`.

It wants `.venv-vllm` (`make setup-vllm`), or the folder that TUNEYARD_VLLM names.
"""

import pytest

from tests.gpu import gpus
from tests.vllm_compare import GENERATE, ROWS, Comparison, Run, needs_vllm

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800), needs_vllm]
NATS = 0.05  # bf16 has three digits
CANDIDATES = ("base", "base (2 shots)", "one", "two")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Both modes with both backends on one GPU."""
    gpus(1)
    comparison = Comparison(tmp_path_factory.mktemp("vllm"), "bf16", hidden=256, heads=4)
    comparison.by_vllm([Run("choose", comparison.shots), Run("generate", GENERATE)])
    comparison.by_transformers("choose-here", *comparison.shots)
    comparison.by_transformers("generate-here", *GENERATE)
    return comparison


def test_labels_of_the_base_and_two_adapters_score_as_with_transformers(comparison: Comparison) -> None:
    comparison.check_labels("choose", "choose-here", CANDIDATES, NATS)


def test_answers_of_the_base_and_two_adapters_are_those_of_transformers(comparison: Comparison) -> None:
    same = comparison.same_answers("generate", "generate-here", ("base", "one", "two"))
    assert same >= 0.8 * 3 * len(ROWS)  # bf16 tips an even one


@pytest.mark.parametrize("option", ["--tensor-parallel", "--pipeline-parallel"])
def test_labels_score_the_same_with_the_model_divided(comparison: Comparison, option: str) -> None:
    gpus(2)
    comparison.by_vllm([Run(option, (*comparison.shots, option, "2"))])
    comparison.check_labels(option, "choose-here", CANDIDATES, NATS)
