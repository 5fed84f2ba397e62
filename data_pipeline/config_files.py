"""How functions that run many trainings are given their settings: what reads config files stays with the scripts."""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

Override = tuple[str, str | None]
"""A setting that differs from a config file's: its dotted key, and its value as it is typed; None for a bare switch."""

Load = Callable[[str, Sequence[Override]], ConfigDict]
"""Reads a config file, `FILE.py` or `FILE.py:ARGUMENT`, with overrides: `load_config` of scripts/config_file.py.

Raises:
  InputError: for the file, or with a line `--config.KEY: …` for each setting that is unknown or of another type.
"""
