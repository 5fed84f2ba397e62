"""The environment of programs that tests start."""

import os
import re


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """As in the tests themselves (`conftest`), with another number of virtual CPU devices."""
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    return {**os.environ, "XLA_FLAGS": flags, "TQDM_DISABLE": "1", **more}


def as_shipped() -> dict[str, str]:
    """As a person's machine has it: one device, and programs compiled with all of XLA's optimisation."""
    return {**os.environ, "XLA_FLAGS": "", "TQDM_DISABLE": "1"}
