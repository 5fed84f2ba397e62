"""What is told of a step before it runs, and where the memory of a device is short."""

import json

import jax
import pytest

from tests.training.tiny_run import CAPACITY, ROWS, make_trainer
from vlm_jax.errors import InputError
from vlm_jax.parallel import chips
from vlm_jax.parallel.mesh import MeshShape, make_mesh
from vlm_jax.processing.rows import RowSpec
from vlm_jax.training.compile_report import explained_memory, report
from vlm_jax.training.config import default_config


def told(**settings) -> str:
    config = default_config()
    for key, value in settings.items():
        section, name = key.split("__")
        config[section][name] = value
    with pytest.raises(InputError) as error, explained_memory(config, make_mesh(MeshShape(), jax.devices())):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_three_settings_that_would_help_most_are_named():
    line = told(batch__rows=16, train__remat="none")
    assert line.startswith("the run does not fit into the memory of a device (RESOURCE_EXHAUSTED: Out of memory")
    advised = [part.split("=")[0] for part in line.split("--config.")[1:] if not part.startswith("mesh.data")]
    assert advised == ["train.remat", "batch.gradient_accumulation", "mesh.fsdp"]
    assert "--config.lora.rank=16 (" in told(mesh__data=1)
    assert "--config.lora.rank=16 --config.train.trainable=auto (" in told(train__trainable="frozen_vision")
    qlora = told(lora__rank=8, model__quantise="nf4", batch__rows=8)
    assert qlora.count("--config.") == 4 and "batch.sequence_length=1024" in qlora  # that of mesh has two settings


def test_other_errors_of_a_device_are_let_through():
    with pytest.raises(jax.errors.JaxRuntimeError), explained_memory(default_config(), make_mesh(MeshShape())):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_a_mesh_larger_than_the_machine_names_both_numbers():
    with pytest.raises(InputError, match="wants 16 devices; this run has 8"):
        make_mesh(MeshShape(data=-1, fsdp=16))


@pytest.fixture(scope="module")
def step(base):
    trainer = make_trainer(base, 8, (1, 8, 1), {"train__remat": "attention"})
    batch = RowSpec(CAPACITY, trainer.model.vision.patch_dim, 4).batch(ROWS)
    traced = trainer.trace(batch)
    return trainer, traced, traced.lower().compile(), batch.shape[::-1]


def test_the_report_tells_what_is_sent_beside_what_is_needed_and_the_bounds_as_an_estimate(step, monkeypatch):
    trainer, traced, compiled, shape = step
    plain = report(trainer, traced, compiled, None, None, shape)
    assert plain.bounds is None and plain.remat == "attention" and not any("MFU" in line for line in plain.lines())
    monkeypatch.setattr(chips, "of_kind", lambda kind: chips.TPUS["v5e"])
    found = report(trainer, traced, compiled, 1 << 34, None, shape)
    assert found.needed > 0 and found.traffic > 0 and 0 < found.bounds.mfu < 1
    assert found.bounds.products == found.flops / 8 / 197e12 and found.model_flops < found.flops
    lines = "\n".join(found.lines())
    for words in (f"× the {found.needed / 2**30:.3f} needed", "bound of products", "bound of links", "MFU, at most"):
        assert words in lines
    assert found.summary()[-1].startswith("by the makers' figures, ") and found.summary()[-1].endswith("(an estimate)")
    assert json.loads(json.dumps(found.as_json()))["bounds"]["network"] is None
