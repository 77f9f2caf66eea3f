"""Clusters of examples: by the manifest, by name, from the file beside the records or from them."""

from array import array
from pathlib import Path

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.datasets.compiled import row_index_file, write_row_index
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.eval.data.dataset import EvalDataset, read_datasets

ROWS = [{"instruction": f"Q{n}", "output": "A", "topic": f"t{n % 2}"} for n in range(4)]


def compiled(folder: Path, cluster: str | None = "premise", rows: list[dict] = ROWS) -> Path:
    """A dataset as compile leaves it: records, what lies beside them, and the manifest."""
    path = folder / "d-eval.json"
    write_json(path, rows)
    write_row_index(
        row_index_file(path), array("Q", range(len(rows))), {"premise": array("I", [7, 7, 8, 9][: len(rows)])}
    )
    files = {path.name: {"rows": len(rows), "sha256": sha256(path)}}
    manifest = {"files": files, "cluster": cluster, "made_from": {"sources": []}}
    write_json(folder / "manifest.json", manifest)
    return path


def read(path: Path, cluster: str | None = None) -> EvalDataset:
    (questions,) = read_datasets((), (path,), cluster)
    return questions


def test_the_manifest_names_the_column_and_the_file_beside_the_records_has_it(tmp_path) -> None:
    found = read(compiled(tmp_path))
    assert (found.cluster, found.clusters) == ("premise", ["7", "7", "8", "9"])
    assert found.take([3, 0]).clusters == ["9", "7"] and found.take([3, 0]).answers == ["A", "A"]


def test_a_named_column_wins_over_the_manifests(tmp_path) -> None:
    assert read(compiled(tmp_path), "topic").clusters == ["t0", "t1", "t0", "t1"]
    assert read(compiled(tmp_path, None)).clusters is None
    assert read(compiled(tmp_path, None), "premise").clusters == ["7", "7", "8", "9"]


def test_none_takes_every_example_as_independent(tmp_path) -> None:
    found = read(compiled(tmp_path), "none")
    assert (found.cluster, found.clusters) == (None, None)


def test_a_manifest_says_nothing_of_files_that_it_does_not_list(tmp_path) -> None:
    compiled(tmp_path)
    write_json(tmp_path / "mine.json", ROWS)
    assert read(tmp_path / "mine.json").clusters is None
    (tmp_path / "manifest.json").write_text("[]")
    assert read(tmp_path / "mine.json").clusters is None


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path) -> None:
    path = compiled(tmp_path)
    with raises(RequestError, "story", "premise, instruction, output, topic") as error:
        read(path, "story")
    assert error.value.exit_code == 2
    row_index_file(path).unlink()
    with raises(RequestError, "premise", "manifest.json"):
        read(path)


def test_clusters_of_other_records_are_refused(tmp_path, capsys) -> None:
    path = compiled(tmp_path)
    write_json(path, ROWS[::-1])
    with raises(ContentError, "d-eval.examples.npy"):
        read(path)
    assert read(path, "none").clusters is None
    assert "d-eval.json: the file has changed" in capsys.readouterr().err
    (tmp_path / "manifest.json").unlink()
    write_json(path, ROWS[:3])
    with raises(ContentError, "d-eval.json", "d-eval.examples.npy"):
        read(path, "premise")


def test_a_column_that_only_some_records_have_is_refused(tmp_path) -> None:
    path = compiled(tmp_path, rows=[*ROWS[:3], {"instruction": "Q", "output": "A"}])
    with raises(ContentError, "record 4", "3"):
        read(path, "topic")
