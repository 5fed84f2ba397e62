"""The texts with which a teacher is asked to write a question about an image, and its answer: `string.Template`s.

A file for each kind of image; `$type` is where the kind of question stands, one of `config.annotate.types` in turn.
"""

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path

from vlm_jax.errors import InputError, nearest

HERE = Path(__file__).parent
FIELDS = ("type",)


@dataclass(frozen=True)
class Prompt:
    name: str
    text: str

    @property
    def digest(self) -> str:
        """The SHA-256 of its text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def rendered(self, kind: str) -> str:
        """Args:
        kind: of question, a sentence; "" for any.
        """
        return string.Template(self.text).substitute(type=kind).strip()


def read(name: str, where: str) -> Prompt:
    """One that comes with this package, or a text file of a person's own.

    Raises:
      InputError: there is none, or it names what it is not given.
    """
    path = Path(name) if name.endswith(".txt") else HERE / f"{name}.txt"
    if not path.is_file():
        known = sorted(file.stem for file in HERE.glob("*.txt"))
        meant = nearest(name, known) if not name.endswith(".txt") else "there is no such file"
        raise InputError(f"{where} is {name!r}; {meant}")
    text = path.read_text(encoding="utf-8")
    template = string.Template(text)
    if not template.is_valid():
        raise InputError(f"{where}: {path} has a $ that names nothing; one that is meant as such is written $$")
    if unknown := [field for field in template.get_identifiers() if field not in FIELDS]:
        raise InputError(f"{where}: {path} names ${unknown[0]}; known is $type")
    return Prompt(name, text)
