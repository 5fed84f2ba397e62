"""The Grain pipeline: the same batches for any threads, cache and host split, and from any saved position."""

import numpy as np
import pytest

from data_pipeline import loader
from tests.tiny_models import PHOTOS, save_tiny
from vlm_jax.checkpoint import hf_folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder)
    config = hf_folder.read_config(folder)
    processor = hf_folder.read_processor(folder, config, (4, 16))
    dataset, faults = loader.read_dataset(str(PHOTOS / "photos.json"), processor)
    assert not faults
    capacity = loader.row_capacity(dataset, 256, 0, 0, config.vision.block_slots)
    plan = loader.plan_rows(dataset, capacity, rows=4, steps=0, epochs=2, seed=0, shuffle=True)
    return dataset, processor, plan, capacity


def batches(parts, **settings):
    return loader.make_loader(*parts, rows=4, patch_values=588, **settings)


def equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_threads_and_cache_change_nothing(parts):
    plain = list(batches(parts, threads=0, cache_bytes=0))
    assert len(plain) == len(parts[2]) // 4
    for settings in ({"threads": 4}, {"threads": 2, "cache_bytes": 100_000}):
        for one, other in zip(plain, batches(parts, **settings), strict=True):
            equal(one, other)


def test_every_supervised_token_of_an_epoch_is_seen(parts):
    dataset = parts[0]
    seen = sum(batch["loss_weights"].sum() for batch in batches(parts))
    assert seen == 2 * dataset.sizes[:, 2].sum()


def test_two_hosts_share_the_batches_of_one(parts):
    whole = list(batches(parts))
    halves = [list(batches(parts, shard=loader.Shard(index, 2))) for index in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        equal(batch, {name: np.concatenate([first[name], second[name]]) for name in batch})


def test_a_saved_position_goes_on_with_the_next_batch(parts):
    iterator = batches(parts)
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    rest = list(iterator)
    again = batches(parts, threads=1)
    again.set_state(state)
    for one, other in zip(rest, again, strict=True):
        equal(one, other)


def test_several_files_train_together(parts):
    both, faults = loader.read_dataset(f"{PHOTOS / 'photos.json'}, {PHOTOS / 'same_question.json'}", parts[1])
    assert not faults
    assert len(both.records) == 50 and both.pictures == 11
