"""Trainings in processes of their own: started, followed with one progress line, logged, ended with us."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.execution.family import start_family
from tuneyard.core.execution.processes import end_process
from tuneyard.core.files.bounded_reading import LARGEST_RECORD, read_end
from tuneyard.core.files.links import refuse_written_link
from tuneyard.core.installation.checkout import SAFE_PATH, python_variables
from tuneyard.core.installation.packages import set_up_command
from tuneyard.core.language.message import _
from tuneyard.core.text.secrets import hide_secrets

if TYPE_CHECKING:
    from tqdm import tqdm

PYTHON = sys.executable
"""Runs our trainer."""
LOG = "train.log"
PROGRESS = "trainer_log.jsonl"
_ERROR = re.compile(
    r"^(?:\[rank\d+\]: *)?((?:terminate called|Fatal Python error|(?:\w+\.)*\w*(?:Error|Exception|Exit)\b).*)"
)
_STARTERS = ("ChildFailedError", "CalledProcessError")  # of torchrun and the launcher: another process failed
_RANK = re.compile(r"Signal (\d+) \(SIG\w+\) received by PID")  # torchrun's table; the root cause is last


def training_command(weights: Path | None, *, uses_torchrun: bool) -> list[str]:
    """The command that trains the recipe file that follows it.

    It is LLaMA-Factory's own, which starts torchrun itself. With key-token weights it is our trainer.
    `RequestError` if LLaMA-Factory is missing.
    """
    need("llamafactory")
    if weights is None:
        return [llamafactory_cli(), "train"]
    trainer = ["-m", "tuneyard.recipes.llamafactory.token_weights", str(weights)]
    if not uses_torchrun:
        return [PYTHON, *trainer]
    variable = os.environ.get
    nodes = variable("NNODES", "1")
    ranks = ["-m", "torch.distributed.run", "--nnodes", nodes]
    ranks += ["--nproc_per_node", variable("NPROC_PER_NODE") or "gpu"]
    if nodes == "1":
        ranks.append("--standalone")
    else:
        ranks += ["--node_rank", variable("NODE_RANK", "0")]
        ranks += ["--master_addr", variable("MASTER_ADDR", "127.0.0.1")]
        ranks += ["--master_port", variable("MASTER_PORT", "29500")]
    return [sys.executable, *ranks, *trainer]


def llamafactory_cli() -> str:
    """LLaMA-Factory's program."""
    program = shutil.which("llamafactory-cli", path=environment()["PATH"])
    if program is None:
        raise RequestError(
            _("llamafactory-cli not found; install it with `{command}`", command=set_up_command())
        )
    return program


def launch(
    command: list[str], output_dir: Path, lock: int, *, uses_torchrun: bool = False, **variables: str
) -> None:
    """Run a training to its end; `ContentError` with the reason's last lines if it fails.

    If it `uses_torchrun`, LLaMA-Factory's own command starts that for one GPU, too. The training inherits
    the descriptor `lock`, and gets further environment variables, whose values are secrets.
    Whatever ends this process (even kill -9) ends it with all its workers.
    """
    training_log = TrainingLog(output_dir, tuple(variables.values()))
    refuse_written_link(output_dir / LOG)
    forced = {"FORCE_TORCHRUN": "1"} if uses_torchrun else {}
    with (output_dir / LOG).open("ab") as log:
        process = start_family(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment(), **forced, **variables},
            pass_fds=(lock,),
        )
    training_log.follow(process.poll, partial(end_process, process))


class TrainingLog:
    """The log and the progress file in an output_dir, from where they end before a training writes there.

    A library may write one of the training's `secrets` into the log. The reason of a failure has none.
    """

    def __init__(self, output_dir: Path, secrets: tuple[str, ...] = ()) -> None:
        self.secrets = secrets
        self.log, self.progress = output_dir / LOG, output_dir / PROGRESS
        self._log_start, self._position = (
            path.stat().st_size if path.exists() else 0 for path in (self.log, self.progress)
        )

    def follow(self, exit_code: Callable[[], int | None], end: Callable[[], None]) -> None:
        """Show a training's progress until it has an exit code; `end` ends it if we are interrupted.

        `ContentError` with the reason's last lines if it fails.
        """
        try:
            from tqdm import tqdm

            # Steps, loss and time left come from the file that LLaMA-Factory's own callback appends to.
            bar: tqdm[Any] = tqdm(desc="starting", unit="step", mininterval=0.5, dynamic_ncols=True)
            with bar:
                while exit_code() is None:
                    time.sleep(0.2)
                    self._show(bar)
                    bar.update(0)
                self._show(bar)
        finally:
            end()
        code = exit_code()
        if code:
            raise ContentError(failure(code, self.log, self._log_start, self.secrets))

    def _show(self, bar: "tqdm[Any]") -> None:
        """Move the bar to the last complete line of the progress file."""
        with contextlib.suppress(FileNotFoundError), self.progress.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._position:  # LLaMA-Factory has begun the file anew
                self._position = 0
            file.seek(self._position)
            while (line := file.readline(LARGEST_RECORD)).endswith(b"\n"):
                self._position += len(line)
                with contextlib.suppress(ValueError, TypeError, AttributeError):
                    row = json.loads(line)
                    bar.n, bar.total = row.get("current_steps", bar.n), bar.total or row.get("total_steps")
                    bar.set_description("training" if bar.total else "starting", refresh=False)
                    bar.set_postfix({key: f"{row[key]:.4g}" for key in ("loss", "eval_loss") if key in row})


def environment() -> dict[str, str]:
    """Environment in which our modules and programs come first: torchrun is called by its name.

    The datasets library reports each `load_dataset` of local files to a server of the hub, unless the user
    or we switch it off.
    """
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}".rstrip(os.pathsep)
    paths = {**python_variables(), "PATH": programs}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    return {"HF_UPDATE_DOWNLOAD_COUNTS": "0", **os.environ, **paths, **quiet}


def users_environment(words: Sequence[str]) -> dict[str, str]:
    """Environment of a command that the user named: its script may import what lies beside it.

    Python itself adds the current folder for `python -m MODULE`, and for our modules it must not.
    """
    variables = environment()
    if list(words[1:2]) != ["-m"]:
        variables.pop(SAFE_PATH)
    return variables


def failure(code: int, log: Path, start: int = 0, secrets: tuple[str, ...] = ()) -> str:
    """Explain why a training failed: the last errors in its log from byte `start`, or the signal."""
    text = hide_secrets(read_end(log, start).replace("\r", "\n"), secrets)
    lines = [line for line in text.splitlines() if line.strip()]
    reasons = []
    for line, next_line in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        match = _ERROR.match(line)
        if match is None or any(name in match[1] for name in _STARTERS):
            continue
        reason = match[1].strip()
        if reason.endswith(":"):  # the message of several lines begins on its second
            reason = f"{reason} {next_line.strip()}"
        reasons.append(reason)
    reason = "\n".join(dict.fromkeys(reasons[-3:])) or "\n".join(lines)[-500:]
    ranks = _RANK.findall(text) if code > 0 else []
    ended = int(ranks[-1]) if ranks else -code
    how: str
    if ended < 0:
        how = _("exit code {number}", number=code)
    elif ended == signal.SIGKILL:
        how = _(
            "ended by SIGKILL (by the system where memory runs out: a smaller batch or cutoff_len takes less)"
        )
    else:
        how = _("ended by {signal}", signal=signal.Signals(ended).name)
    if ranks:
        how = _("a rank was {ended}", ended=how)
    return _("LLaMA-Factory failed, {how}; its output is in {log}\n{reason}", how=how, log=log, reason=reason)
