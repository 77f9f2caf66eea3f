"""run.json: the settings, models and datasets of a scoring run, or the steps of a suite.

The command writes it before the first answer. --resume compares it with what it would write now.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Required, TypedDict

from tuneyard.core.records.record import record, renamed_keys

Settings = Mapping[str, Any]
"""Options by name. Those of plug-ins are among them, so that their values have no common type."""
Part = Literal["settings", "models", "prompts", "datasets"]


class RunIdentity(TypedDict, total=False):
    """What decides the files of a scoring run. Each part is by name."""

    settings: Annotated[dict[str, Any], "options that decide the outputs or the figures"]
    models: Annotated[dict[str, Any], "what each model is made of"]
    prompts: Annotated[dict[str, Any], "how each model is prompted"]
    datasets: Annotated[dict[str, Any], "SHA-256 of each dataset"]


@record(
    "run.json",
    "run.json: settings, models and datasets of a scoring run, or the steps of a suite",
    lifts=[renamed_keys({"sets": "datasets"})],
)
class RunRecord(RunIdentity, total=False):
    """A scoring run, or a suite."""

    format: Required[Literal[2]]
    by: Annotated[str, "the module of the command that called the scoring command, such as eval.suite"]
    steps: Annotated[list[object], "folders of a suite's steps, or of repeated draws"]
    files: Annotated[list[str], "files in OUT next to the models' folders"]
    tuneyard: Annotated[Any, "the Tuneyard that wrote the file"]
    inputs: Annotated[dict[str, Any], "what the results depend on: hashes of files, values of options"]
    outputs: Annotated[dict[str, str], "SHA-256 of each file of a finished run, by its path in OUT"]
