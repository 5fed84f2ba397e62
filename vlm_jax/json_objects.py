"""JSON objects of which each key says one thing.

JSON does not forbid a key twice, and Python takes the last without a word; which of two was meant is not guessed.
"""

from typing import Any

from vlm_jax.errors import InputError


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, as `object_pairs_hook` of `json.loads`. Raises InputError where a key is there twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the key {twice!r} is there twice in one object; keep one of them")
    return result
