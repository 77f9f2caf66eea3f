"""Scoring runs in one process of an environment with vLLM: python -m tests.vllm_runs RUNS.json

RUNS.json is a list of runs: `arguments` of tuneyard eval nli, and `stop_after`, the number of calls to
vLLM after which the run is interrupted (null: it is finished). All runs share one engine, which takes up to
a minute to load.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ResumableError
from tuneyard.eval import nli
from tuneyard.eval.models import engine

load_engine, answers = engine.load_engine, engine.Engine.answers
engines: list[engine.Engine] = []


def load_once(folder: Path, dtype: str | None, parts: Any, *parallel: int) -> engine.Engine:
    """Load the engine, or give the one of the first run."""
    if not engines:
        engines.append(load_engine(folder, dtype, parts, *parallel))
    return engines[0]


def main(runs: list[dict[str, Any]]) -> None:
    """Score each run; print the calls to vLLM of each."""
    engine.load_engine = load_once  # type: ignore[assignment]
    engine.AT_ONCE = 8
    for run in runs:
        calls = []

        def counted(
            self: engine.Engine,
            requests: Any,
            sampling: Any,
            calls: list[int] = calls,
            stop_after: int | None = run["stop_after"],
        ) -> list[Any]:
            if len(calls) == stop_after:
                raise KeyboardInterrupt
            calls.append(len(requests))
            return answers(self, requests, sampling)

        engine.Engine.answers = counted  # type: ignore[method-assign]
        try:
            nli.cli.main(run["arguments"], standalone_mode=False)
        except ResumableError:
            assert run["stop_after"] is not None
        print(json.dumps({"calls": calls}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
