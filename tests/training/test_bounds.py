"""The least time of a step, against counts by hand: what binds, what chips must send, and what full rows compute."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from vlm_jax.models.presets import PRESETS
from vlm_jax.parallel import chips
from vlm_jax.parallel.chips import Chip
from vlm_jax.parallel.mesh import MeshShape, make_mesh
from vlm_jax.processing.example import Size
from vlm_jax.training.bounds import bounds, full_rows
from vlm_jax.training.config import default_config
from vlm_jax.training.fsdp_needs import _of, needed_bytes
from vlm_jax.training.trainer import Trainer

CHIP = Chip(flops=100, bandwidth=10, links=5, network=1)
SENT = {"all-gather": (7, 10), "all-reduce": (1, 5), "all-reduce between slices": (1, 3)}


@pytest.mark.parametrize(
    ("figures", "binding", "seconds"),
    [
        ({}, "products", 5),
        ({"traffic": 60}, "memory", 6),
        ({"sent": {"all-gather": (1, 40)}}, "links", 8),
        ({"sent": {"all-reduce between slices": (1, 9)}}, "network", 9),
    ],
)
def test_each_bound_is_what_is_done_over_what_a_chip_can_do_and_the_longest_binds(figures, binding, seconds):
    found = bounds(CHIP, 2, **{"products": 1000, "traffic": 20, "sent": SENT, "model": 600, **figures})
    assert found.longest == (binding, seconds)
    assert found.mfu == pytest.approx(600 / 2 / 100 / seconds)
    if not figures:
        assert (found.products, found.memory, found.links, found.network) == (5, 2, 3, 3)
        assert found.lines()[0] == "bound of products          5000.0 ms a step"
        assert "an estimate" in found.lines()[-1] and found.summary().startswith("products bound a step to 5000 ms")


def test_what_is_not_known_of_a_chip_bounds_nothing():
    found = bounds(
        dataclasses.replace(CHIP, bandwidth=None, network=None), 2, products=1, traffic=9**9, sent=SENT, model=1
    )
    assert found.memory is None and found.network is None and found.longest == ("links", 3)


def test_chips_are_known_by_their_devices_and_others_are_not():
    assert chips.of_kind("NVIDIA H200").flops == chips.of_kind("NVIDIA H100 80GB HBM3").flops == 989e12
    assert chips.of_kind("TPU v5 lite").flops == 197e12 and chips.of_kind("TPU v5").flops == 459e12
    assert (
        chips.of_kind("cpu")
        is chips.of_kind("NVIDIA H100 PCIe")
        is chips.of_kind("NVIDIA H200 NVL")
        is chips.of_kind("TPU v4 lite")
        is None
    )
    assert chips.TPUS["v5e"].links == 200e9 and chips.TPUS["v5e"].network == 3.125e9


def test_full_rows_are_an_image_and_words_without_padding():
    work = full_rows(Size(2048, 4608, 512), 8, PRESETS["3b"])
    assert work.tokens.tolist() == [2048] * 8 and work.images.tolist() == [4096] * 8 and work.supervised == 8 * 512
    assert work.windows.tolist() == [64] * 8 * 64, "an eighth of the slots is left empty by windows"
    assert full_rows(Size(2048, 4096, 512), 1, PRESETS["qwen3-vl-4b"]).windows.size == 0
    views = full_rows(Size(2048, 729, 512), 1, PRESETS["siglip-qwen2.5-3b"])
    assert views.images.tolist() == [729] and views.windows.tolist() == [729]
    fewer = full_rows(Size(2048, PRESETS["3b"].vision.typical_slots(4096), 512), 1, PRESETS["3b"])
    assert fewer.images.tolist() == [4 * 4096], "a quarter of its tokens, chosen behind the tower, fill half the row"
    cut = full_rows(Size(64, 16, 8, (32,)), 1, PRESETS["3b"], cuts=(9,))
    assert [tokens.tolist() for tokens in cut.above] == [[32]] and cut.shares == (0.25, 0.75)


KERNELS = (
    "decoder/layers/layer/mlp/up_proj/kernel",
    "vision/blocks/layer/qkv/kernel",
    "connector/fc1/kernel",
    "embedding",
)


def wide_trainer(mesh, settings, devices=8):
    """Of a model whose kernels are all large enough to be divided; no weights are made."""
    config = default_config()
    for key, value in settings.items():
        section, name = key.split("__")
        config[section][name] = value
    return Trainer(config, PRESETS["small"], make_mesh(MeshShape(*mesh), jax.devices()[:devices]), 50)


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        # gathers forwards, again and backwards, and a scatter; a connector is not computed again
        ({}, (4, 4, 3, 2)),
        ({"train__remat": "none"}, (3, 3, 3, 2)),
        ({"train__remat": "products"}, (3, 3, 3, 2)),
        ({"train__remat": "projections"}, (4, 3, 3, 2)),
        ({"batch__gradient_accumulation": 2, "batch__rows": 16}, (8, 8, 6, 4)),
        # Nothing runs backwards through what lies before adapters, and what is frozen has no gradient.
        ({"lora__rank": 2}, (3, 1, 1, 1)),
        ({"train__trainable": "frozen_vision"}, (4, 1, 3, 2)),
    ],
    ids=["full", "nothing again", "no product again", "the MLP's again", "two parts", "adapters", "frozen vision"],
)
def test_what_must_be_sent_is_counted_kernel_by_kernel(settings, times):
    trainer = wide_trainer((1, 8, 1), settings)
    trainable = trainer.stages[-1].trainable
    for path, count in zip(KERNELS, times, strict=True):
        assert "fsdp" in trainer.shardings[path].spec, path
        whole = trainer.abstract[path].size * 4  # float32, as CPUs compute
        assert _of(trainer, trainable, path) == pytest.approx(count * whole * 7 / 8), path
    assert needed_bytes(trainer) == round(sum(_of(trainer, trainable, path) for path in trainer.abstract))


def test_gradients_go_once_more_over_a_data_axis():
    trainer = wide_trainer((2, 4, 1), {})
    path = KERNELS[0]
    whole = trainer.abstract[path].size * 4
    assert _of(trainer, trainer.stages[-1].trainable, path) == pytest.approx(4 * whole * 3 / 4 + 2 * whole / 4 / 2)
    assert needed_bytes(wide_trainer((1, 1, 1), {}, devices=1)) == 0


def test_packed_kernels_go_round_as_they_are():
    trainer = wide_trainer((1, 8, 1), {"lora__rank": 2, "model__quantise": "int8"})
    (path,) = [path for path in trainer.abstract if "decoder" in path and path.endswith("mlp/down_proj/kernel/codes")]
    assert "fsdp" in trainer.shardings[path].spec
    size = np.prod(trainer.abstract[path].shape)
    assert _of(trainer, trainer.stages[-1].trainable, path) == pytest.approx(3 * size * 7 / 8)


def test_the_docs_have_the_table_of_chips():
    page = (Path(__file__).parents[2] / "docs" / "tpu.md").read_text(encoding="utf-8")
    for name, chip in chips.TPUS.items():
        network = "not published" if chip.network is None else f"{chip.network / 1e9:g}"
        cells = [name, f"{chip.flops / 1e12:g}", f"{chip.bandwidth / 1e9:,g}", f"{chip.links / 1e9:g}", network]
        assert f"| {' | '.join(cells)} | {chip.price:.2f} |" in page, name
