"""A corpus from its settings: the stages, then records, manifest and card, in a folder that is gone on with.

`stages/` holds what each stage made, `store/` every answer. With other settings a folder is refused, unless it is said
from which stage on it is to be made anew; what was answered to requests that stay the same is never asked again.
"""

import contextlib
import functools
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.corpus import finishing, projection, prompts
from data_pipeline.corpus import settings as corpus_settings
from data_pipeline.corpus.pipeline import NEEDED, ORDER, PROMPTS, Pipeline, deciding, stage_settings
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.prices import Price, prices_of
from data_pipeline.teachers.progress_lines import ProgressLines
from data_pipeline.teachers.store import Store
from vlm_jax import output_folder, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_json
from vlm_jax.errors import InputError, gathered

RUN = "run.json"
"""In the folder of a corpus: the settings that its stages were made with."""


@dataclass(frozen=True)
class Options:
    """How far a run goes.

    Attributes:
      until: the last stage; "" for all, and the finished corpus.
      restart_from: the stage from which on other settings than the folder's are taken.
      preview: topics that are gone through, into the folder `preview`; 0 for the whole corpus.
      dry_run: nothing is asked, and what would be is told.
      max_cost: dollars that all calls together stay below.
      shard: "0/4" for the first of four machines, each of which asks about its own topics and images; "" for all. Then
        one run without it makes the corpus, of answers that are all there.
    """

    until: str = ""
    restart_from: str = ""
    preview: int = 0
    dry_run: bool = False
    max_cost: float | None = None
    shard: str = ""


def generate(
    folder: Path, settings: Mapping[str, Any], options: Options, *, say: Callable[[str], None] = terminal.say
) -> str:
    """Makes a corpus, or goes on with it. Returns what is to be said at the end.

    Raises:
      InputError: settings that cannot be, or are others than the folder's; a teacher that does not answer; the cost
        that was allowed is reached.
      Stopped: Ctrl-C.
    """
    _check_options(options)
    settings = corpus_settings.without_nobody(settings)
    errors: list[str] = []
    with gathered(errors):
        corpus_settings.check(settings)
    if not errors:
        prompts.check(
            PROMPTS, NEEDED, [settings["language"], *settings["languages"]], _written(settings), settings["prompts"]
        )
    if errors:
        raise InputError(errors)
    if options.max_cost is not None:
        _check_prices(settings)
    output_folder.check(folder, f"--output={folder}", owner="a corpus's", marks=(RUN,))
    _check_run(folder, settings, options.restart_from, options.shard)
    prices = prices_of(settings["prices"])
    if options.dry_run:
        return _projected(folder, settings, options, prices)
    part = options.shard.replace("/", "-of-")
    target = folder / "shards" / part if part else folder / "preview" if options.preview else folder
    target.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(folder, "generating", together=bool(part)))
        if part:
            stack.enter_context(alone(target, "generating"))
            if options.max_cost is not None:
                say(f"--max_cost={options.max_cost:g} holds for this part: others do not know what it spends")
        else:
            _forget(folder, options.restart_from)
        store = stack.enter_context(contextlib.closing(Store(folder / "store", part)))
        with Asker(store, prices, options.max_cost, ProgressLines(say)) as asker:
            note = functools.partial(_note, folder, stage_settings(settings))
            made = note if target == folder else lambda stage: None
            pipeline = Pipeline(settings, target, asker, options.until, options.preview, part, say, made)
            pipeline.ready()
            _say_changed(target, settings, say)
            items = pipeline.run()
            if part:
                return f"{target}: all answers of this part are in {folder / 'store'}"
            if options.until:
                return f"{target}: {len(items):,} items of the stage {options.until}; nothing behind it was asked"
            return finishing.finish(target, items, pipeline, settings)


def _say_changed(folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Says which prompts are others than those that a finished corpus was made with: what they ask is asked anew."""
    if not (folder / finishing.MANIFEST).is_file():
        return
    before, now = read_json(folder / finishing.MANIFEST).get("prompts", {}), prompts.digests(settings["prompts"])
    if changed := [name for name in now if before.get(name) != now[name]]:
        say(f"{', '.join(changed)}: changed since this corpus was made; what depends on it is asked and paid for anew")


def _projected(folder: Path, settings: Mapping[str, Any], options: Options, prices: dict[str, Price]) -> str:
    """What a run would ask. The folder is left as it is, also where it is not there yet."""
    with tempfile.TemporaryDirectory() as empty:
        store = folder / "store" if (folder / "store").is_dir() else Path(empty)
        with contextlib.closing(Store(store)) as opened, Asker(opened, prices) as asker:
            pipeline = Pipeline(settings, Path(empty), asker, topics=options.preview, say=lambda text: None)
            return projection.table(projection.projected(pipeline, prices))


def _written(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(stage, language) of the prompts that ask for text in their own language."""
    found = []
    if settings["topics"]["domains"]:
        forms = ["simple"] if settings["questions"]["pairs_per_fact"] or settings["held_out"]["questions"] else []
        forms += ["steps"] if settings["questions"]["steps"] else []
        found = [(form, language) for form in forms for language in settings["languages"]]
    return found + ([("context", settings["languages"][0])] if settings["context"]["questions"] else [])


def _forget(folder: Path, stage: str) -> None:
    """The settings of a stage, and of those behind it, are no longer those of the folder; the folder is ours."""
    earlier = read_json(folder / RUN) if (folder / RUN).is_file() else {}
    first = ORDER.index(stage) if stage else len(ORDER)
    write_json(folder / RUN, {name: earlier[name] for name in ORDER[:first] if name in earlier})


def _note(folder: Path, now: Mapping[str, Any], stage: str) -> None:
    """The settings that a stage was made with, once it is made."""
    write_json(folder / RUN, {**read_json(folder / RUN), stage: now[stage]})


def _check_options(options: Options) -> None:
    errors = [
        f"--{name}={value}: no such stage; known are {', '.join(ORDER)}"
        for name, value in (("until", options.until), ("restart_from", options.restart_from))
        if value and value not in ORDER
    ]
    if options.shard and not _is_shard(options.shard):
        errors.append(f"--shard={options.shard}: wanted such as 0/4, the first of four")
    if options.shard and (options.preview or options.dry_run or options.restart_from):
        errors.append(f"--shard={options.shard}: a part has no preview, no dry run and no restart of its own")
    if options.preview < 0:
        errors.append(f"--preview={options.preview}: wanted a number of topics")
    if options.max_cost is not None and not options.max_cost >= 0:  # so that NaN is refused too
        errors.append(f"--max_cost={options.max_cost}: wanted dollars")
    if errors:
        raise InputError(errors)


def _is_shard(text: str) -> bool:
    numbers = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    return numbers is not None and int(numbers[1]) < int(numbers[2])


def _check_prices(settings: Mapping[str, Any]) -> None:
    """A cost can only be limited where every price is known."""
    errors = [
        f"--max_cost needs the price of {teacher['model']} (config.teachers.{name}); set it in config.prices, 0 where "
        "nothing is paid"
        for name, teacher in settings["teachers"].items()
        if teacher and teacher["kind"] not in projection.HERE and teacher["model"] not in settings["prices"]
    ]
    if errors:
        raise InputError(errors)


def _check_run(folder: Path, settings: Mapping[str, Any], restart_from: str, part: str) -> None:
    """Raises InputError where the folder was made with other settings, of a stage before the one to restart from."""
    if not (folder / RUN).is_file():
        if part:
            raise InputError(f"--shard: {folder} holds no topics yet; run the same with --until=topics first, once")
        if restart_from:
            raise InputError(f"--restart_from={restart_from}: {folder} holds no corpus yet; leave it out")
        return
    earlier, now = read_json(folder / RUN), json.loads(json.dumps(stage_settings(settings)))
    earlier = {stage: own if isinstance(own, dict) else {} for stage, own in earlier.items()}
    first = ORDER.index(restart_from) if restart_from else len(ORDER)
    differing = [
        (stage, *values)
        for stage in ORDER[:first]
        for key in now[stage]
        if stage in earlier
        for values in _differences(f"config.{_path(stage, key)}", earlier[stage].get(key), now[stage][key])
    ]
    if differing:
        raise InputError(
            [
                *(
                    f"{name} differs from what the stage {stage} of {folder} was made with ({_short(was)}, and now "
                    f"{_short(is_now)})"
                    for stage, name, was, is_now in differing
                ),
                f"--restart_from={differing[0][0]} makes that stage and what follows anew; or take another --output",
            ]
        )


def _differences(name: str, was: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """(setting, what it was, what it is) of all that differ; of a teacher that was none, the whole teacher."""
    if isinstance(was, dict) and isinstance(now, dict) and was and now:
        was = deciding(was) if "kind" in was else was
        return [(f"{name}.{key}", was.get(key), now.get(key)) for key in {**was, **now} if was.get(key) != now.get(key)]
    return [] if was == now else [(name, was, now)]


def _path(stage: str, key: str) -> str:
    """A key of `stage_settings` as a person wrote it."""
    if key in ("text", "image", "judge", "student"):
        return f"teachers.{key}"
    return {
        "probes.questions": "known.questions",
        "image_prompts.images": "held_out.images",
        "questions.held_out": "held_out.questions",
        "questions.photographs": "held_out.photographs",
    }.get(f"{stage}.{key}", key)


def _short(value: Any) -> str:
    return terminal.line(json.dumps(value, ensure_ascii=False), 120)
