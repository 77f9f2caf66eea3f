"""The course of a figure over a training, as its trainer_state.json has it."""

import shlex
from pathlib import Path

from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import read_object, require
from tuneyard.core.language.message import _, counted, joined
from tuneyard.recipes.output_dir.checkpoints import checkpoints


class DivergedError(ContentError):
    """A metric was measured and was never a finite number."""


class NotMeasuredError(ContentError):
    """No evaluation has the metric."""


def read_curve(output_dir: Path, metric: str) -> list[tuple[int, float]]:
    """The (step, value) of every evaluation. `NotMeasuredError` lists the metrics that the run has."""
    require(output_dir, _("folder of a training (as saves/NAME)"))
    states = [folder / "trainer_state.json" for folder in [output_dir, *checkpoints(output_dir)][:2]]
    saved_states = [path for path in states if path.is_file()]
    if not saved_states:
        runs = sorted(path.parent for path in output_dir.glob("[!.]*/trainer_state.json"))
        if runs:
            raise RequestError(
                _(
                    "{path}: no training of its own, found {runs} in it; name one: tuneyard recipe best "
                    "{folder}",
                    path=output_dir,
                    runs=counted(len(runs), "run", "runs"),
                    folder=shlex.quote(str(runs[0])),
                )
            )
        raise RequestError(
            _(
                "{path}: no trainer_state.json: no training has saved here yet: go on with it "
                "(tuneyard recipe train), or name another",
                path=output_dir,
            )
        )
    state = saved_states[0]
    history = read_object(state).get("log_history")
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    curve = {}
    for row in rows:
        step, value = row.get("step"), row.get(metric)
        if is_number(step) and is_number(value):
            curve[int(step)] = float(value)
    if curve:
        return sorted(curve.items())
    if any(metric in row for row in rows):
        raise DivergedError(
            _(
                "{path}: {metric} was never a finite number: it diverged, try a smaller learning_rate",
                path=state,
                metric=metric,
            )
        )
    measured: set[str] = set()
    for row in rows:
        measured.update(key for key in row if is_number(row[key]))
    measured -= {"step", "epoch"}
    hint = nearest(metric, measured) or _("name one of these: --metric")
    if not any(name.startswith("eval_") for name in measured):
        hint = _(
            "the recipe has no eval_strategy; write `eval_strategy: steps`, `eval_steps` and "
            "`val_size: 0.1` (for accuracy also `compute_accuracy: true`), and train again"
        )
    names: str = _("nothing")
    if measured:
        names = joined(sorted(measured))
    raise NotMeasuredError(
        _("{path}: no {metric}; found {names}; {hint}", path=state, metric=metric, names=names, hint=hint)
    )
