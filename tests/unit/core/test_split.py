"""`split` of a local file: the rows that it takes, as `datasets` takes them, and values at which it stops."""

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.datasets import find_dataset
from tuneyard.core.datasets.split import rows_of_split, split_problem
from tuneyard.core.errors import ContentError

SPLITS = [
    "train", "train[:50%]", "train[50%:]", "train[:10]", "train[-3:]", "train[2:-2]",
    "train[:10]+train[-10:]",
    "train[:7%]", "train[3%:9%]", "train[-5%:]", "train[:500]", "train[5:2]", "train[:0]", "train[:]",
    "train[:1_0]", "train[:50%](closest)", "train[:50%](pct1_dropremainder)", "train [:2]",
    "train[:2] + train", "train[:2] +train", "train[:2]+train[:1] ", "train+train[:1]", "all", "all[:2]",
    "train[5:4]", "train[10%:5]", " train",
    "test", "validation", "train_sft", "full", "Train", "", "train[:200%]", "train[:0.5]", "train[1]",
    "train[:2](closest)", "train[:50%](up)", "train+test", "train[",
]  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two files by their numbers of records, each loaded once so that further loads are quick."""
    folder = tmp_path_factory.mktemp("tables")
    for records in (24, 199):
        write_json(folder / f"{records}.json", [{"a": number} for number in range(records)])
    return folder


@pytest.mark.parametrize("records", [24, 199])
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_those_that_datasets_loads(tables, monkeypatch, split, records):
    from datasets import config, load_dataset

    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)  # it counts its loads on the hub
    try:
        rows = load_dataset(
            "json", data_files=str(tables / f"{records}.json"), split=split, cache_dir=str(tables / "cache")
        )
    except ValueError:  # also a part without a record
        assert not rows_of_split({"split": split}, records)
        return
    assert rows_of_split({"split": split}, records) == len(rows)


@pytest.mark.parametrize("value", ["test", None, 5, ["train"], "train[:0.5]"])
def test_another_split_of_a_local_file_is_an_error(value):
    problem = split_problem("p", {"file_name": "a.json", "split": value})
    assert (problem.code, problem.field) == ("E405", "split")


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "a.json"},
        {"file_name": "a.json", "split": "train[:5]"},
        {"hf_hub_url": "a/b", "split": "test"},
    ],
)
def test_a_split_of_a_hub_is_its_own(entry):
    assert split_problem("p", entry) is None


@pytest.mark.parametrize(
    "source", ["hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"]
)
@pytest.mark.parametrize("lenient", [True, False])
def test_a_file_next_to_a_hub_is_never_trained(tmp_path, source, lenient):
    write_json(tmp_path / "a.json", [{"instruction": "q", "output": "a"}])
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": "a.json", source: "owner/name"}})
    with raises(ContentError, source, "owner/name", "a.json"):
        find_dataset("a", tmp_path, lenient=lenient)
