"""What a scoring command is asked for: one typed request, without Click.

A command makes it once, from its command line or a suite's step. Nothing below asks where a value comes from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from tuneyard.core.cli.main import NO_COMMAND_LINE, CommandLine
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.dtypes import DTYPES
from tuneyard.eval.data.dataset import find_datasets
from tuneyard.eval.models.backends import DEFAULT, BackendKind, backend_kind
from tuneyard.eval.runs.results import UNMERGED, check_same, kept_day, read_identity, read_run, shown_command

SETTINGS = ("template", "bos", "apply", "quantize", "limit", "think", "cluster", "preset")
"""The options of every command that --resume refuses to change."""

OptionValues = Mapping[str, Any]
"""Values of a command's options, by Click's names."""


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """The values of a command line: a field for each option that the scoring commands share."""

    model: str
    out: Path
    adapters: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    dataset_dir: Path | None = None
    cluster: str | None = None
    backend: str = DEFAULT
    url: str | None = None
    served_model: str | None = None
    timeout: float | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    template: str | None = None
    bos: bool = False
    apply: str = UNMERGED
    dtype: str | None = None
    quantize: int | None = None
    batch_tokens: int | None = None
    max_new_tokens: int = 0
    think: bool = False
    preset: str | None = None
    max_refused: int = 0
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    repeat: int | None = None
    limit: int | None = None
    no_base: bool = False
    same_base: bool = False
    workers: int | None = None
    ray: str | None = None
    resume: bool = False
    force: bool = False
    rescore: Path | None = None
    day: date | None = None
    """The date in prompts whose chat template writes one."""
    command: str = ""
    """The module of the command that scores, such as `eval.nli`."""
    by: str = ""
    """The module that the user called, if it is not the scoring command: `eval.suite`."""
    own: OptionValues = field(default_factory=dict)
    """The command's own options by name: `{"variants": "all"}`."""
    explicit: Mapping[str, str] = field(default_factory=dict)
    """Names of the options that the user gave, with their flags: `{"max_new_tokens": "--max-new-tokens"}`."""
    command_line: CommandLine = NO_COMMAND_LINE
    """The command as the user typed it, for messages and results.json."""

    @property
    def backend_kind(self) -> BackendKind:
        """What the backend can do. `RequestError` if there is none of this name."""
        return backend_kind(self.backend)

    @property
    def draws(self) -> bool:
        """True if answers are drawn: the same options give greedy ones without them."""
        return bool(self.preset or self.temperature)

    def chat_options(self) -> list[str]:
        """Options of a chat with these models."""
        words = ["--model", self.model]
        for adapter in self.adapters:
            words += ["--adapter", adapter]
        if self.dataset_dir:
            words += ["--dataset-dir", str(self.dataset_dir)]
        return words

    def need_probabilities(self) -> None:
        """`RequestError` for a backend that does not give those of a whole text."""
        if not self.backend_kind.gives_text_losses:
            raise RequestError(
                _(
                    "{command} needs the model's probabilities, which a server does not show",
                    command=self.command,
                )
            )

    def refuse_explicit(self, names: Iterable[str], reason: str) -> None:
        """Raise `RequestError` with `reason` if the user gave one of these options."""
        for name in names:
            if name in self.explicit:
                raise RequestError(_("{option}: {reason}", option=self.explicit[name], reason=reason))


def request_of(
    options: OptionValues,
    explicit: Mapping[str, str],
    command_line: CommandLine,
    command: str = "",
    by: str = "",
) -> ScoringRequest:
    """Make a request of options by name. Those that are no field are the `command`'s own.

    `RequestError` if options contradict one another.
    """
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {}
    names = {field.name for field in fields(ScoringRequest)}
    for name, value in options.items():
        if name in names:
            shared[name] = value
        else:
            own[name] = value
    request = ScoringRequest(
        **shared,
        day=date.today(),
        command=command,
        by=by,
        own=own,
        explicit=explicit,
        command_line=command_line,
    )
    _refuse_contradictions(request)
    return request


def _refuse_contradictions(request: ScoringRequest) -> None:
    if request.preset and not request.backend_kind.reads_generation_config:
        raise RequestError(
            _("--preset reads generation_config.json: leave out --backend {name}", name=request.backend)
        )
    if request.top_p is not None and not request.draws:
        raise RequestError(
            _(
                "--top-p {value:g}: greedy answers have no use for it: add --temperature, e.g. 0.7",
                value=request.top_p,
            )
        )
    if request.max_refused and not request.backend_kind.is_server:
        raise RequestError(
            _(
                "--max-refused {number}: only servers refuse rows; add --backend openai, or leave it out",
                number=request.max_refused,
            )
        )
    divides = request.tensor_parallel or request.pipeline_parallel
    if (
        divides and not request.backend_kind.divides and not request.rescore
    ):  # which keeps the settings of its run
        raise RequestError(
            _("--tensor-parallel and --pipeline-parallel: only vLLM divides a model: add --backend vllm")
        )


def resumed(request: ScoringRequest) -> ScoringRequest:
    """The request with the date and dtype of the run that it resumes; without --resume as it is.

    `RequestError` for other settings, before a model is loaded.
    """
    if not request.resume:
        return request
    run = read_run(request.out)
    settings = run["settings"]
    given = {name: getattr(request, name) for name in SETTINGS}
    check_same(request.out, run, {"settings": {**settings, **given}})
    request = replace(request, day=kept_day(request.out) or request.day)
    if request.dtype is None and settings.get("dtype") in DTYPES:  # servers have none
        request = replace(request, dtype=settings["dtype"])
    return request


def with_kept_options(
    options: OptionValues, explicit: Mapping[str, str], rescorable: Iterable[str], command: str
) -> dict[str, Any]:
    """The options of a run to score again (`rescore`), for those that the user leaves open.

    `rescorable` are the names of the options that go with --rescore. `RequestError` for others, and for a run
    of another command.
    """
    fixed = [flag for name, flag in explicit.items() if name not in rescorable]
    if fixed:
        raise RequestError(
            _(
                "--rescore keeps the model's outputs: {names} would change them or has no effect; "
                "leave it out, or score without --rescore",
                names=joined(fixed),
            )
        )
    source = options["rescore"]
    run = read_identity(source)
    scored_by = str(run["settings"].get("command"))
    if scored_by != command:
        raise RequestError(
            _(
                "--rescore {path}: outputs of `{command}`, expected a run of "
                "`{expected}`; what is there is compared by tuneyard eval compare {results}",
                path=source,
                command=shown_command(scored_by),
                expected=shown_command(command),
                results=shell(source),
            )
        )
    open_options = options.keys() - explicit.keys()
    kept: dict[str, Any] = {name: value for name, value in run["settings"].items() if name in open_options}
    kept["model"] = ""
    if "dataset_dir" in kept:
        kept["dataset_dir"] = Path(kept["dataset_dir"])
    if not (options["datasets"] or options["data"]):
        kept["datasets"] = tuple(run["datasets"])
        try:
            find_datasets(kept["datasets"], (), kept.get("dataset_dir", options["dataset_dir"]))
        except RequestError as error:  # run.json does not contain the path of a file
            raise RequestError(
                _("--rescore {path}: {error}. If it scored a file, add --data FILE", path=source, error=error)
            ) from error
    return {**options, **kept}


def resume_hint(command_line: CommandLine, rescore: Path | None = None) -> str:
    """How a scoring run is resumed after Ctrl-C."""
    if rescore:
        return _("the same command starts again")
    return _("resume it with: {command} --resume", command=command_line.text(without=("--force", "--resume")))
