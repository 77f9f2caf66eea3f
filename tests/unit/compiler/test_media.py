"""Images, videos and audios: one placeholder for each file, files that are there, entries that name them."""

import json

import pytest
from PIL import Image

from tests.json_files import read_json, write_lines
from tests.messages import raises
from tuneyard.compiler.columns.media import AUDIOS, IMAGES, LONGEST_PATH, VIDEOS
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.errors import ContentError
from tuneyard.core.records import Example, read_example

ALPACA = """
about: Questions about pictures
columns: {question: [question], answer: [answer], pictures: {names: [image], is: images, default: []}}
write: [{dataset: seen, file: seen.json, format: alpaca, instruction: "Look: {question}", output: "{answer}"}]
"""


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures/a.png")
    return tmp_path


def compiled(folder, rows, spec=ALPACA, **source):
    (folder / "seen.yaml").write_text(spec + (f"source: {json.dumps(source)}" if source else ""))
    write_lines(folder / "rows.jsonl", rows)
    spec = load_spec(str(folder / "seen.yaml"))
    request = CompileRequest(spec, sources=(str(folder / "rows.jsonl"),), out=folder / "out", force=True)
    report = compile_dataset(request)
    written = folder / "out/seen/seen.json"
    return report, read_json(written) if written.exists() else []


def test_alpaca_gets_its_placeholders_where_it_has_none(pictures):
    rows = [
        {"question": "What?", "answer": "a", "image": "pictures/a.png"},
        {"question": "What <image>?", "answer": "b", "image": ["pictures/a.png"]},
        {"question": "Two?", "answer": "c", "image": ["pictures/a.png", "pictures/a.png"]},
        {"question": "None?", "answer": "d", "image": None},
    ]
    report, records = compiled(pictures, rows)
    assert [record["instruction"] for record in records] == [
        "Look: <image>What?", "Look: What <image>?", "Look: <image><image>Two?", "Look: None?",
    ]  # fmt: skip
    assert [len(record["pictures"]) for record in records] == [1, 1, 2, 0]
    assert (report.read, report.kept) == (4, 4)
    entry = entries_of(load_spec(str(pictures / "seen.yaml")))["seen"]
    assert entry["columns"]["images"] == "pictures"
    assert read_example(records[2], entry, "here").paths == ["pictures/a.png"] * 2


def test_the_same_question_about_another_picture_is_no_repeated_row(pictures):
    Image.new("RGB", (4, 4)).save(pictures / "pictures/b.png")
    rows = [{"question": "What?", "answer": "x", "image": f"pictures/{name}.png"} for name in "ab"]
    report, _ = compiled(pictures, rows)
    assert report.problems.counts == {}
    report, _ = compiled(pictures, [rows[0], rows[0]])
    assert report.problems.counts == {"W202": 1}


def test_files_lie_where_the_spec_says(pictures):
    Image.new("RGB", (800, 800)).save(pictures / "pictures/large.png")
    rows = [
        {"question": "a?", "answer": "x", "image": "large.png"},
        {"question": "b?", "answer": "x", "image": str(pictures / "pictures/a.png")},
    ]
    report, _ = compiled(pictures, rows)
    assert report.failed and report.problems.counts == {"E110": 1}
    report, _ = compiled(pictures, rows, media_dir=str(pictures / "pictures"))
    said = "\n".join(report.problems.notes)
    assert f"media are looked for in {pictures / 'pictures'}: a recipe names it as media_dir" in said


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_an_image_that_is_cut_off_is_named_and_a_whole_one_is_kept(ending, pictures):
    whole = pictures / f"pictures/whole.{ending}"
    Image.effect_noise((64, 64), 60).convert("RGB").save(whole)
    (pictures / f"pictures/half.{ending}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    rows = [{"question": "What?", "answer": x, "image": f"pictures/{x}.{ending}"} for x in ("whole", "half")]
    report, _ = compiled(pictures, rows)
    (problem,) = report.problems.errors
    assert problem.code == "E110" and f"half.{ending}: " in problem.line()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "https://example.org/a.png",
            'found "https://example.org/a.png", expected the path of a file: save it',
        ),
        ("data:image/png;base64," + "A" * 5000, "expected the path of a file: save it"),
        ("a" * 5000 + ".png", "file not found"),
    ],
)
def test_what_is_no_path_is_named_in_short(path, said, pictures):
    report, _ = compiled(pictures, [{"question": "What?", "answer": "a", "image": path}])
    (problem,) = report.problems.errors
    assert problem.code == "E110" and said in problem.line()


def test_a_picture_in_base64_is_no_file_and_its_message_is_short(pictures):
    images = [str(pictures / "pictures/a.png"), "A" * 5000]
    missing = IMAGES.not_found({"_images": images})
    assert missing.count("A" * LONGEST_PATH) == 1
    assert "A" * (LONGEST_PATH + 1) not in missing


@pytest.mark.parametrize(
    ("column_type", "medium", "is_usable"),
    [
        (IMAGES, "a.png", True),
        (IMAGES, b"\x89PNG", True),
        (IMAGES, {"bytes": None, "path": "a.png"}, True),
        (IMAGES, {"bytes": b"\x89PNG", "path": None}, True),
        (IMAGES, {"path": "a.png"}, False),
        (IMAGES, {"bytes": "iVBORw0KGgo=", "path": None}, False),
        (IMAGES, {"bytes": None, "path": None}, False),
        (IMAGES, ["a.png"], False),
        (IMAGES, None, False),
        (IMAGES, 5, False),
        (VIDEOS, ["a.png", "b.png"], True),
        (VIDEOS, [{"bytes": None, "path": "a.png"}], True),
        (VIDEOS, ["a.png", None], False),
        (VIDEOS, {"path": "a.mp4"}, False),
        (AUDIOS, "a.wav", True),
        (AUDIOS, {"bytes": None, "path": "a.wav"}, False),
        (AUDIOS, [0.1, 0.2], False),
    ],
)
def test_media_that_are_no_paths(column_type, medium, is_usable):
    assert (column_type.unusable({column_type.loaded_column: [medium]}) == "") == is_usable


@pytest.mark.parametrize(
    ("medium", "loaded", "differs"),
    [
        ("a.png", "media/a.png", False),
        (["a.png", "b.png"], ["media/a.png", "media/b.png"], False),
        (["a.png", "b.png"], ["media/a.png"], True),
        ({"path": "a.png"}, {"bytes": None, "path": "a.png"}, False),
        ({"path": "a.png"}, {"bytes": None, "path": "b.png"}, True),
        (None, None, False),
        ("a.png", None, True),
        ("", "", True),
    ],
)
def test_media_of_a_file_and_of_the_loader(medium, loaded, differs):
    example = Example([], [], media={"images": [medium]})
    pairs = list(IMAGES.loaded_pairs(example, {"_images": [loaded]}))
    assert pairs == ([(medium, loaded)] if differs else [])


def test_frames_are_looked_for(pictures):
    there = str(pictures / "pictures/a.png")
    assert VIDEOS.not_found({"_videos": [[there, there]]}) == ""
    of_frame = VIDEOS.not_found({"_videos": [[there, "gone.png"]]})
    of_object = IMAGES.not_found({"_images": [{"bytes": None, "path": "gone.png"}]})
    for missing in (of_frame, of_object):
        assert "gone.png" in missing
    assert "a recipe names the folder as media_dir" in of_frame
    assert "no media_dir" in of_object
    assert "a recipe names" not in of_object
    assert IMAGES.not_found({"_images": [{"bytes": b"x", "path": "gone.png"}]}) == ""


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("gone.png", "a recipe names the folder as media_dir"),
        ("https://example.org/a.png", "write the path of the file"),
        ("s3://bucket/a.png", "write the path of the file"),
        ("data:image/png;base64,iVBORw0KGgo=", "write the path of the file"),
        ("", "write null"),
    ],
)
def test_the_fix_of_a_missing_file_fits_its_path(path, fix):
    assert fix in IMAGES.not_found({"_images": [path]})


@pytest.mark.parametrize("paths", [["a.png", None], ["a.png", 5], [["a.png"], None], [["a.png", None]]])
def test_media_at_which_the_loader_stops(paths):
    entry = {"columns": {"prompt": "q", "response": "a", "images": "i"}}
    with raises(ContentError, "row 1", "i"):
        read_example({"q": "<image>", "a": "b", "i": paths}, entry, "row 1")


@pytest.mark.parametrize(
    ("question", "answer", "images", "is_refused"),
    [
        ("<image>q", "a", ["a.png"], False),
        ("<image>q<image>", "a", ["a.png", "b.png"], False),
        ("q", "<image>", ["a.png"], False),
        ("<image>q", "a", ["a.png", "b.png"], True),
        ("<image><image>q", "a", ["a.png"], True),
        ("q", "a", ["a.png"], True),
        ("<image>q", "a", None, False),
    ],
)
def test_media_are_counted_as_llamafactory_counts_them(question, answer, images, is_refused):
    turns = [{"role": "user", "content": question}], [{"role": "assistant", "content": answer}]
    loaded = {"_prompt": turns[0], "_response": turns[1], "_images": images}
    assert bool(IMAGES.miscounted(loaded)) == is_refused
