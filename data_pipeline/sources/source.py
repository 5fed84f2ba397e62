"""A data set as a sequence of records, each read and checked when it is asked for."""

import operator
from collections.abc import Mapping
from typing import Any, SupportsIndex

from data_pipeline.records import Record, from_json, images_named
from data_pipeline.sources.containers import Entries, Entry
from data_pipeline.sources.forms import Form, Options
from data_pipeline.sources.json_files import from_cell
from data_pipeline.values import json_type
from vlm_jax.errors import InputError


class Source:
    """Records by number. Reading is safe from several threads.

    Pickles into little (paths, and where the entries lie), and opens its files anew where it is unpickled: a source of
    any size can be sent to worker processes. Nothing of JAX is loaded.

    Attributes:
      name: the path as it was given.
      format: the form of its entries.
      content: `Entries.content`.
    """

    def __init__(self, entries: Entries, form: Form, format: str, options: Options):
        self.name, self.format = options.path, format
        self.content = entries.content
        self._entries, self._form, self._options = entries, form, options

    def __repr__(self) -> str:
        # Grain writes it into the iterator's state, so it says nothing of this process.
        return f"Source({self.name!r}, format={self.format!r}, records={len(self)})"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def insists_on_ids(self) -> bool:
        """Whether an id given twice is an error: in this project's own records. Other programs' files hold many."""
        return self.format == "records"

    def __getitem__(self, index: SupportsIndex) -> Record:
        """The record of an entry; images are not opened.

        Raises:
          IndexError: there is no such entry.
          InputError: with every error of this entry, each naming the file and the place in it.
        """
        entry = self._entry(index)
        where = self._where(entry)
        try:
            if entry.error is not None:
                raise InputError(entry.error)
            identifier, has_id = self._identify(entry)
            where = self._where(entry, identifier if has_id else None)
            converted = {**self._form(entry.value), "id": identifier}
        except InputError as error:
            raise InputError([f"{where}: {line}" for line in error.lines]) from None
        except RecursionError:
            raise InputError(
                f"{where}: is nested too deeply; leave out the objects and lists that are no data"
            ) from None
        options = self._options
        return from_json(converted, where=where, image_root=options.root, training=options.training)

    def place(self, index: SupportsIndex) -> str:
        """Where in the file an entry stands, as error lines say it; the entry is not read."""
        return self._entries.place(self._number(index))

    def identify(self, index: SupportsIndex) -> tuple[str | None, str]:
        """The id of an entry, whatever else is wrong with it, and its place as an error line begins with it."""
        entry = self._entry(index)
        try:
            identifier, has_id = self._identify(entry)
        except InputError:
            return None, self._where(entry)
        return identifier, self._where(entry, identifier if has_id else None)

    def images(self, index: SupportsIndex) -> list[str | bytes]:
        """The images that an entry names, whatever is wrong with it: of a refused one they can still be checked."""
        value = self._entry(index).value
        if not isinstance(value, Mapping):
            return []
        try:
            value = self._form(value)
        except (InputError, RecursionError):
            # What is named outright is all there is then; what a form calls `images` is looked for under `image`.
            value = {**value, "image": from_cell(value.get("image") or value.get("images"))}
        return images_named(value, self._options.root)

    def _number(self, index: SupportsIndex) -> int:
        return range(len(self._entries))[operator.index(index)]

    def _entry(self, index: SupportsIndex) -> Entry:
        return self._entries[self._number(index)]

    def _where(self, entry: Entry, identifier: str | None = None) -> str:
        named = "" if identifier is None else f" (id {identifier!r})"
        return f"{self._entries.path}, {entry.place}{named}"

    def _identify(self, entry: Entry) -> tuple[str, bool]:
        """The id of an entry, and whether the file gives it."""
        value: Any = entry.value
        if not isinstance(value, Mapping):
            raise InputError(f"is {json_type(value)} where an object is expected")
        identifier = next((value[key] for key in self._form.id_keys if value.get(key) not in (None, "")), None)
        if identifier is None:
            return f"{self._entries.stem}-{entry.number}", False
        if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
            raise InputError(f"the id is {json_type(identifier)}; it must be a text or a whole number")
        return str(identifier), True
