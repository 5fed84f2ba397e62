"""Parts of a mixture in a run, and runs of which nothing is left."""

import json

import PIL.Image
import pytest

from tests.data_pipeline.test_loader import Run
from tests.tiny_models import PHOTOS
from vlm_jax.error_list import printable
from vlm_jax.errors import InputError


def test_a_seldom_seen_example_fits_as_well_as_a_common_one(model, tmp_path):
    PIL.Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    (tmp_path / "short.csv").write_text("image,question,answer\n" + ",Who?,I.\n" * 400)
    (tmp_path / "long.csv").write_text("image,question,answer\n" + "a.png,What?,It.\n" * 2)
    parts = {
        "short": {"path": str(tmp_path / "short.csv"), "weight": 5000.0},
        "long": {"path": str(tmp_path / "long.csv")},
    }
    run = Run(model, data={"path": "", "mixture": parts}, batch={"sequence_length": 128})
    assert run.buckets[0].size.patches >= run.dataset.examples.sizes[1][:, 1].max() > 0


@pytest.mark.parametrize(
    "part, error",
    [
        ("file.csv", "is 'file.csv'; wanted settings"),
        ({"weight": 1.0}, "no path"),
        ({"path": ["a.csv"]}, r"path is \['a.csv'\]"),
        ({"path": "a.csv", "weight": None}, "weight is None; wanted a number"),
        ({"path": "a.csv", "weight": "x"}, "weight is 'x'"),
        ({"path": "a.csv", "seed": -1}, "seed is -1; wanted 0 or more"),
        ({"path": "a.csv", "max_visual_tokens": -3}, "max_visual_tokens is -3"),
        ({"path": "a.csv", "format": "jsonl"}, "format is 'jsonl'; wanted one of auto"),
    ],
)
def test_an_impossible_setting_of_a_part_is_named(model, part, error):
    with pytest.raises(InputError, match=f"config.data.mixture.mine.*{error}"):
        Run(model, data={"path": "", "mixture": {"mine": part}})


def test_other_visual_tokens_of_a_part_are_another_data_set(model):
    def of(tokens):
        parts = {"all": {"path": str(PHOTOS / "photos.json"), "max_visual_tokens": tokens}}
        return Run(model, data={"path": "", "mixture": parts}).dataset.fingerprint()

    assert of(8) == of(8) != of(16)


def test_a_run_of_which_nothing_can_be_read_stops(model, tmp_path):
    for name in "abcd":
        PIL.Image.effect_noise((112, 112), 50).save(tmp_path / f"{name}.jpg")
        whole = (tmp_path / f"{name}.jpg").read_bytes()
        (tmp_path / f"{name}.jpg").write_bytes(whole[: len(whole) // 2])  # its header can be read, its pixels cannot
    (tmp_path / "t.csv").write_text("image,question,answer\n" + "".join(f"{name}.jpg,What?,It.\n" for name in "abcd"))
    data = {"path": str(tmp_path / "t.csv"), "on_error": "drop", "decode_check_up_to": 0}
    run = Run(model, data=data, steps=3, threads=1)
    with pytest.raises(InputError, match="nothing of 3 batches in a row can be read"):
        list(run)


@pytest.mark.parametrize(
    "rows, kind, reason",
    [
        (["gone.png,What?,It."] * 30, "image", "gone.png: no such image"),
        ([f",What {n}?, " for n in range(30)], "record", "the answer is empty"),
        ([",<|im_end|>,It."] * 30, "record", "special token '<|im_end|>'"),
    ],
)
@pytest.mark.parametrize("steps", [0, 4])
def test_where_everything_is_left_out_the_reasons_are_told(model, tmp_path, monkeypatch, rows, kind, reason, steps):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "t.csv").write_text("image,question,answer\n" + "\n".join(rows) + "\n")
    with pytest.raises(InputError) as caught:
        Run(model, data={"path": str(tmp_path / "t.csv"), "on_error": "drop"}, steps=steps)
    first, *reasons = caught.value.lines
    assert first.endswith(f"no example can be trained on; of 30 looked at: 30 dropped ({kind})")
    assert len(reasons) == 30 and all(reason in line for line in reasons)
    shown = printable(caught.value.lines)
    assert len(shown) == 13 and shown[11].startswith("and 20 more like the last of these: ")


def test_parts_of_a_mixture_have_columns_of_their_own(model, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": "Who?", "a": "I.", "img": ""}))
    (tmp_path / "b.csv").write_text("image,question,answer\n,What?,It.\n")
    columns = {"image": "img", "question": "q", "answer": "a"}
    mixture = {
        "a": {"path": str(tmp_path / "a.jsonl"), "columns": columns},
        "b": {"path": str(tmp_path / "b.csv")},
    }
    assert len(Run(model, data={"path": "", "mixture": mixture}, epochs=1).dataset.examples) == 2
    for wrong in ({"columns": {"imge": "img"}}, {"question": 3}):
        mixture["a"].update(wrong)
        with pytest.raises(InputError, match="config.data.mixture.a.*(nothing called 'imge' is read|question is 3)"):
            Run(model, data={"path": "", "mixture": mixture})
