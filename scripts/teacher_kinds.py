"""`--config.teachers.NAME.kind=KIND`: a teacher has the settings of its kind, which is taken before the others.

What both kinds have (the model, the seed) stays as the config file sets it; what the new one has besides is at its
default, and what it does not have goes.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict


def take_kinds(config: ConfigDict, overrides: Sequence[tuple[str, str | None]]) -> None:
    """Gives teachers, also one that the file leaves out, the settings of the kinds that overrides name.

    A kind that is not known is left to whoever checks the settings, and a teacher to whoever knows which there are.
    """
    for key, kind in overrides:
        group, _, name = key.removesuffix(".kind").partition(".")
        if not key.endswith(".kind") or group != "teachers" or name not in config.get("teachers", {}):
            continue
        from data_pipeline.teachers.settings import SETTINGS

        before = config.teachers[name]
        if kind not in SETTINGS or before.get("kind") == kind:
            continue
        same = {own: before[own] for own in SETTINGS[kind] if own in before}
        with config.unlocked():
            config.teachers[name] = ConfigDict({"kind": kind, **SETTINGS[kind], **same}, allow_dotted_keys=True)
