"""What a run leaves behind, and what it takes up again."""

from itertools import accumulate, product
from pathlib import Path

import pytest

from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.installation.checkout import version
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLosses, TokenLossFile
from tuneyard.eval.runs.results import PREDICTIONS, RUN, PredictionLog, begin_scoring_run, check_folder

IDENTITY = {
    "settings": {"command": "eval.nli", "dtype": "fp32"},
    "models": {"base": "a" * 64},
    "datasets": {"rte": "b" * 64},
}
BATCHES = [[3, 1], [0, 2], [4]]


def predictions(rows):
    return [{"idx": row, "row": row, "text": "是"} for row in rows]


def begin(folder: Path, identity: object = IDENTITY, *, force=False, **summaries) -> None:
    begin_scoring_run(folder, identity, force=force, **summaries)


def finished(folder: Path) -> bytes:
    log = PredictionLog(folder, BATCHES)
    for batch in log.pending:
        log.append(predictions(batch), {})
    log.finish([])
    return (folder / PREDICTIONS).read_bytes()


def test_a_log_cut_at_any_byte_ends_with_the_same_bytes(tmp_path) -> None:
    whole = finished(tmp_path / "whole")
    log = PredictionLog(tmp_path / "grown", BATCHES)
    for batch in BATCHES:
        log.append(predictions(batch), {})
    grown = (tmp_path / "grown" / PREDICTIONS).read_bytes()
    for cut in range(len(grown) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / PREDICTIONS).write_bytes(grown[:cut])
        assert finished(folder) == whole, cut


NUMBERS = [11, 3, 8, 5, 2]  # of the rows of BATCHES in the dataset's file


def log_with_losses(folder: Path) -> PredictionLog:
    return PredictionLog(folder, BATCHES, record_numbers=NUMBERS)


def append_with_losses(log: PredictionLog, batch) -> None:
    fields = {row: {"ids": [row, 9], "token_losses": [None, row / 8]} for row in batch}
    log.append(predictions(batch), fields)


def finished_with_losses(folder: Path) -> list[bytes]:
    log = log_with_losses(folder)
    for batch in log.pending:
        append_with_losses(log, batch)
    log.finish([])
    return [(folder / name).read_bytes() for name in (PREDICTIONS, TOKEN_LOSSES)]


def cuts(log: bytes) -> list[int]:
    """The end of every line of a log, and the bytes before and after it."""
    ends = accumulate(map(len, log.splitlines(keepends=True)), initial=0)
    return sorted({end + step for end in ends for step in (-1, 0, 1)} & {*range(len(log) + 1)})


def test_logs_cut_around_any_line_end_with_the_same_losses_of_tokens(tmp_path) -> None:
    whole = finished_with_losses(tmp_path / "whole")
    file = TokenLossFile(tmp_path / "whole" / TOKEN_LOSSES)
    assert file.rows == sorted(NUMBERS)
    assert file.read(8) == TokenLosses(8, [2, 9], [None, 0.25])
    log = log_with_losses(tmp_path / "grown")
    for batch in BATCHES:
        append_with_losses(log, batch)
    grown = (tmp_path / "grown" / PREDICTIONS).read_bytes()
    losses = (tmp_path / "grown" / TOKEN_LOSSES).read_bytes()
    for cut, cut_of_losses in product(cuts(grown), cuts(losses)):
        folder = tmp_path / f"{cut}-{cut_of_losses}"
        folder.mkdir()
        (folder / PREDICTIONS).write_bytes(grown[:cut])
        (folder / TOKEN_LOSSES).write_bytes(losses[:cut_of_losses])
        assert finished_with_losses(folder) == whole, (cut, cut_of_losses)


def test_a_batch_without_losses_of_tokens_is_scored_again(tmp_path) -> None:
    log = log_with_losses(tmp_path)
    append_with_losses(log, [3, 1])
    log.append(predictions([0, 2]), {})
    assert log_with_losses(tmp_path).pending == [[0, 2], [4]]


def test_a_log_of_other_things_is_named_with_its_line(tmp_path) -> None:
    (tmp_path / PREDICTIONS).write_text('{"row": 3}\nnot json\n')
    with raises(ContentError, "predictions.jsonl:2; JSON", "--force"):
        PredictionLog(tmp_path, BATCHES)


def test_a_resumed_run_records_the_tuneyard_that_resumed_it(tmp_path) -> None:
    write_json(tmp_path / RUN, {**IDENTITY, "tuneyard": {"version": "0.0"}})
    begin(tmp_path)
    assert read_json(tmp_path / RUN)["tuneyard"] == version()
    with raises(RequestError, "fp32", "bf16", "dtype"):
        begin(tmp_path, {**IDENTITY, "settings": {"dtype": "bf16"}})


def test_rows_that_the_set_does_not_have_are_dropped(tmp_path) -> None:
    whole = finished(tmp_path)
    with (tmp_path / PREDICTIONS).open("a") as file:
        file.write('{"row": 99}\n')
    assert finished(tmp_path) == whole


def test_a_folder_is_resumed_or_started_anew_and_must_be_writable(tmp_path, monkeypatch):
    begin(tmp_path / "r")
    with raises(RequestError, "--resume", "--force"):
        check_folder(tmp_path / "r", "eval.nli", resume=True, force=True)
    check_folder(tmp_path / "r", "eval.nli", resume=True, force=False)
    check_folder(tmp_path / "new", "eval.nli", resume=True, force=False)
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    with raises(RequestError, f"--out {tmp_path / 'new/v'}: {tmp_path} is no folder that can be written to"):
        check_folder(tmp_path / "new/v", "eval.nli", resume=False, force=False)


def test_force_removes_the_commands_own_files_and_those_in_run_json_and_none_elsewhere(tmp_path) -> None:
    """As the plots of a sweep on other datasets than the new one."""
    out, outside = tmp_path / "out", tmp_path / "outside.png"
    begin(out, summaries=["rte.png", "../outside.png", str(outside)])
    for path in (out / "rte.png", out / "points.json", out / "notes.md", outside):
        path.touch()
    begin(out, force=True, summaries=["points.json", "mnli.png"])
    assert names(out) == ["notes.md", RUN]
    assert outside.exists()
    assert read_json(out / RUN)["files"] == ["points.json", "mnli.png"]


def test_force_removes_the_comparison_of_the_old_run_and_no_file_of_the_user(tmp_path) -> None:
    """What `eval compare OUT --out OUT` wrote is about the old scores."""
    begin(tmp_path)
    write_json(tmp_path / "table.json", {"plots": ["forest.png", "../outside.png"]})
    for name in ("table.md", "changed.jsonl", "forest.png", "mine.png", "notes.md"):
        (tmp_path / name).touch()
    outside = tmp_path.parent / "outside.png"
    outside.touch()
    begin(tmp_path, force=True)
    assert names(tmp_path) == ["mine.png", "notes.md", RUN]
    assert outside.exists()


def test_a_table_of_the_users_own_stays(tmp_path):
    begin(tmp_path)
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "table.md").touch()
    begin(tmp_path, force=True)
    assert names(tmp_path) == [RUN, "table.json", "table.md"]


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_of_something_else_is_left_alone(tmp_path, force) -> None:
    (tmp_path / "training.json").touch()
    with raises(RequestError, "run.json", "--out"):
        check_folder(tmp_path, "eval.nli", resume=not force, force=force)


def test_a_setting_that_the_run_lacks_or_has_besides_is_a_change(tmp_path) -> None:
    """As in a sweep from before its points were scored on one half alone."""
    begin(tmp_path)
    halves = {**IDENTITY["settings"], "rows": "halves"}
    with raises(RequestError, "rows", "halves"):
        begin(tmp_path, {**IDENTITY, "settings": halves})
    with raises(RequestError, "dtype"):
        begin(tmp_path, {**IDENTITY, "settings": {"command": "eval.nli"}})


def test_another_adapter_joins_a_run(tmp_path):
    begin(tmp_path)
    begin(tmp_path, {**IDENTITY, "models": {"new": "c"}})
    assert read_json(tmp_path / RUN)["models"] == {"base": "a" * 64, "new": "c"}


@pytest.mark.parametrize("models", [{"new": "c"}, IDENTITY["models"]])
def test_force_removes_the_old_runs_models_and_nothing_else(tmp_path, models):
    begin(tmp_path)
    for name in ("base/rte", "base/mine", "other/rte"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x").touch()
    begin(tmp_path, {**IDENTITY, "models": models}, force=True)
    assert not (tmp_path / "base/rte").exists()
    assert (tmp_path / "base/mine/x").exists()
    assert (tmp_path / "other/rte/x").exists()


def test_what_a_killed_write_left_is_swept_away(tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    end = "tuneyard-0123456789abcdef"
    (out / f".{RUN}.{end}").touch()
    check_folder(out, "eval.nli", resume=True, force=False)
    begin(out)
    folder = out / "base/rte"
    folder.mkdir(parents=True)
    for name in (PREDICTIONS, "metrics.json", "results.json"):
        (folder / f".{name}.{end}").touch()
    finished(folder)
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == [PREDICTIONS, RUN]


@pytest.mark.parametrize(
    ("models", "sets"),
    [
        (["base", "../other"], ["rte"]),
        (["base"], ["rte", "../../other"]),
        (["/nowhere"], ["x"]),
    ],
)
def test_a_forged_run_json_deletes_nothing_outside(tmp_path, models, sets):
    out, precious = tmp_path / "out", tmp_path / "other/rte/keep"
    own = out / "base/rte"
    for folder in (precious, own):
        folder.mkdir(parents=True)
    forged = {"settings": {}, "models": dict.fromkeys(models, "x"), "datasets": dict.fromkeys(sets, "x")}
    write_json(out / RUN, forged)
    with raises(ContentError, "run.json"):
        begin(out, force=True)
    assert precious.is_dir()
    assert own.is_dir()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    out, precious = tmp_path / "out", tmp_path / "other/rte"
    precious.mkdir(parents=True)
    begin(out)
    (out / "base").symlink_to(tmp_path / "other")
    with raises(ContentError, "run.json"):
        begin(out, force=True)
    assert precious.is_dir()


@pytest.mark.parametrize("name", ["../notes", ".", "", "notes", "a\0b", "\ud800", "link"])
def test_force_leaves_what_no_run_of_ours_lists(tmp_path: Path, name: str) -> None:
    identity = {"settings": {"command": "eval.nli"}, "models": {"base": "x"}, "datasets": {"d": "y"}}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    (tmp_path / "link").symlink_to("notes/mine.txt")
    write_json(tmp_path / "run.json", {**identity, "files": [name]})
    begin(tmp_path, identity, force=True)
    assert (tmp_path / "notes/mine.txt").read_text() == "mine" and (tmp_path / "link").is_symlink()
