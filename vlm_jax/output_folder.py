"""Whether a program may write into the folder it was given: a new or empty one, or one that it made before."""

from collections.abc import Sequence
from pathlib import PurePath

from vlm_jax import locations
from vlm_jax.errors import InputError


def check(folder: PurePath, name: str, *, owner: str, marks: Sequence[str], alone: Sequence[str] = ()) -> None:
    """Raises InputError for a file, and for a folder that holds what this program did not make.

    Args:
      name: as messages call it, the flag included.
      owner: whose files belong there, as in "a run's".
      marks: files or folders, one of which is in every folder that the program made.
      alone: files or folders that are its own as well where there is nothing else.
    """
    with locations.answering(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{name}: is a file; name a folder that is new or {owner}")
        if not folder.is_dir() or any((folder / mark).exists() for mark in marks):
            return
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        begun = {own.split("/")[0] for own in alone if (folder / own).exists()}
        if set(names) - begun:
            raise InputError(f"{name}: holds files that are not {owner}; name a new folder")
