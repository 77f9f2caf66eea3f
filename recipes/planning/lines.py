"""What a plan prints: its lines, or a table of the plans for several machines."""

from collections.abc import Mapping

from tuneyard.core.language.message import _, counted, joined, marked, relative, tr, translated
from tuneyard.core.language.number_format import limits
from tuneyard.core.text.markdown import markdown_table
from tuneyard.recipes.planning.training_plan import TrainingPlan

MIDDLE_AND_ENDS = ("middle", "lower", "upper")
PURPOSES = {
    "weights": marked("weights {size}"),
    "gradients": marked("gradients {size}"),
    "optimizer": marked("optimizer {size}"),
    "activations": marked("activations {size}"),
    "fixed": marked("fixed {size}"),
}
"""What takes the memory of a GPU, by the names of recipes/costs/: a template with its `size`."""


def plan_lines(plan: TrainingPlan) -> list[str]:
    """The plan for one machine."""
    lower, upper = plan.memory.values()
    parts = []
    for name, template in PURPOSES.items():
        if name in lower:
            parts.append(_(template, size=gigabytes(lower[name], upper[name])))
    tokens = _("tokens       {source}", source=_tokens(plan))
    if plan.tokens_counted or plan.tokens_expected:
        tokens = _("tokens       {tokens:,} in all, {source}", tokens=plan.tokens, source=_tokens(plan))
    lines = [
        _("{path}: {schedule}", path=relative(plan.recipe), schedule=plan.schedule),
        tokens,
        _parameters(plan),
        _("{memory}: {parts}", memory=memory_line(plan), parts=joined(parts)),
        time_line(plan),
    ]
    if plan.cost:
        lines.append(
            _("cost         {cost} at {price:g} an hour", cost=_cost(plan.cost), price=plan.cost_per_hour)
        )
    return [*lines, *lines_below([plan])]


def memory_line(plan: TrainingPlan) -> str:
    """The memory of a GPU that a training takes, and whether it fits."""
    template = marked("memory       {size} GB a GPU, {fits} {gpu} ({memory:.0f} GB)")
    if plan.is_partly_known:
        template = marked(
            "memory       {size} GB a GPU, {fits}, as far as it is known, {gpu} ({memory:.0f} GB)"
        )
    size = gigabytes(*plan.total)
    return _(template, size=size, fits=plan.fits, gpu=plan.gpu, memory=plan.gpu_bytes / 1e9)


def time_line(plan: TrainingPlan) -> str:
    """The time of a training on its GPUs."""
    return _(
        "time         {time} on {gpus} × {gpu}",
        time=_time_words(plan),
        gpus=plan.gpus,
        gpu=plan.gpu,
    )


def unknown_lines(plan: TrainingPlan) -> list[str]:
    """A line on the parts that a plan does not model, if there are any."""
    if not plan.not_modelled:
        return []
    return [_("unknown      what this adds to memory and time: {names}", names=joined(plan.not_modelled))]


def _time_words(plan: TrainingPlan) -> str:
    """The time of a training: the middle value between its ends."""
    if not plan.seconds:
        return _("not known")
    seconds = plan.seconds
    lower, middle, upper = (_duration(seconds[end]) for end in ("lower", "middle", "upper"))
    if lower == upper:
        return lower
    if seconds["middle"] >= 60:
        middle = _("about {middle}", middle=middle)
    return _("{middle} ({lower} to {upper})", middle=middle, lower=lower, upper=upper)


def table_lines(plans: list[TrainingPlan]) -> list[str]:
    """The plans of several machines as one table. What all of them share is above and below it."""
    first = plans[0]
    priced = any(plan.cost_per_hour is not None for plan in plans)
    header = [
        tr("machine"),
        tr("fits"),
        tr("GB a GPU"),
        tr("of"),
        tr("batch"),
        tr("steps"),
        tr("hours"),
    ]
    if priced:
        header += [tr("cost an hour"), tr("cost")]
    rows = []
    for plan in plans:
        steps: str = _("not known")
        hours: str = steps
        if plan.steps:
            steps = f"{plan.steps:,}"
        if plan.seconds:
            hours = limits(_hours, [plan.seconds[end] for end in MIDDLE_AND_ENDS])
            if plan.seconds["upper"] < 60:
                hours = _("under a minute")
        if not plan.may_fit:
            hours = "–"
        fits = plan.fits
        if plan.is_partly_known:
            fits = _("{fits}, as far as it is known", fits=fits)
        row = [plan.machine, fits, gigabytes(*plan.total)]
        row += [f"{plan.gpu_bytes / 1e9:.0f}", str(plan.batch), steps, hours]
        if plan.cost_per_hour is not None:
            cost: str = _("not known")
            if plan.cost:
                cost = _cost(plan.cost)
            if not plan.may_fit:
                cost = "–"
            row += [f"{plan.cost_per_hour:g}", cost]
        elif priced:
            row += [_("not given"), _("not known")]
        rows.append([translated(cell) for cell in row])
    counts = _("rows and steps are not known")
    if first.rows:
        counts = counted(first.rows, "row", "rows")
    return [
        _("{path}: {schedule}", path=relative(first.recipe), schedule=counts),
        _("tokens       {source}", source=_tokens(first)),
        _parameters(first),
        markdown_table(header, rows),
        *lines_below(plans),
    ]


def _tokens(plan: TrainingPlan) -> str:
    """Where the tokens of a row are from, and those of the longest one."""
    template = marked(
        "not counted, rows or tokenizer are not at hand (--model DIR); the rest is for rows of {tokens}"
    )
    if plan.tokens_counted:
        template = marked("counted; the longest row has {tokens}")
    elif plan.tokens_cut:
        template = marked(
            "the rows are longer than cutoff_len and CUT (cutoff_len=N changes it): each of them has {tokens}"
        )
    elif plan.tokens_expected:
        template = marked("by --rows and --tokens; the longest row is taken to have {tokens}")
    return _(template, tokens=plan.longest)


def _parameters(plan: TrainingPlan) -> str:
    share = plan.trainable / plan.parameters
    return _(
        "parameters   {trained:,} trained of {all:,} ({share:.2%})",
        trained=plan.trainable,
        all=plan.parameters,
        share=share,
    )


def lines_below(plans: list[TrainingPlan]) -> list[str]:
    """Disk of the plan that takes most, and the parts that the plans do not model."""
    plan = max(plans, key=lambda plan: plan.checkpoint * plan.checkpoints)
    disk = plan.checkpoint * plan.checkpoints
    checkpoints = counted(plan.checkpoints, "checkpoint", "checkpoints")
    line = _(
        "disk         {checkpoints} of {size:,.0f} MB", checkpoints=checkpoints, size=plan.checkpoint / 1e6
    )
    if disk >= plan.disk_free:
        line = _(
            "{disk}: NOT enough disk, {free:.0f} GB are free on this machine",
            disk=line,
            free=plan.disk_free / 1e9,
        )
    return [
        line,
        *unknown_lines(plan),
    ]


def gigabytes(lower: float, upper: float) -> str:
    """A range of bytes in GB: `5.1–7.0`."""
    return f"{lower / 1e9:.1f}–{upper / 1e9:.1f}"


def _cost(cost: Mapping[str, float]) -> str:
    return limits("{:,.2f}".format, [cost[end] for end in MIDDLE_AND_ENDS])


def _hours(seconds: float) -> str:
    """Hours with two digits, from 10 on in whole hours: `0.34`, `4.2`, `1,250`."""
    hours = seconds / 3600
    if hours >= 10:
        return f"{hours:,.0f}"
    return f"{hours:.2g}"


def _duration(seconds: int) -> str:
    if seconds < 60:
        return _("under a minute")
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return _("{hours} h {minutes:02d} min", hours=hours, minutes=minutes)
    return _("{minutes} min", minutes=minutes)
