"""`train.remat=auto`: the least recomputation with which every step stays within a device's memory, found by compiling.

What was found is kept in the user's cache, so that the next start compiles one program and not five.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vlm_jax.checkpoint.files import write_json
from vlm_jax.locations import user_cache
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.remat import BY_RECOMPUTATION
from vlm_jax.parallel import hosts, program_cost
from vlm_jax.parallel.mesh import slice_count
from vlm_jax.processing.rows import Batch
from vlm_jax.training.trainer import Trainer

FULL = 0.9
"""Of a device's memory: more is not relied on, since a runtime and fragmentation take their part."""
AUTO = "auto"


def trainer_of_run(
    config: ConfigDict,
    model: VLMConfig,
    mesh: Mesh,
    steps: int,
    shapes: Callable[[], Sequence[Batch]],
    *,
    say: Callable[[str], None],
    change: int | None = None,
    limit: int | None = None,
) -> Trainer:
    """A trainer that keeps what `train.remat` says, or what fits.

    Args:
      shapes: gives batches of every shape.
      limit: bytes that a device has, where it is not there to be asked.
    """

    def build(remat: str) -> Trainer:
        return Trainer(config, model, mesh, steps, change=change, remat=remat)

    if config.train.remat != AUTO:
        return build("")
    if limit is None:
        limit = (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit")
    return choose(build, shapes(), limit, say=say)


def choose(
    build: Callable[[str], Trainer], shapes: Sequence[Batch], limit: int | None, *, say: Callable[[str], None]
) -> Trainer:
    """The trainer with the least recomputation that fits; with the most where none does, whose report says so.

    Args:
      build: a trainer by the name of its policy.
      shapes: batches of every shape.
      limit: bytes that a device has; None where it does not tell, as a CPU: nothing is computed again then.
    """
    if limit is None:
        say("train.remat=auto: how much memory a device has is not known here, so nothing is computed again (none)")
        return build(BY_RECOMPUTATION[0])
    last = build(BY_RECOMPUTATION[-1])
    place = _place(last, shapes, limit)
    # Several processes compile the same programs: what one alone remembers, or finds to fit, is not taken.
    remembered = set(hosts.gathered((_read(place) or "").encode()))
    if known := remembered.pop().decode() if len(remembered) == 1 else "":
        say(f"train.remat=auto: {known}, as was found before")
        return last if known == BY_RECOMPUTATION[-1] else build(known)
    for name in BY_RECOMPUTATION[:-1]:
        trainer = build(name)
        needed = most_memory(trainer, shapes)
        of = f"of {limit / 2**30:.1f} GiB"
        words = f"more than the compiler can place {of}" if needed is None else f"{needed / 2**30:.1f} {of}"
        fits = needed is not None and needed <= FULL * limit
        if all(map(bool, hosts.gathered(b"fits" if fits else b""))):
            say(f"train.remat=auto: {name} takes {words}: taken")
            _write(place, name)
            return trainer
        too_much = "too much for another host" if fits else "too much"
        say(f"train.remat=auto: {name} takes {words}: {too_much}")
    _write(place, BY_RECOMPUTATION[-1])
    return last


def most_memory(trainer: Trainer, shapes: Sequence[Batch]) -> int | None:
    """Bytes that the largest step of any stage and shape takes; None where the compiler finds no way to place one."""
    largest = 0
    for stage in trainer.stages:
        for shape in shapes:
            try:
                program = trainer.compile(shape, stage)
            except Exception as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                return None
            largest = max(largest, program_cost.memory(program).total)
    return largest


def _place(trainer: Trainer, shapes: Sequence[Batch], limit: int):
    """The file that says what was found, by everything that decides it; None where the cache cannot be had."""
    folder = user_cache("remat")
    config = trainer.config
    decides: dict[str, Any] = {
        "settings": {part: config[part].to_dict() for part in ("model", "lora", "batch", "optimizer", "train", "mesh")},
        "model": repr(trainer.model),
        "mesh": (dict(trainer.mesh.shape), slice_count(trainer.mesh), jax.process_count()),
        "device": trainer.mesh.devices.flat[0].device_kind,
        "limit": limit,
        "shapes": [str(shape.shape) for shape in shapes],
        "versions": [version(name) for name in ("jax", "jaxlib", "vlm-jax")] + [libtpu_version()],
        "flags": [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return None if folder is None else folder / f"{digest}.json"


def libtpu_version() -> str:
    """Of the compiler for TPUs; "" without it."""
    try:
        return version("libtpu")
    except PackageNotFoundError:
        return ""


def _read(place) -> str | None:
    try:
        known = json.loads(place.read_text())["remat"]
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return None
    return known if known in BY_RECOMPUTATION else None


def _write(place, name: str) -> None:
    if place is None:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"remat": name})
    except OSError:
        pass  # the next start finds out again
