"""An index is what NumPy makes of the same vectors, is finished where it was interrupted, and says what it is of."""

import json
import shutil

import numpy as np
import pytest

import vlm_jax
from tests.retrieval_world import PASSAGES
from tests.tiny_encoders import save_clip
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError
from vlm_jax.retrieval import fusion, passages
from vlm_jax.retrieval.building import build
from vlm_jax.retrieval.index import Ranking, open_index

IDS = [entry["id"] for entry in PASSAGES]
OWNERS = [0, 1, 1, 3, 4]
QUESTIONS = ["What does the cat look at?", "Which metal are the coins of?", "ดวงจันทร์อยู่ที่ไหน"]
SHOWN = [PHOTOS / "chelsea.jpg", None, PHOTOS / "moon.png"]


@pytest.fixture
def index(clip, passages_file, tmp_path):
    return build(clip, passages_file, tmp_path / "index", batch=2)


def test_passages_have_the_encoders_vectors(clip, index):
    words = [f"{entry['title']}\n{entry['text']}" if "title" in entry else entry["text"] for entry in PASSAGES]
    np.testing.assert_allclose(index.texts, clip.encode_texts(words), atol=1e-6)
    names = ["chelsea.jpg", "rocket.jpg", "hubble.jpg", "page.png", "moon.png"]
    np.testing.assert_allclose(index.images, clip.encode_images([PHOTOS / name for name in names]), atol=1e-6)
    assert index.owners.tolist() == OWNERS and [passage.id for passage in index.passages] == IDS
    assert index.passages[0].words == "Chelsea\nA tabby cat that looks at you."


def reference_scores(clip, index):
    """[channel][question] of every passage, in float64; NaN where there is nothing to compare."""
    texts = clip.encode_texts(QUESTIONS).astype(np.float64)
    images = [None if image is None else clip.encode_images([image])[0].astype(np.float64) for image in SHOWN]
    scores = {channel: [] for channel in fusion.CHANNELS}
    for text, image in zip(texts, images, strict=True):
        for of, query in (("text", text), ("image", image)):
            if query is None:
                scores[f"{of}_to_text"].append(None)
                scores[f"{of}_to_image"].append(None)
                continue
            scores[f"{of}_to_text"].append(np.array([row @ query for row in np.asarray(index.texts, np.float64)]))
            best = np.full(len(PASSAGES), np.nan)
            for owner, row in zip(OWNERS, np.asarray(index.images, np.float64), strict=True):
                best[owner] = np.nanmax([best[owner], row @ query])
            scores[f"{of}_to_image"].append(best)
    return scores


@pytest.mark.parametrize("normalise", fusion.NORMALISATIONS)
def test_a_weighted_search_is_numpys(clip, index, normalise):
    weights = dict(zip(fusion.CHANNELS, (1.0, 0.25, 0.5, 2.0), strict=True))
    scores, expected = reference_scores(clip, index), []
    for number in range(len(QUESTIONS)):
        mine = {name: values[number] for name, values in scores.items() if values[number] is not None}
        fused = fusion.weighted(mine, weights, normalise)
        expected.append(np.argsort(-fused, kind="stable")[:3].tolist())
    images = [None if image is None else clip.encode_images([image])[0] for image in SHOWN]
    ranking = Ranking(weights=weights, normalise=normalise)
    found = index.search(clip.encode_texts(QUESTIONS), images, 3, ranking)
    assert [order.tolist() for order in found] == expected


@pytest.mark.parametrize("backend", ["device", "faiss"])
def test_a_search_by_ranks_is_numpys(clip, index, backend):
    scores, expected = reference_scores(clip, index), []
    for number in range(len(QUESTIONS)):
        fused = np.zeros(len(PASSAGES))
        for values in scores.values():
            if values[number] is not None:
                there = np.flatnonzero(~np.isnan(values[number]))
                order = there[np.argsort(-values[number][there], kind="stable")]
                fused[order] += 1 / (60 + np.arange(1, len(order) + 1))
        expected.append(np.argsort(-fused, kind="stable")[:5].tolist())
    images = [None if image is None else clip.encode_images([image])[0] for image in SHOWN]
    opened = open_index(index.folder, clip, backend=backend)
    found = opened.search(clip.encode_texts(QUESTIONS), images, 5, Ranking(method="rrf"))
    assert [order.tolist() for order in found] == expected


def test_one_channel_alone_finds_the_picture_itself(clip, index):
    images = list(clip.encode_images([PHOTOS / "hubble.jpg", PHOTOS / "page.png"]))
    found = index.search(None, images, 1, Ranking(weights={"image_to_image": 1.0}, depth=1))
    assert [IDS[order[0]] for order in found] == ["rocket", "page"]


def test_a_question_without_what_a_channel_looks_at_is_named(clip, index):
    with pytest.raises(InputError, match=r"question 2 of 2 has nothing that a channel of weight above 0 looks at \(im"):
        index.search(None, [clip.embed(image=PHOTOS / "moon.png"), None], 1, Ranking(weights={"image_to_text": 1}))


def test_an_interrupted_index_is_finished_and_has_the_same_bytes(clip, passages_file, tmp_path, monkeypatch):
    whole = build(clip, passages_file, tmp_path / "whole", batch=2).folder

    def stopping(items, total):
        for number, item in enumerate(items):
            if number == 4:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        build(clip, passages_file, tmp_path / "again", batch=2, progress=stopping)
    with pytest.raises(InputError, match="holds no finished index"):
        open_index(tmp_path / "again", clip)
    encoded = []
    monkeypatch.setattr(clip, "encode_texts", lambda texts: encoded.append(texts))
    again = build(clip, passages_file, tmp_path / "again", batch=2).folder
    assert encoded == []  # all of them were there
    files = sorted(path.name for path in whole.iterdir() if path.name != ".lock")
    assert files == ["image_owners.npy", "images.npy", "index.json", "passages.jsonl", "texts.npy"]
    assert files == sorted(path.name for path in again.iterdir() if path.name != ".lock")
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_an_index_built_with_another_encoder_is_refused(clip, index, passages_file, tmp_path):
    save_clip(tmp_path / "other", seed=1)
    other = vlm_jax.load_encoder(tmp_path / "other")
    with pytest.raises(InputError, match=r"an index built with another encoder \(tiny-clip, fingerprint .*; other has"):
        open_index(index.folder, other)
    with pytest.raises(InputError, match="an index built with another encoder"):
        build(other, passages_file, index.folder)


def test_passages_that_changed_since_are_told(clip, index, passages_file):
    text = passages_file.read_text(encoding="utf-8")
    passages_file.write_text(text.replace("bronze", "silver"), encoding="utf-8")
    with pytest.raises(InputError, match="is of other passages than .*passages.jsonl holds now; build it again"):
        open_index(index.folder, clip)
    with pytest.raises(InputError, match="holds an index of other passages"):
        build(clip, passages_file, index.folder)
    passages_file.write_text(text, encoding="utf-8")
    shutil.copy(PHOTOS / "coins.png", passages_file.parent / "moon.png")
    with pytest.raises(InputError, match="holds an index of other pictures of the passages"):
        build(clip, passages_file, index.folder)


def test_a_finished_index_is_opened_again_and_can_do_without_its_passages_file(clip, index, passages_file):
    assert build(clip, passages_file, index.folder, batch=99).digest == index.digest
    shutil.rmtree(passages_file.parent)
    assert open_index(index.folder, clip).digest == index.digest


def test_passages_without_any_picture_are_searched_by_their_words(clip, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    index = build(clip, tmp_path / "p.jsonl", tmp_path / "index")
    assert index.images.shape == (0, clip.dimension)
    assert index.search(clip.encode_texts(["two"]), None, 5)[0].tolist() == [1, 0]


def test_texts_that_the_encoder_reads_in_part_are_counted(clip, tmp_path):
    long = {"id": "a", "text": "a rocket and a cat " * 40}
    (tmp_path / "p.jsonl").write_text(json.dumps(long) + '\n{"id": "b", "text": "two"}\n')
    build(clip, tmp_path / "p.jsonl", tmp_path / "index")
    assert json.loads((tmp_path / "index" / "index.json").read_text())["passages"]["read_in_part"] == 1


def test_a_folder_that_holds_something_else_is_left_alone(clip, passages_file):
    with pytest.raises(InputError, match="exists and holds no index; name another folder"):
        build(clip, passages_file, passages_file.parent)


def test_a_damaged_file_of_an_index_is_named(clip, index):
    (index.folder / "texts.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"texts.npy: missing or damaged .*; build the index again"):
        open_index(index.folder, clip)


def test_every_error_of_a_passages_file_is_told_with_its_line(tmp_path):
    lines = [
        '{"id": "a", "text": "x"}',
        '{"id": "a", "text": "y"}',
        '{"id": "", "text": 3, "colour": "red"}',
        "[1]",
        '{"id": "b", "text": "x", "image": "gone.png"}',
        '{"id": "c", "text": "x", "image": ["https://example.org/a.png"]}',
        "{",
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError) as raised:
        passages.read(tmp_path / "p.jsonl")
    told = [line.removeprefix(f"{tmp_path / 'p.jsonl'}, ") for line in raised.value.lines]
    assert told[0] == "line 2: the id 'a' is that of line 1 too; ids are unique"
    assert told[1].startswith("line 3: 'colour' is not a key of passages; known are id, text, title, image, url")
    assert told[2:4] == [
        "line 3: 'id' is ''; wanted a text that is not empty",
        "line 3: 'text' is 3; wanted a text that is not empty",
    ]
    assert told[4].startswith("line 4: is no JSON object") and told[5].endswith(
        "gone.png: no such image; correct the path"
    )
    assert told[6].startswith("line 6: 'image' has 'https://example.org") and told[7].startswith("line 7: is no JSON")
    with pytest.raises(InputError, match="no readable file of passages"):
        passages.read(tmp_path / "none.jsonl")


def test_settings_of_a_ranking_that_cannot_be_are_all_told():
    with pytest.raises(InputError) as raised:
        Ranking(method="sum", normalise="max", depth=0)
    assert len(raised.value.lines) == 3
