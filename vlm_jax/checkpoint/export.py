"""Conversion between formats: Hugging Face folders and run folders, each way, without changing a bit of a weight."""

from pathlib import Path

from vlm_jax.checkpoint import description, files, hf_folder, peft_folder, pth, run_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError, gathered

FORMATS = ("hf", "peft", "pth", "orbax")
DTYPES = ("keep", "float32", "bfloat16")


def export(
    path: str | Path, target: str | Path, format: str = "hf", *, dtype: str = "keep", base: str | Path | None = None
) -> None:
    """Writes the model at `path` (Hugging Face folder, hub id, PEFT or run folder) to the new folder `target`.

    `hf` is the hub's layout, which transformers opens, with adapters added into the kernels (of a quantised base: into
    the original's, which is read again); `peft` the adapters alone; `orbax` a run folder, which training starts from;
    `pth` a file with PyTorch's state dict. A `.pth` file is read as well, full or of adapters, with `base` for its
    model. Weights keep their dtype, unless `dtype` names another (float32, bfloat16). The visual-token budget a run was
    trained with is written into the exported image processor.

    Weights pass through memory layer by layer, or, where they come from a run folder, parameter by parameter; none
    goes to a device.

    Raises:
      InputError: an unknown format or dtype, an incomplete model, a tokenizer of another one, a target that is in the
        way, all of them listed; too small a disk; or `peft` of a model that has no adapters or of which more than
        adapters was trained. Nothing is written then.
    """
    faults = []
    if format not in FORMATS:
        faults.append(f"format {format!r}: known are {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        faults.append(f"dtype {dtype!r}: known are {', '.join(DTYPES)}")
    destination = Path(target)
    if "://" in str(target):
        faults.append(f"{target}: models are written to a disk; name a folder here, and copy it there")
    else:
        with gathered(faults):
            files.check_target(destination)
    with gathered(faults):
        source = open_model(str(path), base=None if base is None else str(base))
        if base is not None and source.base is None:
            faults.append(f"{path}: is a whole model, which needs no base")
        with gathered(faults):
            description.check_tokenizer(source.assets, source.config)
        source.check()
    if faults:
        raise InputError(faults)
    if format == "peft":
        if source.lora is None:
            raise InputError(f"{path}: has no adapters; its weights go into format hf")
        lost = source.trained_beside_adapters()
        connector = None
        if (
            source.config.assembled
            and lost
            and all(path.startswith("connector/") or path == "newline" for path in lost)
        ):
            connector, lost = source.read_beside_adapters(), []
        if lost:
            raise InputError(
                f"{path}: beside adapters, {len(lost)} parameters such as {', '.join(lost[:2])} were trained, which "
                "a PEFT folder cannot hold; take format hf"
            )
        name = source.base.name
        peft_folder.write(
            destination, source.config, source.lora, source.read_adapters(), base=name, connector=connector
        )
        return
    parameters = source.deferred(None if dtype == "keep" else dtype)
    files.check_room(destination, sum(array.nbytes for array in parameters.values()))
    if format == "pth":
        with files.file_written_whole(destination) as unfinished:
            pth.write(unfinished, hf_folder.to_tensors(source.config, parameters))
    elif format == "hf":
        trained = source.base is not None or run_folder.is_trained(source.folder)
        hf_folder.write_folder(
            destination, source.config, parameters, source.assets, images=source.images, trained=trained
        )
    else:
        images = source.images or description.read_pictures(source.assets, source.config)
        run_folder.write_run_folder(destination, source.assets, parameters, images)
