"""A mailed dataset or spec reaches no picture, file or server of its own choice: SECURITY.md, "Files"."""

from pathlib import Path

import pytest
from PIL import Image

from testing.tiny import make_weightless
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.compiler.read import hub
from tuneyard.compiler.view.thumbnails import thumbnails
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.loader import Launch
from tuneyard.recipes.llamafactory.inspection import inspect


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A dataset's folder with a picture, and one of the user beside it."""
    for name in ("data", "data/media", "home"):
        (tmp_path / name).mkdir()
    for name in ("data/media/a.png", "home/passport.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "data/link.png").symlink_to(tmp_path / "home/passport.png")
    return tmp_path


@pytest.mark.threat("links", "data view")
@pytest.mark.parametrize("name", ["home/passport.png", "data/../home/passport.png", "data/link.png"])
@pytest.mark.parametrize("form", [str, lambda path: {"bytes": None, "path": path}])
def test_a_page_shows_no_picture_from_elsewhere(pictures: Path, name: str, form) -> None:
    path = f"{pictures}/{name}"
    uris, outside = thumbnails([form(path), form(f"{pictures}/data/media/a.png")], [pictures / "data"])
    assert len(uris) == 1 and outside == path


def test_a_folder_of_the_command_line_is_shown(pictures: Path) -> None:
    uris, outside = thumbnails([f"{pictures}/home/passport.png"], [pictures / "data", pictures / "home"])
    assert len(uris) == 1 and outside == ""


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"path": "json", "data_files": "http://127.0.0.1:9/x.json"}, "path"),
        ({"path": "csv"}, "path"),
        ({"path": "/etc"}, "path"),
        ({"path": "../a/b"}, "path"),
        ({"path": "http://127.0.0.1/a"}, "path"),
        ({"path": "a/b/c.py"}, "path"),
        ({"path": "our/own", "data_files": "file:///etc/passwd"}, "data_files"),
        ({"path": "our/own", "data_files": ["data/x.json", "/etc/passwd"]}, "data_files"),
        ({"path": "our/own", "data_files": {"train": ["http://127.0.0.1/x"]}}, "data_files"),
        ({"path": "our/own", "data_files": {"train": "../../x"}}, "data_files"),
        ({"path": "our/own", "data_files": "~/x.json"}, "data_files"),
    ],
)
def test_a_hub_source_names_a_dataset_of_the_hub(source: dict[str, object], field: str) -> None:
    with raises(ContentError, f"source.hub: {field}"):
        hub.find_files(source, {"train": "train"}, "")


def test_paths_within_a_dataset_of_the_hub_stay() -> None:
    """The same source is refused as soon as one of its patterns leads out of the dataset."""
    files: dict[str, object] = {"train": "data/train*", "dev": ["data/dev*"]}
    hub.refuse_other_places({"path": "our/own", "data_files": files})
    for outside in ("../data/dev*", "/data/dev*", "https://example.org/dev*"):
        with raises(ContentError, "source.hub: data_files"):
            hub.refuse_other_places({"path": "our/own", "data_files": files | {"dev": [outside]}})


@pytest.mark.slow
def test_looking_at_a_recipe_writes_into_no_folder_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLaMA-Factory copies the rows into `cache_dir`; without one into the cache of datasets."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    rows = [{"instruction": f"Is {number} even?", "input": "", "output": "yes"} for number in range(8)]
    write_json(tmp_path / "a.json", rows)
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": "a.json"}})
    model = make_weightless(tmp_path / "model")
    settings: dict[str, object] = {
        "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "dataset_dir": str(tmp_path), "dataset": "a", "template": "qwen", "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "named"), "tokenized_path": str(tmp_path / "tokenized"),
        "logging_dir": str(tmp_path / "logs"),
    }  # fmt: skip
    for cache in ("named", ""):
        settings["cache_dir"] = cache and str(tmp_path / cache)
        answer = inspect({key: value for key, value in settings.items() if value}, Launch())
        assert answer.data["a"].tokens.rows == 8, answer
    there = {path.name for path in tmp_path.iterdir()}
    assert there - {"xdg"} == {"a.json", "dataset_info.json", "model"}
