"""What trains, as a rule over parameter paths."""

import re

from vlm_jax.errors import InputError

PRESETS = {
    "full": r".*",
    "frozen_vision": r"(?!vision/).*",
    "connector": r"connector/.*",
}
"""Names for the usual choices; any other regular expression over paths works as well."""


def trainable_paths(paths: list[str], what: str) -> set[str]:
    """Paths that train.

    Args:
      what: a key of `PRESETS`, or a regular expression matched from the start of a path.

    Raises:
      InputError: no valid expression, or one that matches nothing.
    """
    try:
        pattern = re.compile(PRESETS.get(what, what))
    except re.error as error:
        raise InputError(
            f"train.what {what!r} is neither one of {', '.join(PRESETS)} nor a regular expression ({error})"
        ) from None
    chosen = {path for path in paths if pattern.match(path)}
    if not chosen:
        examples = ", ".join(sorted(paths)[:3])
        raise InputError(
            f"train.what {what!r} matches no parameter; give one of {', '.join(PRESETS)} or an expression over paths "
            f"such as {examples}"
        )
    return chosen
