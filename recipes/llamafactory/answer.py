"""LLaMA-Factory's answer about a recipe, as inspection.py fills it and the cache keeps it."""

from dataclasses import dataclass, field

from tuneyard.core.llamafactory.prompt.template_match import TemplateFinding
from tuneyard.recipes.costs import Shapes


@dataclass(frozen=True, slots=True)
class EpochCounts:
    """Rows or packed blocks of an epoch, the tokens `seen` in them, and those of the longest.

    Without rows they are not counted.
    """

    rows: int = 0
    seen: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True)
class TokenCounts(EpochCounts):
    """Tokens of a dataset before the cut and `seen` after it, and how many rows cutoff_len cuts."""

    tokens: int = 0
    cut: int = 0


@dataclass(frozen=True, slots=True)
class AnswerFinding:
    """So many of the judged `rows` have a finding of core/records/answers.py; `first` are their numbers."""

    count: int
    rows: int
    first: list[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a dataset, of which `bad` cannot be trained on.

    - `problems`: (row in the file or 0, reason). `error`: why the rows are not checked.
    - `lengths`: for each drawn row the tokens of each of its sequences; only within LLaMA-Factory's process.
    - `answers`: findings on answers by code.
    - `template`: findings on turns that are served after other texts than in training.
    - `marks`: counts of desirable and undesirable answers (KTO).
    - `thoughts`: answers with and without a thought, for a template that writes thoughts.
    """

    rows: int = 0
    bad: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    tokens: TokenCounts = TokenCounts()
    lengths: list[list[int]] = field(default_factory=list)
    answers: dict[str, AnswerFinding] = field(default_factory=dict)
    template: list[TemplateFinding] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    thoughts: list[int] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True, slots=True)
class LaidOut:
    """The model with its adapter, or the `error` for which its config is not at hand.

    - `rejected`: why LLaMA-Factory cannot adapt it or load it. `at_fault`: settings without which it can.
    - `unfit`: names of modules that no layer has, by setting. `linear`: names of its linear layers.
    - `positions` of the config (None: not limited), which may be scaled.
    - `quantised`: its weights are stored in fewer than 16 bits. `tied`: the head has the embeddings' weights.
    - `experts`: parameters of experts.
    """

    shapes: Shapes = field(default_factory=Shapes)
    rejected: str = ""
    at_fault: list[str] = field(default_factory=list)
    unfit: dict[str, list[str]] = field(default_factory=dict)
    linear: list[str] = field(default_factory=list)
    positions: int | None = None
    scaled_positions: bool = False
    quantised: bool = False
    tied: bool = False
    experts: int = 0
    trains_experts: bool = False
    trains_embeddings: bool = True
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """LLaMA-Factory's answer: `rejected` says why it refuses the settings, `at_fault` which of them.

    `template` are findings on template and model, or `template_error` why there are none. `train` counts the
    rows that are trained: merged, split and packed. `has_code`: the model's files name Python of their own.
    """

    rejected: str = ""
    at_fault: list[str] = field(default_factory=list)
    template: list[TemplateFinding] = field(default_factory=list)
    template_error: str = ""
    data: dict[str, Rows] = field(default_factory=dict)
    train: EpochCounts = EpochCounts()
    model: LaidOut = field(default_factory=LaidOut)
    has_code: bool = False
