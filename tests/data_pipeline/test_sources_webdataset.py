"""WebDataset shards: samples by basename, read at random from the tar, and what is refused in them."""

import io
import json
import pickle
import tarfile

import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import error_of, messages, png

TALK = {"conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]}


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            content = json.dumps(content).encode() if isinstance(content, dict) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder):
    for shard in range(3):
        members = {}
        for n in range(2):
            members |= {f"{shard}/{n}.jpg": png(10 * shard + n), f"{shard}/{n}.json": {**TALK, "image": "x.jpg"}}
        write_tar(folder / f"part-{shard:03}.tar", members)
    return folder


@pytest.mark.parametrize("name", ["part-{000..002}.tar", "part-*.tar", ""])
def test_shards_are_one_source_read_at_random(tmp_path, name):
    source = pickle.loads(pickle.dumps(sources.open_source(f"{write_shards(tmp_path)}/{name}".rstrip("/"))))
    assert len(source) == 6 and source.format == "llava"
    assert [images_of(source[n]) for n in (5, 0, 3)] == [[png(21)], [png(0)], [png(11)]]
    assert source[3].id == "1/1" and "part-001.tar, sample '1/1'" in source[3].where


def test_captions_and_classes_are_asked_the_question_that_is_set(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x.png": png(), "x.txt": b"A cat.\n", "y.PNG": png(1), "y.txt": b"A dog."})
    records, _ = sources.read(path, columns={"answer": "txt"}, question="What is shown?")
    assert [record.messages for record in records] == [
        messages("What is shown?", "A cat.", image=png()),
        messages("What is shown?", "A dog.", image=png(1)),
    ]
    path = write_tar(
        tmp_path / "b.tar", {"x.question.txt": b"Who?", "x.png": png(), "x.answer.txt": b"I", "._x.png": b""}
    )
    assert sources.open_source(path)[0].messages == messages("Who?", "I", image=png())


@pytest.mark.parametrize(
    "members, words",
    [
        ({"x.mp4": b"v", "x.json": TALK}, "sample 'x': holds a .mp4; of a sample json"),
        ({"x.json": b"[1]"}, "sample 'x': its .json is no object"),
        ({"x.json": b"{"}, "sample 'x': its .json is broken"),
        ({"x.jpg": b"a", "x.png": b"b", "x.json": {**TALK, "image": "x.jpg"}}, "names 1 images in its .json"),
        ({"README": b"x", "x.json": TALK}, "its member 'README' has no extension"),
    ],
)  # fmt: skip
def test_what_is_no_sample_is_refused_by_name(tmp_path, members, words):
    assert words in error_of(write_tar(tmp_path / "a.tar", members))


@pytest.mark.parametrize("name", ["mask.png", "depth.jpg", "thumb.png", "image.mask.png"])
@pytest.mark.parametrize("image", [{"x.png": b"p"}, {"x.0.png": b"p"}, {}])
def test_an_image_of_another_name_is_another_column_and_refused_by_name(tmp_path, image, name):
    path = write_tar(tmp_path / "a.tar", {**image, f"x.{name}": b"m", "x.json": TALK})
    assert f"sample 'x': holds a .{name} beside what is read; its images are .{name.rpartition('.')[2]}, or numb" in (
        error_of(path)
    )


@pytest.mark.parametrize("names", [["0.png", "1.png"], ["image.png"], ["image_1.png", "image_2.png"], ["jpg", "1.png"]])
def test_images_that_are_numbered_or_called_so_are_the_samples_images(tmp_path, names):
    members = {f"x.{name}": png(shade) for shade, name in enumerate(names)}
    path = write_tar(tmp_path / "a.tar", {**members, "x.json": {"question": "Who?", "answer": "I"}})
    assert images_of(sources.open_source(path)[0]) == [png(shade) for shade in range(len(names))]


def test_a_shard_that_is_missing_cut_or_compressed_is_one_line(tmp_path):
    write_shards(tmp_path)
    assert "part-003.tar: no such file" in error_of(f"{tmp_path}/part-{{000..003}}.tar")
    whole = (tmp_path / "part-000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    assert "is no tar file, or a part of one" in error_of(tmp_path / "cut.tar")
    (tmp_path / "packed.tar").write_bytes(b"\x1f\x8b" + whole)
    assert "is compressed with gzip" in error_of(tmp_path / "packed.tar")
