"""The whole quickstart as one function: a model learns what it did not know, stage by stage, in one process.

`scripts/quickstart.py` calls it, and so may any program: nothing here reads flags. What the stages are is
`quickstart_stages`'; what comes of them, `quickstart_report`'s to tell.
"""

import dataclasses
import gc
import hashlib
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.config_files import Load, Override
from data_pipeline.quickstart_stages import CONFIGS, Quickstart, QuickstartStage, StageStopped, stages_of
from vlm_jax import output_folder, stop_signals, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_json
from vlm_jax.errors import InputError

STATE = "stages.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of it.

    Attributes:
      done: the stages that were done now, the others having been done before.
      seconds: {stage: how long it took, now or then}.
      stopped: whether a person asked it to stop; the same call goes on.
      peak: bytes of memory that this process, or one that drew images for it, took at most.
    """

    done: Sequence[str]
    seconds: dict[str, float]
    stopped: bool
    peak: int


def run(quickstart: Quickstart, *, load: Load, show: Callable[[str], None] = print) -> Result:
    """Does every stage that is not done, and those that use what was done anew.

    Ctrl-C, or SIGTERM, ends it with what the stage has saved; the same call goes on from there.

    Args:
      load: reads config files.
      show: called with what each stage has come to. What happens on the way is said on standard error.

    Raises:
      InputError: the folder is another program's, or was begun with other settings; the base is not there; settings of
        any stage that cannot be, before the first is begun; or what a stage finds wrong.
    """
    output = quickstart.output
    output_folder.check(output, f"--output={output}", owner="a quickstart's", marks=(STATE,), alone=("objects",))
    if not (quickstart.base / "config.json").is_file():
        raise InputError(
            f"{quickstart.base}: the base model is missing; check the files out again, or make it with make tiny_base"
        )
    stages = stages_of(quickstart, load)
    output.mkdir(parents=True, exist_ok=True)
    done: list[str] = []
    with alone(output, "making a quickstart"), stop_signals.as_ctrl_c():
        state = _read_state(output / STATE, _made_from(quickstart))
        try:
            _do(stages, output, state, done, show)
            stopped = False
        except (KeyboardInterrupt, StageStopped):
            terminal.say("stopped; the same command goes on from here")
            stopped = True
    gc.collect()  # also semaphores of processes that were drawing: a program that ends at once would leave them
    return Result(done, state["seconds"], stopped, _peak())


def _do(
    stages: Sequence[QuickstartStage], output: Path, state: dict[str, Any], done: list[str], show: Callable[[str], None]
) -> None:
    """Does what is left, and adds it to `done`; before each stage and behind it, `state` is written down.

    What uses the work of a stage that is done anew counts as not done from its beginning on, also for a later call.
    """
    seconds = state["seconds"]
    for number, stage in enumerate(stages, start=1):
        title = f"[{number}/{len(stages)}] {stage.name}"
        if stage.name in seconds and stage.finished():
            terminal.say(f"{title}: done before")
            continue
        stale = _using(stages, stage)
        for one in (stage, *stale):
            seconds.pop(one.name, None)
        if stage.name == "export" and stage.folder.exists():
            shutil.rmtree(stage.folder)
        terminal.say(f"{title}: scripts/{shlex.join(stage.command)}")
        begun = time.monotonic()
        write_json(output / STATE, state)
        outcome = stage.do()
        # Only evaluations and exports use another stage: no run and no corpus is ever taken away.
        for one in stale:
            if one.folder.exists():
                shutil.rmtree(one.folder)
        gc.collect()  # what its model took of the memory is for the next
        done.append(stage.name)
        seconds[stage.name] = round(time.monotonic() - begun, 1)
        write_json(output / STATE, state)
        show(outcome)
        terminal.say(f"{title}: {seconds[stage.name]:.0f} s")


def _using(stages: Sequence[QuickstartStage], begun: QuickstartStage) -> list[QuickstartStage]:
    """The stages that use the work of one, or of one that uses it."""
    names, using = {begun.name}, []
    for stage in stages:  # in order: what a stage needs stands before it
        if names.intersection(stage.needs):
            names.add(stage.name)
            using.append(stage)
    return using


def _made_from(quickstart: Quickstart) -> dict[str, Any]:
    """What decides the figures: settings, and the contents of the config files and of the base."""

    def digest(*paths: Path) -> str:
        hasher = hashlib.sha256()
        for path in paths:
            hasher.update(path.read_bytes())
        return hasher.hexdigest()[:16]

    def typed(changed: Sequence[Override]) -> list[str]:
        return [key if text is None else f"{key}={text}" for key, text in changed]

    return {
        **{f"--{name}": typed(getattr(quickstart, name)) for name in CONFIGS},
        **{f"configs/{file}": digest(quickstart.configs / file) for file in CONFIGS.values()},
        "base model": digest(quickstart.base / "config.json", *sorted(quickstart.base.glob("*.safetensors"))),
    }


def _read_state(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """`{"made_from": …, "seconds": {stage: how long it took}}` of a quickstart that was begun, or a new one.

    Raises:
      InputError: it was begun with other settings, another base, or the file is damaged.
    """
    if not path.exists():
        return {"made_from": expected, "seconds": {}}
    state = read_json(path)
    if not isinstance(state.get("made_from"), dict) or not isinstance(state.get("seconds"), dict):
        raise InputError(f"{path}: is damaged; remove it, and every stage looks for its work itself")
    differing = [name for name in expected if state["made_from"].get(name) != expected[name]]
    if differing:
        raise InputError(
            f"--output={path.parent}: holds a quickstart with another {', '.join(differing)}; take another --output"
        )
    return state


def _peak() -> int:
    """Bytes of memory that this process, or the largest that it started and that has ended, took at most."""
    most = max(resource.getrusage(whose).ru_maxrss for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most * (1 if sys.platform == "darwin" else 1024)
