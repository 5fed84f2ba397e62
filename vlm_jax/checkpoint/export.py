"""Conversion between formats: Hugging Face folders and run folders, each way, without changing a bit of a weight."""

from pathlib import Path

from vlm_jax.checkpoint import files, hf_folder, run_folder
from vlm_jax.checkpoint.source import resolve
from vlm_jax.errors import InputError

FORMATS = ("hf", "orbax")
DTYPES = ("keep", "float32", "bfloat16")


def export(path: str | Path, target: str | Path, format: str = "hf", *, dtype: str = "keep") -> None:
    """Writes the model at `path` (Hugging Face folder, hub id or run folder) to the new folder `target`.

    `hf` is the hub's layout, which transformers opens; `orbax` a run folder, which training starts from. Weights keep
    their dtype, unless `dtype` names another (float32, bfloat16). The visual-token budget a run was trained with is
    written into the exported image processor.

    Raises:
      InputError: an unknown format or dtype, an incomplete model, or a target that is in the way.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r}: known are {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: known are {', '.join(DTYPES)}")
    destination = Path(target)
    files.check_target(destination)
    source = resolve(str(path))
    if run_folder.is_run_folder(source):
        checkpoints, step, config, images = run_folder.open_run(source)
        parameters = checkpoints.restore_parameters(step, config)
        checkpoints.close()
        assets = source / "assets"
    else:
        config, images, assets = hf_folder.read_config(source), None, source
        parameters = hf_folder.read_parameters(source, config)
    if dtype != "keep":
        parameters = {path: array.astype(dtype) for path, array in parameters.items()}
    if format == "hf":
        hf_folder.write_folder(destination, config, parameters, assets, images=images)
    else:
        run_folder.write_run_folder(destination, assets, parameters, images)
