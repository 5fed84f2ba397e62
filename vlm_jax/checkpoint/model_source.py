"""A model wherever it is kept: a Hugging Face folder, a PEFT folder, a run folder whole or with adapters alone.

Adapters, or a connector that was trained alone, are no model by themselves: their base is found by the name they carry,
and a missing one is named.
"""

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import jax

from vlm_jax import locations
from vlm_jax.adapters import lora as adapters
from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import (
    description,
    hf_folder,
    own_text,
    peft_folder,
    pth,
    reduction_file,
    run_folder,
    tied_head,
    weight_digests,
)
from vlm_jax.checkpoint.checkpoints import PARAMETERS
from vlm_jax.checkpoint.files import read_json
from vlm_jax.checkpoint.names import hub_name, learned_method
from vlm_jax.checkpoint.source import resolve
from vlm_jax.deferred import Deferred, deferred
from vlm_jax.errors import InputError
from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.models.token_reduction.learned import PREFIX
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.token_budget import LEARNED, TokenBudget

ADAPTER = "adapter"
"""In a checkpoint's settings: which base it belongs to, and what its adapters are, if it has any."""


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """What can be read of a model before its weights.

    Attributes:
      name: as it was given.
      assets: the folder of its small files, on this machine.
      images: the image processor it was trained with, None for those of `assets`.
      base: where the weights that are not in this place are; None where all are.
      lora: the kind of its adapters, if it has any.
      expected: of a base, the digests of its tensors when the run that names it began (`tensor_digests`).
      reduction: how many visual tokens it was trained to see, as it says it; None where it says nothing.
    """

    name: str
    assets: Path
    config: VLMConfig
    images: ImageProcessor | None
    folder: PurePath
    base: "ModelSource | None" = None
    lora: Lora | None = None
    expected: str | None = None
    reduction: Mapping[str, Any] | None = None

    def __post_init__(self):
        if pth.is_state_dict(self.folder):  # what it has learned, its tensors tell
            return
        method = self.reduction.get("method") if isinstance(self.reduction, Mapping) else None
        reducer = str(method) if method in LEARNED else ""
        object.__setattr__(self, "config", dataclasses.replace(self.config, reducer=reducer))

    @property
    def budget(self) -> TokenBudget:
        """How many visual tokens it was trained to see.

        Raises:
          InputError: it says so in a way that this version does not know.
        """
        return reduction_file.of(self.reduction, self.name)

    def check(self) -> None:
        """Raises what reading would, as far as headers tell."""
        if self.base is not None:
            self.base.check()
            _ = self._own  # is read whole: it is small beside a base, and has no other check
        elif not run_folder.is_run_folder(self.folder):
            hf_folder.check_weights(self.folder, self.config)

    def read(self, *, dtype=None, place: Callable[[str, Any], Flat] | None = None, sharding=None) -> Flat:
        """The parameters of the model without adapters: what was trained of the base is in place of the base's.

        Args:
          dtype: cast to it; None keeps what is held.
          place: puts a parameter on its devices; called for one at a time, with an array of the devices or with one
            that is read when it is placed (`vlm_jax.deferred`).
          sharding: `sharding(path, shape)`, where a run's checkpoint is read to.
        """
        self._check_tensors()
        place = place or (lambda path, array: {path: jax.device_put(array[...])})

        def one(path: str, array: Any) -> Flat:
            return place(path, array if dtype is None else array.astype(dtype))

        if self.base is not None:
            own = self.read_beside_adapters()
            whole = own.keys() == abstract_parameters(self.config).keys()
            flat = {} if whole else self._of_base(self.base.read(dtype=dtype, place=place, sharding=sharding))
            for path, array in own.items():
                flat |= one(path, array)
            return flat
        if run_folder.is_run_folder(self.folder):
            flat = {}
            with run_folder.newest(self.folder) as (checkpoints, step):
                for path, array in checkpoints.each_parameter(
                    step, abstract_parameters(self.config), sharding=sharding
                ):
                    flat |= one(path, array)
            return flat
        return hf_folder.read_parameters(self.folder, self.config, dtype=dtype, place=place)

    def read_adapters(self) -> Flat:
        """The adapters' parameters; none where it has none."""
        if self.lora is None:
            return {}
        return {path: array for path, array in self._own.items() if adapters.is_adapter(path)}

    def trained_beside_adapters(self) -> list[str]:
        """Paths of parameters in this place that are no adapters'."""
        return [] if self.base is None else [path for path in self._own if not adapters.is_adapter(path)]

    def read_beside_adapters(self) -> Flat:
        """The parameters of `trained_beside_adapters`."""
        return {path: self._own[path] for path in self.trained_beside_adapters()}

    def read_merged(self, *, dtype=None, place: Callable[[str, Any], Flat] | None = None) -> Flat:
        """All parameters, adapters added into the kernels; arguments as of `read`."""
        if self.lora is None and place is None and not isinstance(self.folder, Path):
            return self.read(dtype=dtype)  # many parts of a store at one time: one after the other takes long
        place, flat = place or (lambda path, array: {path: jax.device_put(array[...])}), {}
        for path, array in self.deferred(dtype).items():
            flat |= place(path, array)
        return flat

    def deferred(self, dtype=None) -> dict[str, Deferred]:
        """All parameters, adapters added into the kernels; what lies beside a base is in memory, all else not read.

        Args:
          dtype: cast to it, after adapters are added; None keeps what is held.
        """
        parameters = self._deferred()
        if self.lora is not None:
            parameters = adapters.merged(parameters | self.read_adapters(), self.lora, dtype)
        return parameters if dtype is None else {path: array.astype(dtype) for path, array in parameters.items()}

    def _deferred(self) -> dict[str, Deferred]:
        """Without adapters."""
        self._check_tensors()
        if self.base is None:
            if not run_folder.is_run_folder(self.folder):
                return hf_folder.deferred(self.folder, self.config)
            with run_folder.newest(self.folder) as (checkpoints, step):
                return checkpoints.deferred_parameters(step, abstract_parameters(self.config))
        own = {path: deferred(self._own[path]) for path in self.trained_beside_adapters()}
        whole = own.keys() == abstract_parameters(self.config).keys()
        return own if whole else self._of_base(self.base.deferred()) | own

    def _of_base(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Without what the base has learned of a token reduction that this model does not use."""
        known = abstract_parameters(self.config)
        return {path: leaf for path, leaf in parameters.items() if path in known or not path.startswith(PREFIX)}

    def digest(self) -> str:
        """Tells weights apart without reading them all, wherever they lie: names, sizes, and spots of every tensor, of
        which training moves nearly every value."""
        hasher = hashlib.sha256(b"" if self.base is None else self.base.digest().encode())
        if run_folder.is_run_folder(self.folder):
            with run_folder.newest(self.folder) as (checkpoints, step):
                saved = checkpoints.path / str(step) / PARAMETERS
            for name, size in locations.sizes_below(saved).items():  # Orbax names every save's files anew
                hasher.update(f"{name} {size}".encode())
        else:
            for name, size, spots in weight_digests.spots_of(self.folder):
                hasher.update(f"{name} {size}".encode())
                for spot in spots:
                    hasher.update(spot)
        return hasher.hexdigest()[:16]

    def tensor_digests(self) -> str | None:
        """Of every tensor of a folder of weights, in the order of their names; a run's checkpoints have their own."""
        if run_folder.is_run_folder(self.folder) or self.base is not None:
            return None
        return "".join(f"{digest:08x}" for _, digest in sorted(weight_digests.of_tensors(self.folder).items()))

    def _check_tensors(self) -> None:
        """Raises InputError where a base is no longer, to the bit, what it was when the run that names it began."""
        if self.expected is None:
            return
        found = sorted(weight_digests.of_tensors(self.folder).items())
        before = [int(self.expected[at : at + 8], 16) for at in range(0, len(self.expected), 8)]
        changed = [name for (name, digest), earlier in zip(found, before, strict=False) if digest != earlier]
        if changed or len(found) != len(before):
            named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise InputError(
                f"{self.folder}: damaged, or changed since the run that names it as its base began: "
                f"{named or 'its tensors'}; copy it again"
            )

    @functools.cached_property
    def _own(self) -> Flat:
        """What lies in this place of a model whose base is elsewhere."""
        if pth.is_state_dict(self.folder):
            low_rank, base = peft_folder.parted(pth.read(self.folder))
            own = hf_folder.from_tensors(base, self.config, where=self.name) if base else {}
            if self.lora is not None:
                own |= peft_folder.from_tensors(low_rank, self.config, self.lora, where=self.name)[1]
            return own
        if peft_folder.is_peft_folder(self.folder):
            return peft_folder.read(self.folder, self.config)[1]
        with run_folder.newest(self.folder) as (checkpoints, step):
            return checkpoints.restore_parameters(step, None)


def open_model(path_or_id: str, *, base: str | None = None) -> ModelSource:
    """Finds a model.

    Args:
      base: where the base of adapters is, if not where they say.

    Raises:
      InputError: nothing there, a run without a checkpoint, or a base that is missing or another one.
    """
    if pth.is_state_dict(file := Path(path_or_id).expanduser()):
        return _of_state_dict(path_or_id, file, base)
    folder = resolve(path_or_id)
    if run_folder.is_run_folder(folder):
        assets = run_folder.assets_of(folder)
        config = description.read_config(assets)
        with run_folder.newest(folder) as (checkpoints, step):
            settings = checkpoints.settings(step)
        images, adapter = run_folder.image_processor(settings), settings.get(ADAPTER)
        reduction = settings.get(reduction_file.KEY)
        if adapter is None:
            return ModelSource(path_or_id, assets, config, images, folder, reduction=reduction)
        _check_adapter(adapter, f"{path_or_id}, checkpoint {step}")
        named = adapter["base"]
        if named.startswith("./"):
            named = str(run_folder.located(folder)[0] / named)
        below = _base(path_or_id, base or named)
        if below.digest() != adapter["digest"] and (below.tensor_digests() or "") != adapter.get("tensors"):
            raise InputError(
                f"{path_or_id}: was trained on other weights than those of {below.name} "
                f"(digest {adapter['digest']}, there {below.digest()}); give the base it was trained on"
            )
        if below.config.decoder.tied != config.decoder.tied:
            raise InputError(
                f"{path_or_id}: was trained with the output layer tied to the embeddings, and {below.name} has an "
                f"{tied_head.HEAD} of its own that differs; train it again on that base"
            )
        lora = Lora(**adapter["lora"]) if adapter.get("lora") else None
        below = dataclasses.replace(below, expected=adapter.get("tensors"))
        return ModelSource(path_or_id, assets, config, images, folder, below, lora, reduction=reduction)
    if not isinstance(folder, Path):
        locations.check_bucket(folder)
        raise InputError(
            f"{path_or_id}: no run folder with a checkpoint there; other models are read from a disk or the hub, so "
            "copy one first (gcloud storage cp -r)"
        )
    if peft_folder.is_peft_folder(folder):
        settings = peft_folder.read_settings(folder)
        below = _base(path_or_id, base or settings.base)
        config, images = _own_images(folder, below)
        assets = own_text.assets_with(folder, below.assets)
        reduction = reduction_file.read(folder) or below.reduction
        images = _uncapped(folder, reduction) or images
        return ModelSource(path_or_id, assets, config, images, folder, below, settings.lora, reduction=reduction)
    config = description.read_config(folder)
    found = tied_head.of_folder(folder, config)
    assets = folder if found == config else tied_head.assets_saying(folder, found.decoder.tied)
    reduction = reduction_file.read(folder)
    return ModelSource(path_or_id, assets, found, _uncapped(folder, reduction), folder, reduction=reduction)


def _check_adapter(adapter: Any, where: str) -> None:
    """Raises InputError where what a checkpoint says of its base and its adapters is not what training writes."""
    kinds = {"rank": (int,), "alpha": (int, float), "targets": (str,), "rslora": (bool,), "dropout": (int, float)}

    def is_lora(lora: Any) -> bool:
        return (
            isinstance(lora, dict)
            and {"rank", "alpha"} <= lora.keys() <= kinds.keys()
            and all(type(value) in kinds[name] for name, value in lora.items())
            and lora["rank"] > 0
            and all(math.isfinite(lora.get(name, 0)) for name in ("alpha", "dropout"))
        )

    def is_digests(tensors: Any) -> bool:
        return isinstance(tensors, str) and re.fullmatch("([0-9a-f]{8})+", tensors) is not None

    whole = (
        isinstance(adapter, dict)
        and all(isinstance(adapter.get(key), str) for key in ("base", "digest"))
        and (adapter.get("tensors") is None or is_digests(adapter["tensors"]))
        and (adapter.get("lora") is None or is_lora(adapter["lora"]))
    )
    if not whole:
        raise InputError(
            f"{where}: what its settings say of the base and the adapters is damaged; copy the checkpoint again, or "
            "remove its folder to go on from the one before"
        )


def _of_state_dict(name: str, file: Path, base: str | None) -> ModelSource:
    """The model that a file of PyTorch holds, whole or as adapters."""
    if base is None:
        raise InputError(f"{name}: weights without a config; name the model they belong to as the base")
    below, lora = _base(name, base), None
    low_rank, tensors = peft_folder.parted(pth.read(file))
    if low_rank:
        if not peft_folder.is_peft_folder(file.parent):
            raise InputError(f"{name}: adapters without their adapter_config.json (rank, alpha); put it beside")
        settings = peft_folder.read_settings(file.parent)
        lora = settings.lora
        if settings.modules_to_save and not tensors:
            raise InputError(
                f"{name}: holds adapters alone, and {file.parent / peft_folder.SETTINGS} says that "
                f"{', '.join(settings.modules_to_save)} was trained beside them; give the folder"
            )
    config, images = _own_images(file.parent, below)
    config = dataclasses.replace(config, reducer=learned_method(tensors))
    found = tied_head.of_tensors({hub_name(key): tensor for key, tensor in tensors.items()}, config)
    assets = own_text.assets_with(file.parent, below.assets)
    if found != config:
        assets = tied_head.assets_saying(assets, found.decoder.tied)
    reduction = reduction_file.naming(reduction_file.read(file.parent) or below.reduction, found.reducer)
    return ModelSource(name, assets, found, images, file, below, lora, reduction=reduction)


def _uncapped(folder: Path, reduction: Mapping[str, Any] | None) -> ImageProcessor | None:
    """How images are prepared before `resize` makes them smaller, where the file beside the weights says it."""
    if not isinstance(reduction, Mapping) or reduction_file.IMAGES not in reduction:
        return None
    with description.settings_of(folder / reduction_file.FILE):
        return run_folder.image_processor(dict(reduction))


def _own_images(folder: Path, below: ModelSource) -> tuple[VLMConfig, ImageProcessor | None]:
    """Shapes and image processor of weights that lie in a folder apart from their base: its rules, where it has some.

    Trainers write the image processor they used beside what they trained. That of an assembled model's encoder tells
    nothing of how its images are laid out, which is the assembly's.
    """
    processor = folder / "processor_config.json"
    described = processor.is_file() and read_json(processor).get("image_processor") is not None
    described = described or (folder / "preprocessor_config.json").is_file()
    if not described or not families.of(below.config).processor_beside_adapters:
        return below.config, below.images
    images, vision = description.read_image_processor(folder, below.config), below.config.vision
    if (images.patch_size, images.merge_size) != (vision.patch_size, vision.merge_size):
        raise InputError(
            f"{folder}: the image processor has patch and merge size {(images.patch_size, images.merge_size)}, the "
            f"base {below.name} {(vision.patch_size, vision.merge_size)}; it is of another model"
        )
    vision = dataclasses.replace(vision, pixel_mean=images.mean, pixel_std=images.std)
    return dataclasses.replace(below.config, vision=vision), images


def _base(name: str, base: str) -> ModelSource:
    if not base:
        raise InputError(f"{name}: is no whole model and does not say what its base is; give that folder as the base")
    try:
        below = open_model(base)
    except InputError as error:
        raise InputError(
            [
                f"{name}: belongs to {base}, which cannot be had: {line}; where it lies elsewhere by now, name that "
                "place (--base=FOLDER; in Python vlm_jax.load(FOLDER, adapter=…))"
                for line in error.lines
            ]
        ) from None
    if below.lora is not None:
        raise InputError(f"{name}: its base {base} is a model with adapters; merge them first (convert_checkpoint.py)")
    return below


def adapter_settings(source: ModelSource, lora: Lora | None, run: PurePath) -> dict[str, Any]:
    """What a checkpoint says of its base and of its adapters; a base below the run's folder moves with it."""
    where = str(source.folder.absolute()) if Path(source.name).expanduser().is_dir() else source.name
    if isinstance(run, Path) and Path(where).is_relative_to(run.absolute()):
        where = f"./{Path(where).relative_to(run.absolute())}"
    lora_settings = None if lora is None else dataclasses.asdict(lora.without_dropout())
    known = {"base": where, "digest": source.digest(), "tensors": source.expected or source.tensor_digests()}
    return {ADAPTER: {**known, "lora": lora_settings}}
