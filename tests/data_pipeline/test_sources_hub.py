"""Data sets on the hub, by name. The hub is a server on this machine that answers as the real one."""

import io
import json
import pickle

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from data_pipeline import sources
from tests.data_pipeline.hub_server import Hub
from tests.data_pipeline.source_files import error_of, png


def parquet(*numbers):
    """A shard, with images in it as the hub's are."""
    rows = [
        {
            "image": {"bytes": png(number), "path": f"{number}.png"},
            "question": f"Who is {number}?",
            "answer": str(number),
        }
        for number in numbers
    ]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=2)
    return file.getvalue()


def lines(*numbers, image=""):
    return "".join(
        json.dumps({"image": image, "question": f"Who is {number}?", "answer": str(number)}) + "\n"
        for number in numbers
    )


def card(configs):
    return f"---\nconfigs: {json.dumps(configs)}\n---\n# Crops\n"


def asked_at(monkeypatch, endpoint):
    """Has the hub's client, which has read HF_ENDPOINT by now, ask there."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub without a data set, an empty cache, and a working directory with nothing in it."""
    with Hub() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        asked_at(monkeypatch, hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield hub


def answers(path, **settings):
    records, errors = sources.read(path, **settings)
    assert not errors
    return [record.messages[-1]["content"] for record in records]


SHARDS = {
    "data/train-00000-of-00002.parquet": parquet(1, 2, 3),
    "data/train-00001-of-00002.parquet": parquet(4, 5),
    "data/test-00000-of-00001.parquet": parquet(9),
}


def test_a_split_of_two_shards_is_read_with_its_images_and_pinned_to_its_commit(hub):
    commit = hub.commit("farm/crops", {**SHARDS, "README.md": "# Crops"})
    source = sources.open_source("hf://datasets/farm/crops#train")
    assert [source[index].messages[-1]["content"] for index in (4, 0, 3)] == ["5", "1", "4"]
    assert source[0].messages[0]["content"][0]["image"] == png(1)
    assert source[4].id == "crops-train-5"
    assert source[4].where.startswith(
        f"hf://datasets/farm/crops@{commit}/train*.parquet, train-00001-of-00002.parquet, row 2"
    )
    assert not any("test-00000" in request for request in hub.asked), "another split was downloaded"
    hub.asked.clear()
    assert pickle.loads(pickle.dumps(source))[2].messages[-1]["content"] == "3"  # in a worker
    assert not hub.asked


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("farm/crops#test", ["9"]),
        ("farm/crops@first#train", ["7"]),
        ("hf://datasets/farm/crops@first", ["7"]),
        ("hf://datasets/farm/crops@refs/pr/1#train", ["8"]),
        ("hf://datasets/farm/crops@refs%2Fpr%2F1", ["8"]),
        ("hf://datasets/farm/crops/data/test-00000-of-00001.parquet", ["9"]),
        ("hf://datasets/farm/crops/data/t*-00000-of-*.parquet", ["9", "1", "2", "3"]),
        ("hf://datasets/farm/crops/**/train-*.parquet", ["1", "2", "3", "4", "5"]),
    ],
)
def test_a_revision_a_split_and_files_are_named(hub, path, expected):
    hub.commit("farm/crops", SHARDS)
    hub.commit("farm/crops", {"train.parquet": parquet(7)}, "first")
    hub.commit("farm/crops", {"train.parquet": parquet(8)}, "refs/pr/1")
    assert answers(path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train.jsonl": lines(1, 2), "test.jsonl": lines(3)}, ["1", "2"]),
        ({"train/a.jsonl": lines(1), "train/b.jsonl": lines(2), "val/c.jsonl": lines(3)}, ["1", "2"]),
        ({"crops.json": json.dumps([json.loads(lines(1)), json.loads(lines(2))])}, ["1", "2"]),
        (
            {"a.csv": "Image,Question,Answer\n,Who?,one\n", "b.csv": "Image,Question,Answer\n,Who?,two\n"},
            ["one", "two"],
        ),
    ],
)
def test_json_and_csv_are_read_by_the_names_of_their_files(hub, files, expected):
    hub.commit("farm/crops", files)
    assert answers("farm/crops#train") == expected


def test_images_that_lie_beside_json_come_with_it(hub):
    hub.commit(
        "farm/crops",
        {"data/train.jsonl": lines(1, image="img/1.png"), "data/img/1.png": png(3), "else/2.png": png(4)},
    )
    record = sources.open_source("hf://datasets/farm/crops")[0]
    with open(record.messages[0]["content"][0]["image"], "rb") as image:
        assert image.read() == png(3)
    assert not any("2.png" in request for request in hub.asked)


@pytest.mark.parametrize(
    "data_files",
    [
        "a/*.jsonl",
        ["a/1.jsonl", "a/2.jsonl"],
        {"train": "a/*.jsonl", "test": "b.jsonl"},
        [{"split": "train", "path": ["a/1.jsonl", "a/2.jsonl"]}, {"split": "test", "path": "b.jsonl"}],
    ],
)
def test_the_card_says_which_files_are_a_split(hub, data_files):
    files = {"a/1.jsonl": lines(1), "a/2.jsonl": lines(2), "b.jsonl": lines(3)}
    hub.commit("farm/crops", {**files, "README.md": card([{"config_name": "default", "data_files": data_files}])})
    assert answers("farm/crops#train") == ["1", "2"]


def test_one_of_several_configs_is_named_unless_one_is_the_default(hub):
    configs = [{"config_name": "en", "data_dir": "english"}, {"config_name": "de", "data_files": "german.jsonl"}]
    files = {"english/x.jsonl": lines(1), "german.jsonl": lines(2)}
    hub.commit("farm/crops", {**files, "README.md": card(configs)})
    assert answers("farm/crops/de#train") == ["2"]
    assert answers("hf://datasets/farm/crops/en") == ["1"]
    name = "hf://datasets/farm/crops"
    assert error_of(name) == f"{name}: has the configs en, de; name one: {name}/en"
    assert "has no config 'fr'; the configs are en, de" in error_of(f"{name}/fr")
    hub.commit("farm/crops", {**files, "README.md": card([configs[0], {**configs[1], "default": True}])})
    assert answers(name) == ["2"]


def test_what_the_hub_converted_is_read_where_the_data_set_has_nothing_that_is(hub):
    hub.commit("farm/crops", {"crops.py": "", "data.zip": b""})
    converted = {"en/train/0000.parquet": parquet(1), "en/train/0001.parquet": parquet(2), "en/test/0000.parquet": b""}
    hub.commit("farm/crops", converted, "refs/convert/parquet")
    assert answers("farm/crops#train") == ["1", "2"]
    hub.commit("farm/crops", {**converted, "de/train/0000.parquet": parquet(3)}, "refs/convert/parquet")
    assert answers("farm/crops/de#train") == ["3"]
    assert "has the configs en, de; name one" in error_of("farm/crops#train")


@pytest.mark.parametrize(
    ("files", "path", "part"),
    [
        (SHARDS, "", "has the splits test, train; name one: hf://datasets/farm/crops#test"),
        (SHARDS, "#dev", "has no split 'dev'; the splits are test, train"),
        (SHARDS, "/en", "its card lists no configs, so there is no 'en'"),
        (SHARDS, "/data/trian-00000-of-00002.parquet", "did you mean data/train-00000-of-00002.parquet?"),
        (SHARDS, "/data/*.parquet#train", "names files, which have no split; leave out #train"),
        ({"a.zip": b"", "b.arrow": b""}, "", "no file in it is of a kind that is read (.parquet, "),
        ({"a.parquet": b"", "b.jsonl": b""}, "", "data of several kinds (a.parquet, b.jsonl); name the file"),
        ({"train.jsonl": b"", "more.jsonl": b""}, "", "cannot tell of which split more.jsonl is"),
        ({"metadata.jsonl": b"", "1.png": b""}, "", "is an ImageFolder (metadata.jsonl)"),
        ({"a.csv": "", "README.md": card([{"config_name": "x", "data_files": "a.csv", "sep": "|"}])}, "", "has 'sep'"),
        ({"a.csv": "", "README.md": card([{"config_name": "x", "data_files": "../b.csv"}])}, "", "outside of the data"),
        ({"a.csv": "", "README.md": card([{"config_name": "x", "data_files": 3}])}, "", "'data_files' that cannot be"),
        ({"a.csv": "", "README.md": "---\na: [\n---\n"}, "", "the card README.md cannot be read"),
        ({"a.parquet": b"no Parquet"}, "", "is no Parquet file"),
    ],
)
def test_what_leaves_a_choice_or_is_not_read_is_one_line(hub, files, path, part):
    hub.commit("farm/crops", files)
    assert part in error_of(f"hf://datasets/farm/crops{path}")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("hf://datasets/farm/corps", ["no data set on http://", "hf auth login"]),
        ("farm/corps#train", ["farm/corps#train: no file or folder of this name here;", "; no data set on http://"]),
        ("hf://datasets/farm/crops@third", ["farm/crops has no revision 'third'", "/datasets/farm/crops/tree/main"]),
        ("farm/fenced#train", ["access must be asked for at http://", "/datasets/farm/fenced;", "HF_TOKEN"]),
        ("hf://datasets/farm/broken", ["500"]),
        ("hf://farm/crops", ["is no address of a data set; it is hf://datasets/ORG/NAME"]),
        ("hf://datasets/crops", ["is no address of a data set"]),
    ],
)
def test_what_the_hub_does_not_give_is_one_line_that_says_what_to_do(hub, path, parts):
    hub.commit("farm/crops", SHARDS)
    error = error_of(path)
    assert error.startswith(path) and all(part in error for part in parts), error


def test_what_is_cached_is_read_offline_and_only_that(hub, monkeypatch):
    hub.commit("farm/crops", SHARDS)
    expected = answers("farm/crops#train")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert answers("farm/crops#train") == expected
    for path in ("farm/crops#test", "farm/other#train", "hf://datasets/farm/crops@first"):
        assert "HF_HUB_OFFLINE forbids the download; unset it, or give a file or folder" in error_of(path)
    assert not hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked_at(monkeypatch, "http://127.0.0.1:9")
    assert answers("farm/crops#train") == expected
    assert "http://127.0.0.1:9 gives no answer" in error_of("farm/other#train")


@pytest.mark.parametrize(
    "path",
    ["farm/crops", "farm/crops@main", "./farm/crops#train", "/farm/crops#train", "~/crops#train", "../crops#train"]
    + [
        "crops#train",
        "farm/crops.jsonl",
        "farm/crops.parquet#train",
        "mnist/3.0.1#train",
        "a/b/c/d#train",
        "here/crops#x",
    ],
)
def test_the_hub_is_not_asked_for_what_could_be_a_path(hub, tmp_path, path):
    (tmp_path / "here" / "here").mkdir()
    hub.commit("farm/crops", SHARDS)
    error = error_of(path)
    assert "no such f" in error and not hub.asked
    assert ("hf://datasets/farm/crops" in error) == (path in ("farm/crops", "farm/crops@main"))


def test_a_local_folder_or_file_comes_before_a_data_set_of_the_same_name(hub, tmp_path):
    hub.commit("farm/crops", SHARDS)
    folder = tmp_path / "here" / "farm" / "crops"
    folder.mkdir(parents=True)
    (folder / "metadata.jsonl").write_text(lines(6, image="6.png").replace('"image"', '"file_name"'))
    (tmp_path / "here" / "farm" / "plots#train").write_text("")
    assert answers("farm/crops") == ["6"]
    assert "hub" not in error_of("farm/crops#train") and error_of("farm/plots#train")
    assert not hub.asked


def test_formats_that_need_a_disk_are_refused_before_anything_is_downloaded(hub):
    hub.commit("farm/crops", SHARDS)
    assert "is read from a disk; download it" in error_of("farm/crops#train", format="imagefolder")
    assert not hub.asked
    assert answers("farm/crops#test", format="parquet") == answers("farm/crops#test", format="table") == ["9"]
    assert "its files are parquet, not 'webdataset'" in error_of("farm/crops#test", format="webdataset")


def test_columns_and_the_digest_of_a_data_set_follow_its_files_and_not_its_card(hub):
    files = {"test.jsonl": lines(9).replace("answer", "reply")}
    hub.commit("farm/crops", {**files, "README.md": "# Crops"})
    first = sources.open_source("farm/crops#test", columns={"answer": "reply"})
    assert first[0].messages[-1]["content"] == "9" and first[0].id == "crops-test-1"
    hub.commit("farm/crops", {**files, "README.md": "# Crops, told better"})
    told_better = sources.open_source("farm/crops#test", columns={"answer": "reply"})
    hub.commit("farm/crops", {"test.jsonl": lines(8)})
    changed = sources.open_source("farm/crops#test")
    assert first.content == told_better.content != changed.content
    assert sources.Chain([first, changed]).contents == [first.content, changed.content]
