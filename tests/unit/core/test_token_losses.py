"""token_losses.jsonl by row: exact values, rows in any order, and files that are none."""

import json

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLosses, TokenLossFile

THREE = TokenLosses(3, [5, 6, 7], [None, 0.25, 1.5])
ONE = TokenLosses(1, [8], [None])


def test_a_row_reads_back_as_it_was_written(tmp_path) -> None:
    path = tmp_path / TOKEN_LOSSES
    path.write_bytes(THREE.line() + ONE.line())
    file = TokenLossFile(path)
    assert (file.rows, file.read(1), file.read(3), file.read(2)) == ([1, 3], ONE, THREE, None)
    assert (THREE.mean, ONE.mean) == (0.875, None)
    assert (3 in file, 2 in file) == (True, False)


def test_the_last_line_of_a_row_counts_and_a_torn_one_is_skipped_while_the_file_grows(tmp_path) -> None:
    path = tmp_path / TOKEN_LOSSES
    path.write_bytes(TokenLosses(3, [1], [0.5]).line() + THREE.line() + ONE.line()[:-4])
    file = TokenLossFile(path, growing=True)
    assert (file.rows, file.read(3)) == ([3], THREE)
    with raises(ContentError, f"{TOKEN_LOSSES}:3", "JSON"):
        TokenLossFile(path)


@pytest.mark.parametrize("row", [None, 0, -1, "3", True, 1.0])
def test_a_line_without_a_row_is_named(tmp_path, row) -> None:
    path = tmp_path / TOKEN_LOSSES
    path.write_text(json.dumps({"row": row, "ids": [], "losses": []}) + "\n")
    with raises(ContentError, f"{TOKEN_LOSSES}:1", "whole number"):
        TokenLossFile(path)


@pytest.mark.parametrize(
    ("ids", "losses"),
    [([1, 2], [None]), (None, []), ([], None), (["1"], [0.5]), ([1], ["0.5"]), ([1], [float("nan")])],
)
def test_ids_and_losses_that_do_not_fit_are_refused_with_their_row(tmp_path, ids, losses) -> None:
    path = tmp_path / TOKEN_LOSSES
    path.write_text(json.dumps({"row": 7, "ids": ids, "losses": losses}) + "\n")
    with raises(ContentError, "row 7", "--token-losses"):
        TokenLossFile(path).read(7)


def test_a_missing_file_is_named(tmp_path) -> None:
    with raises(RequestError, TOKEN_LOSSES):
        TokenLossFile(tmp_path / TOKEN_LOSSES)
