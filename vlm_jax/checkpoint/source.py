"""Where a model comes from: a folder as it is, or a hub id, `org/name` or `org/name@revision`, fetched into the cache.

Gives a folder in either case; that of a gs:// address is not fetched, since only runs are read there. What is in it
(architecture, shards, names) is judged by those who read it.
"""

import difflib
import os
import re
from pathlib import Path, PurePath

from vlm_jax import hub, locations
from vlm_jax.checkpoint.files import ASSETS
from vlm_jax.errors import InputError

# What the readers of a folder can use, beside connectors that trainers keep in files of their own (`Family`). Other
# formats of the same weights would double the download.
NEEDED = (
    *ASSETS,
    "spiece.model",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "token_reduction.json",
    "non_lora_state_dict.bin",
    "non_lora_trainables.bin",
    "README.md",
)
PYTORCH = "pytorch_model.bin"
WITHOUT_SAFETENSORS = (
    (PYTORCH, "adapter_model.bin"),
    ("pytorch_model-*.bin", f"{PYTORCH}.index.json"),
)
"""Fetched where a model has no safetensors, in this order until there are weights: some were never published in
another form."""

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[^\s@]+))?")


def resolve(path_or_id: str | os.PathLike[str]) -> PurePath:
    """The folder of a model, downloaded first where `path_or_id` is a hub id.

    Raises:
      InputError: there is no such folder, or the hub does not give the model; the message says what to do.
    """
    text = os.fspath(path_or_id)
    if "://" in text:
        return locations.folder(text)
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        return folder
    hub_id = _HUB_ID.fullmatch(text)
    if folder.is_file():
        inside = f"; give its folder, {folder.parent}" if (folder.parent / "config.json").is_file() else ""
        raise InputError(f"{text}: is a file, where the folder of a model is needed{inside}")
    if not hub_id or text.startswith((".", "~", os.sep)):
        raise InputError(f"{text or '(empty)'}: no such folder{_near(folder)}; a model on the hub is given as org/name")
    return _download(hub_id["id"], hub_id["revision"], near=_near(folder) if folder.parent.is_dir() else "")


def _near(folder: Path) -> str:
    """Folders whose names are like the missing one's, or the nearest parent that does exist."""
    parent = folder.parent
    if not parent.is_dir():
        existing = next((above for above in parent.parents if above.is_dir()), parent)
        return f"; {existing} has no folder {parent.relative_to(existing).parts[0]}" if existing != parent else ""
    try:
        names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    except OSError:  # a folder that may not be listed is no reason to hide the first error
        return ""
    near = difflib.get_close_matches(folder.name, names, n=3, cutoff=0.5)
    return f"; near it: {', '.join(str(parent / name) for name in near)}" if near else ""


def _download(repo: str, revision: str | None, near: str) -> Path:
    # Loaded here: half a second that nobody with a local folder should wait for.
    import huggingface_hub
    from huggingface_hub import constants

    from vlm_jax.models.families import FAMILIES

    name = f"{repo}@{revision}" if revision else repo
    needed = [*NEEDED, *(file for family in FAMILIES.values() for file in family.connector_files)]
    with hub.answering(name, repo, revision, near=near):
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=needed))
        fetched = ["*.safetensors"]
        for others in WITHOUT_SAFETENSORS:
            if not any(any(folder.glob(pattern)) for pattern in fetched):
                huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(others))
                fetched += others
    if not any((folder / config).is_file() for config in ("config.json", "adapter_config.json")):
        page = f"{constants.ENDPOINT}/{repo}"
        raise InputError(f"{name}: has no config.json, so it is no model that can be read; see {page}")
    return folder
