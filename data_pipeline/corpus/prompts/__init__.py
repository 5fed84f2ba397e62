"""The texts that teachers are asked with: a file for each stage and language, in `string.Template`'s form.

A person may have prompts of their own, in a folder with files of the same names. The digest of a prompt stands in the
corpus's card; what was asked with another one is asked anew, since requests are known by their whole text.
"""

import difflib
import hashlib
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlm_jax.errors import InputError, gathered

HERE = Path(__file__).parent
LANGUAGES = {"en": "English", "th": "Thai"}
"""In which the prompts that come with this package are written."""


@dataclass(frozen=True)
class Prompt:
    """One file. `digest` is the SHA-256 of its text, in hexadecimal."""

    name: str
    path: Path
    text: str

    @property
    def digest(self) -> str:
        return digest(self.text)

    def rendered(self, values: Mapping[str, object]) -> str:
        return string.Template(self.text).substitute(values).strip()


def check(
    fields: Mapping[str, Collection[str]],
    must: Mapping[str, Collection[str]],
    languages: Collection[str],
    needed: Collection[tuple[str, str]],
    folder: str,
) -> None:
    """Raises InputError, with every error, where a prompt names what it is not given or leaves out what is asked about,
    or a file is no prompt.

    Args:
      fields: {stage: what its prompt may name}.
      must: {stage: what it must name}.
      languages: in which prompts are read.
      needed: (stage, language) of those for which the English prompt will not do.
      folder: of a person's own, or "".
    """
    errors: list[str] = []
    for stage, own in fields.items():
        for language in dict.fromkeys(languages):
            with gathered(errors):
                prompt = read(stage, language, own, folder)
                named = string.Template(prompt.text).get_identifiers()
                if lacking := [f"${field}" for field in must.get(stage, ()) if field not in named]:
                    errors.append(f"{prompt.path}: does not use {', '.join(lacking)}, which the teacher must be told")
    for stage, language in needed:
        files = [place / f"{stage}.{language}.txt" for place in ([Path(folder), HERE] if folder else [HERE])]
        if not any(file.is_file() for file in files):
            errors.append(
                f"there is no prompt {stage}.{language}.txt: write one into the folder config.prompts, since the "
                "English one asks for English"
            )
    for path in sorted(Path(folder).glob("*")) if folder else ():
        stage, _, rest = path.name.partition(".")
        if path.suffix == ".txt" and stage not in fields:
            near = difflib.get_close_matches(stage, list(fields), 1, 0.5)
            advice = f"did you mean {near[0]}.{rest}?" if near else f"known are {', '.join(fields)}"
            errors.append(f"{path}: is the prompt of no stage; {advice}")
    if errors:
        raise InputError(list(dict.fromkeys(errors)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digests(folder: str) -> dict[str, str]:
    """{file: SHA-256} of the prompts, a person's own in their place."""
    folders = [HERE, *([Path(folder)] if folder else [])]
    paths = {path.name: path for place in folders for path in sorted(place.glob("*.txt"))}
    return {name: digest(path.read_text(encoding="utf-8")) for name, path in sorted(paths.items())}


def read(stage: str, language: str, fields: Collection[str], folder: str = "") -> Prompt:
    """The prompt of a stage, in this language, else in English.

    Args:
      fields: what it may name, all of which it is given.
      folder: of a person's own prompts; where it has no file of this name, the one that comes with this package is it.

    Raises:
      InputError: a field that is not known, or a sign that is no field.
    """
    names = [f"{stage}.{language}.txt", f"{stage}.en.txt"]
    folders = [Path(folder), HERE] if folder else [HERE]
    path = next((path for name in names for place in folders if (path := place / name).is_file()), None)
    if path is None:
        raise InputError(f"{folders[0] / names[1]}: there is no prompt for the stage {stage}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    template = string.Template(text)
    if not template.is_valid():
        raise InputError(f"{path}: a $ that begins no field; write $$ for a dollar sign")
    errors = []
    for field in template.get_identifiers():
        if field not in fields:
            near = difflib.get_close_matches(field, list(fields), 1, 0.5)
            advice = f"did you mean ${near[0]}?" if near else f"known are {', '.join(f'${one}' for one in fields)}"
            errors.append(f"{path}: no field ${field}; {advice}")
    if errors:
        raise InputError(errors)
    return Prompt(f"{stage}.{language}", path, text)
