"""Which chat template of a model folder counts: the processor's, where there is one, else the tokenizer's.

Vision-language folders often hold two. The tokenizer's is the language model's, which joins strings and knows no
images; the processor's is the one for conversations with images. transformers' `ProcessorMixin` takes its own, from
the first of these that is there:

    processor_config.json      its key chat_template
    chat_template.json         its key chat_template
    chat_template.jinja        and further ones by name in additional_chat_templates/*.jinja

The last file is read by transformers' tokenizers as well, in place of what `tokenizer_config.json` says.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError

NESTED, LEGACY, PLAIN, FURTHER = (
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates",
)
_KEY = "chat_template"


def read(folder: Path, tokenizer) -> str:
    """The template that conversations of a folder's model are rendered by.

    Raises:
      InputError: there is none, several by name without a default, or files of which transformers takes neither.
    """
    for where, template in (*_of_processor(folder), (folder, tokenizer.chat_template)):
        if template:
            return _default(where, template)
    raise InputError(f"{folder}: the tokenizer has no chat template, and there is no {LEGACY}")


def write_for_processors(folder: Path, template: str) -> None:
    """Writes the template where transformers' processors look, if only its tokenizers would find it."""
    if not any(template for _, template in _of_processor(folder)):
        (folder / PLAIN).write_text(template, encoding="utf-8")


def _of_processor(folder: Path) -> list[tuple[Path, Any]]:
    """(file, template or templates by name) of a folder's processor, the first that is there first."""
    files = [folder / name for name in (NESTED, LEGACY) if (folder / name).is_file()]
    found = [(path, read_json(path).get(_KEY)) for path in files]
    further = {path.stem: path for path in sorted((folder / FURTHER).glob("*.jinja"))}
    if further and (folder / LEGACY).is_file():
        raise InputError(
            f"{folder}: holds {LEGACY} and {FURTHER}/, of which transformers takes neither; remove one, or write the "
            f"template for images to {PLAIN} alone"
        )
    if (folder / PLAIN).is_file():
        further["default"] = folder / PLAIN
    if further:
        found.append((folder / FURTHER, {name: _text(path) for name, path in further.items()}))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: unreadable template ({error})") from None


def _default(where: Path, template: Any) -> str:
    """The one that counts where templates have names; a list of {"name", "template"} is the older form of a mapping."""
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, Mapping)]
        template = {entry.get("name"): entry.get("template") for entry in entries}
    if isinstance(template, Mapping):
        named, template = template, template.get("default")
        if template is None:
            names = ", ".join(map(str, named)) or "none"
            raise InputError(f"{where}: has chat templates by the names {names}, and none is 'default'; name one so")
    if not isinstance(template, str) or not template.strip():
        found = "empty" if isinstance(template, str) else "no text"
        raise InputError(f"{where}: the chat template is {found}; copy the file again")
    if any("\ud800" <= letter <= "\udfff" for letter in template):
        raise InputError(f"{where}: the chat template has half a surrogate pair, which is no text; copy the file again")
    return template
