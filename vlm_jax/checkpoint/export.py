"""Conversion between formats: Hugging Face folders and run folders, each way, without changing a bit of a weight."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlm_jax.checkpoint import description, files, hf_folder, peft_folder, pth, reduction_file, run_folder
from vlm_jax.checkpoint.model_source import ModelSource, open_model
from vlm_jax.errors import InputError, gathered
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.token_budget import RESIZE

FORMATS = ("hf", "peft", "pth", "orbax")
DTYPES = ("keep", "float32", "bfloat16")


def export(
    path: str | Path,
    target: str | Path,
    format: str = "hf",
    *,
    dtype: str = "keep",
    base: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Writes the model at `path` (Hugging Face folder, hub id, PEFT or run folder) to the new folder `target`.

    `hf` is the hub's layout, which transformers opens, with adapters added into the kernels (of a quantised base: into
    the original's, which is read again); `peft` the adapters, and the connector where it was trained beside them;
    `orbax` a run folder, which training starts from; `pth` a file with PyTorch's state dict. A `.pth` file is read as
    well, full or of adapters, with `base` for its model. Weights keep their dtype, unless `dtype` names another
    (float32, bfloat16). The visual-token budget a run was trained with is written into the exported image processor.

    `say` is called with what other programs do not know of the model, a line each.

    Weights pass through memory layer by layer, or, where they come from a run folder, parameter by parameter; none
    goes to a device.

    Raises:
      InputError: an unknown format or dtype, an incomplete model, a tokenizer of another one, a target that is in the
        way, all of them listed; too small a disk; or `peft` of a model that has no adapters or of which more than
        adapters and the connector was trained. Nothing is written then.
    """
    source = _checked(str(path), target, format, dtype, base)
    destination, budget = Path(target), source.budget
    for line in reduction_file.notes(budget, format):
        say(f"{target}: {line}")
    if format == "peft":
        _write_adapters(destination, source, str(path))
        return
    parameters = source.deferred(None if dtype == "keep" else dtype)
    files.check_room(destination, sum(array.nbytes for array in parameters.values()))
    if format == "pth":
        with files.file_written_whole(destination) as unfinished:
            pth.write(unfinished, hf_folder.to_tensors(source.config, parameters))
    elif format == "hf":
        capped = _capped(source)
        hf_folder.write_folder(
            destination,
            source.config,
            parameters,
            source.assets,
            images=capped or source.images,
            budget=budget,
            budget_of=capped and _images_of(source),
            trained=source.base is not None or run_folder.is_trained(source.folder),
        )
    else:
        run_folder.write_run_folder(destination, source.assets, parameters, _images_of(source), budget)


def _checked(path: str, target: str | Path, format: str, dtype: str, base: str | Path | None) -> ModelSource:
    """The model that is to be written. Raises InputError, with all errors, where that cannot be."""
    errors = []
    if format not in FORMATS:
        errors.append(f"format {format!r}: known are {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        errors.append(f"dtype {dtype!r}: known are {', '.join(DTYPES)}")
    if "://" in str(target):
        errors.append(f"{target}: models are written to a disk; name a folder here, and copy it there")
    else:
        with gathered(errors):
            files.check_target(Path(target))
    with gathered(errors):
        source = open_model(path, base=None if base is None else str(base))
        if base is not None and source.base is None:
            errors.append(f"{path}: is a whole model, which needs no base")
        with gathered(errors):
            description.check_tokenizer(source.assets, source.config)
        with gathered(errors):
            _ = source.budget
        source.check()
    if errors:
        raise InputError(errors)
    return source


def _write_adapters(target: Path, source: ModelSource, name: str) -> None:
    if source.lora is None:
        raise InputError(f"{name}: has no adapters; its weights go into format hf")
    connector, below = _connector(source, name)
    peft_folder.write(
        target,
        source.config,
        source.lora,
        source.read_adapters(),
        base=below.name,
        connector=connector,
        budget=None if source.budget.takes_all and below.reduction is None else source.budget,
        images=_capped(source) and _images_of(source),
    )


def _images_of(source: ModelSource) -> ImageProcessor:
    return source.images or description.read_image_processor(source.assets, source.config)


def _capped(source: ModelSource) -> ImageProcessor | None:
    """How other programs are to prepare images, where `resize` made them smaller: with its limit. Else None."""
    budget = source.budget
    if budget.takes_all or budget.method != RESIZE:
        return None
    images = _images_of(source)
    least, most = images.token_range
    return images.with_token_range((budget.count(least), budget.count(most)))


def _connector(source: ModelSource, name: str) -> tuple[Flat | None, ModelSource]:
    """The whole connector where it was trained with the adapters or before them, and the base that both belong to.

    A base that is a run of the connector alone is left behind: peft could not open it.

    Raises:
      InputError: something else was trained too, or the connector has adapters of its own besides.
    """
    own, below = source.read_beside_adapters(), source.base
    assert below is not None  # it has adapters
    if lost := [path for path in own if not _is_connector(path)]:
        raise InputError(
            f"{name}: beside adapters, {len(lost)} parameters such as {', '.join(lost[:2])} were trained, and format "
            "peft is written of adapters and the connector alone; take format hf, which holds everything, merged"
        )
    adapted = any(_is_connector(path) for path in source.read_adapters())
    if own and adapted:
        raise InputError(
            f"{name}: the connector was trained as a whole and has adapters besides, and peft knows a module as one of "
            "the two; take format hf, which holds everything, merged"
        )
    while not adapted and below.base and (before := below.trained_beside_adapters()):
        if not all(map(_is_connector, before)):
            break
        own, below = below.read_beside_adapters() | own, below.base
    if not own:
        return None, below
    missing = [path for path in abstract_parameters(source.config) if path.startswith("connector/") and path not in own]
    stored = below.deferred() if missing else {}
    return own | {path: np.asarray(stored[path][...]) for path in missing}, below


def _is_connector(path: str) -> bool:
    return path.startswith("connector/") or path == "newline"
