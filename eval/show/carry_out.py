"""The command that carries out the decision of a comparison."""

import re

from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.show.setup import adapter_weights, option_values, scored_by
from tuneyard.eval.show.verdict import recommended


def next_command(compared: ComparedRuns) -> list[str]:
    """Words of the next command: merge the adapters of the best model, export its only adapter, or talk to
    the base if that is kept. There is none for results of other tools, if several datasets decide, or if no
    model is recommended.
    """
    section, *others = compared.comparison.deciding
    if others:
        return []
    best = recommended(section, compared.comparison.base)
    trainings = section.figures[best].trainings if best in section.figures else ()
    runs = {run.model: run for run in compared.run_list}
    run = runs.get((trainings or [best])[0])
    if run is None or not scored_by(run):
        return []
    weights = adapter_weights(run)
    if not weights:
        models = option_values(run, "--model")[-1:]
        return ["tuneyard", "eval", "chat", *(word for model in models for word in ("--model", model))]
    name = re.sub(r"[^\w.-]+", "-", run.model)
    if list(weights.values()) == [1]:
        return ["tuneyard", "adapter", "export", *weights, "--to", "gguf", "--out", f"{name}.gguf"]
    weighted = [f"{place}={weight:g}" for place, weight in weights.items()]
    return ["tuneyard", "adapter", "merge", *weighted, "--out", f"saves/{name}"]
