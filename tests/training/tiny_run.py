"""Steps of a tiny model on eight ragged rows: what tests of the step share, and what processes they start load.

Nothing here loads PyTorch, which takes longer than the steps.
"""

import functools

import jax
import numpy as np

from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.parallel import mesh as meshes
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import RowSpec
from vlm_jax.training.config import default_config
from vlm_jax.training.trainer import Trainer

CAPACITY = Size(144, 64, 96)
ROWS = 8
PROPORTIONAL = {"optimizer__learning_rate": 1.0, "optimizer__eps": 1.0}
"""AdamW whose updates are in proportion to gradients. As it ships, a gradient that is zero but for rounding moves its
parameter by the whole learning rate, up or down as this processor's or that program's rounding has it."""


def make_trainer(base, devices, mesh, settings):
    """Of a run on so many devices; settings as {"section__name": value}."""
    config = default_config()
    config.model.path = str(base)
    config.batch.rows, config.train.steps = ROWS, 50
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_fraction = 0.0
    for key, value in settings.items():
        section, name = key.split("__")
        config[section][name] = value
    devices = meshes.make_mesh(meshes.MeshShape(*mesh), jax.devices()[:devices])
    return Trainer(config, open_model(str(base)).config, devices, 50)


@functools.cache
def compiled(base, devices, mesh, settings):
    """(trainer, its compiled step); runs with the same settings share them."""
    trainer = make_trainer(base, devices, mesh, dict(settings))
    return trainer, trainer.compile(RowSpec(CAPACITY, trainer.model.vision.patch_dim, 4).batch(ROWS))


def run(base, batch, steps, *, devices=1, mesh=(-1, 1, 1), values=lambda path, array: array, **settings):
    """`values`: what stands at a path of the base instead of what its file says."""
    trainer, step = compiled(base, devices, mesh, tuple(sorted(settings.items())))

    def place(path, array):
        return trainer.place(path, values(path, array))

    state = trainer.start(open_model(str(base)).read(place=place, sharding=trainer.sharding))
    trainable, optimizer_state, frozen = state
    start, before = jax.device_get((trainable, frozen))
    reported = []
    for number in range(steps):
        placed = meshes.to_devices(batch, trainer.mesh)
        trainable, optimizer_state, metrics = step(trainable, optimizer_state, frozen, placed, np.int32(number))
        reported.append(float(metrics["loss"]))
    return trainer, reported, trainable, optimizer_state, (before, jax.device_get(frozen)), moved(start, trainable)


def moved(start, end):
    """How far each parameter has moved, float64."""
    return {path: np.asarray(array, np.float64) - np.asarray(start[path], np.float64) for path, array in end.items()}


def same_moves(found, expected):
    """Tensor by tensor: moves of `PROPORTIONAL` steps differ by at most 1e-4 of their norm.

    Rounding was seen to make 2e-5 of it. What hardly moves is held to 1e-7 of the largest move of any parameter.
    """
    assert found.keys() == expected.keys()
    largest = max(np.abs(array).max() for array in expected.values())
    assert largest > 0.01, "nothing moved: the steps show no difference"
    for path, array in expected.items():
        difference, least = np.linalg.norm(found[path] - array), 1e-3 * largest * array.size**0.5
        assert difference <= 1e-4 * max(np.linalg.norm(array), least), path
