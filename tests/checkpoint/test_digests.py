"""Damage of a checkpoint's files is told before any of it is read."""

import json
import random

import numpy as np
import pytest

from tests.tiny_models import save_tiny
from vlm_jax.checkpoint import checkpoints, digests, export, run_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    save_tiny(folder / "hf", layers=1, depth=1, global_blocks=(0,))
    export.export(folder / "hf", folder / "run", format="orbax")
    return folder / "run"


def weights(run):
    return {name: np.asarray(array) for name, array in open_model(str(run)).read().items()}


def array_files(run):
    return [path for path in (run / "checkpoints" / "0" / "parameters").rglob("*") if path.is_file()]


def test_a_checkpoint_has_the_digests_of_all_its_files(converted):
    step = converted / "checkpoints" / "0"
    files = {path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file()}
    held = json.loads((step / digests.FILE).read_text())
    assert held.keys() == {name for name in files if "/" in name}
    assert digests.check(step, [checkpoints.PARAMETERS, checkpoints.SETTINGS])


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_is_told_with_the_file(converted, seed):
    drawn = random.Random(seed)
    path = drawn.choice(array_files(converted))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[drawn.randrange(len(flipped))] ^= 1 << drawn.randrange(8)
    path.write_bytes(flipped)
    try:
        with pytest.raises(InputError, match="damaged: parameters/.* is not what was written; copy it again") as caught:
            weights(converted)
        assert path.name in str(caught.value)
    finally:
        path.write_bytes(whole)
    assert weights(converted)


@pytest.mark.parametrize("kind", ["missing", "cut"])
def test_a_file_that_is_gone_or_cut_short_is_told(converted, kind):
    path = max(array_files(converted), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    path.unlink() if kind == "missing" else path.write_bytes(whole[:-1])
    try:
        with pytest.raises(InputError, match="missing" if kind == "missing" else "not what was written"):
            weights(converted)
        with pytest.raises(InputError, match="damaged"):
            run_folder.check_present(converted, 0)
    finally:
        path.write_bytes(whole)
    run_folder.check_present(converted, 0)


@pytest.mark.parametrize("held", ["", "[]", '{"a": 1}', '{"a": ["b", "c"]}', "[" * 100_000])
def test_broken_digests_are_told(converted, held):
    path = converted / "checkpoints" / "0" / digests.FILE
    whole = path.read_text()
    path.write_text(held)
    try:
        with pytest.raises(InputError, match=f"{digests.FILE}: cannot be read"):
            weights(converted)
    finally:
        path.write_text(whole)


def test_a_checkpoint_of_an_earlier_version_has_none_and_is_read(converted):
    path = converted / "checkpoints" / "0" / digests.FILE
    whole = path.read_text()
    path.unlink()
    assert weights(converted)
    path.write_text(whole)


def test_names_that_lead_elsewhere_are_not_followed(tmp_path):
    (tmp_path / "outside").write_text("a")
    step = tmp_path / "step"
    step.mkdir()
    (step / digests.FILE).write_text(json.dumps({"../outside": [1, 1], "/etc/passwd": [1, 1]}))
    assert digests.check(step, ["..", "", "etc"])
    digests.check_lengths(step)


@pytest.mark.parametrize("missing", [["_CHECKPOINT_METADATA"], ["parameters"], ["settings", "parameters"]])
def test_a_newer_checkpoint_that_is_not_whole_is_told_before_a_run_comes_to_it(tmp_path, missing):
    for step in (3, 6):
        for part in {"_CHECKPOINT_METADATA", "parameters", "settings"} - (set(missing) if step == 6 else set()):
            (tmp_path / "checkpoints" / str(step) / part).mkdir(parents=True)
    run_folder.check_newer(tmp_path, 6)
    for step, then in ((3, "go on from step 3"), (None, "begin anew")):
        with pytest.raises(InputError) as caught:
            run_folder.check_newer(tmp_path, step)
        (error,) = caught.value.lines
        assert error.startswith(f"{tmp_path}/checkpoints/6: is no whole checkpoint") and then in error
        assert all(part in error for part in missing)
