"""A model learns what it did not know: corpus, the base's answers, training, answers again, export, a table.

    make quickstart

Every stage is one of the other scripts, printed as it is run, and left out once it is done: the same command goes on
after an interruption, and done twice it changes nothing. --output is the folder of it all.
"""

import interrupts  # noqa: F401 - first of all

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

import command_line
from vlm_jax import output_folder, terminal

flags.DEFINE_string("output", "runs/quickstart", "folder of all that is made")
flags.DEFINE_multi_string("objects", [], "a setting of the corpus, as --objects=factor=5")
flags.DEFINE_multi_string("scenes", [], "a setting of the plain scenes, as --scenes=drill=800")
flags.DEFINE_multi_string("train", [], "a setting of the training, as --train=train.seed=1")

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
SPLITS = ("synthetic", "photo")
ALLOWED = 0.05
"""How far swapped images may lie above never looking before nothing is claimed."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One script to run."""

    name: str
    command: list[str]
    folder: Path
    products: tuple[str, ...]
    """What lies in the folder when the stage is done."""
    needs: tuple[str, ...] = ()
    """Stages whose work it uses: done anew, they have it done anew."""

    def finished(self) -> bool:
        return all(any(self.folder.glob(product)) for product in self.products)


def main() -> None:
    from vlm_jax.checkpoint.files import alone
    from vlm_jax.errors import InputError

    output = Path(flags.FLAGS.output)
    output_folder.check(
        output, f"--output={output}", owner="a quickstart's", marks=("stages.json",), alone=("objects",)
    )
    if not (BASE / "config.json").is_file():
        raise InputError(
            f"{BASE}: the base model is missing; check the files out again, or make it with make tiny_base"
        )
    output.mkdir(parents=True, exist_ok=True)
    # A stage that outlives this process holds the lock on.
    with alone(output, "making a quickstart") as lock:
        run_stages(output, lock)


def run_stages(output: Path, lock: int) -> None:
    from vlm_jax.checkpoint.files import write_json

    stages = stages_of(output)
    state = read_state(output / "stages.json", made_from())
    seconds, anew = state["seconds"], set()
    for number, stage in enumerate(stages, start=1):
        title = f"[{number}/{len(stages)}] {stage.name}"
        stale = anew.intersection(stage.needs)
        if stage.name in seconds and not stale and stage.finished():
            terminal.say(f"{title}: done before")
            continue
        # Only evaluations and exports need another stage: no run and no corpus is ever taken away.
        if stage.folder.exists() and (stale or stage.name == "export"):
            shutil.rmtree(stage.folder)
        terminal.say(f"{title}: scripts/{' '.join(map(str, stage.command))}")
        begun = time.monotonic()
        write_json(output / "stages.json", state)
        run_stage(stage.command, lock)
        anew.add(stage.name)
        seconds[stage.name] = round(time.monotonic() - begun, 1)
        terminal.say(f"{title}: {seconds[stage.name]:.0f} s")
        write_json(output / "stages.json", state)
    print(table(output))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    memory = f"; the largest process took {peak:.1f} GB of memory" if anew else ""
    terminal.say(f"\nall stages took {sum(seconds.values()):.0f} s on {os.cpu_count()} cores{memory}\n")
    print(next_steps(output, output / "objects"))


def stages_of(output: Path) -> list[Stage]:
    """The stages in order. Corpora and training go on by themselves where they were stopped, and so do evaluations."""
    objects, scenes, run = output / "objects", output / "scenes", output / "run"
    shown = ",".join(str(objects / f"{split}.jsonl") for split in SPLITS)
    questions = f"{shown},{scenes / 'held_out.jsonl'}"
    changed = {
        name: [f"--config.{setting}" for setting in flags.FLAGS[name].value] for name in ("objects", "scenes", "train")
    }

    def evaluation(model: Path, benchmark: str, name: str, *more: str) -> list[str]:
        where = [f"--model={model}", f"--benchmark={benchmark}", f"--output={output / name}"]
        return ["evaluate.py", *where, "--max_new_tokens=16", *more]

    report = ("predictions.jsonl", "report.json", "report.html")
    corpora = ("draw the objects", "draw plain scenes")
    data = f"--config.data.path={objects / 'train.jsonl'},{scenes / 'drill.jsonl'}"
    return [
        *_corpora(objects, scenes, changed),
        Stage("ask the base", evaluation(BASE, questions, "before"), output / "before", report, corpora),
        Stage(
            "train",
            ["train.py", config_flag("quickstart.py"), f"--workdir={run}", data, *changed["train"]],
            run,
            ("checkpoints/*", "metrics.jsonl"),
        ),
        Stage(
            "ask again",
            evaluation(run, questions, "after", f"--baseline={output / 'before'}"),
            output / "after",
            report,
            (*corpora, "ask the base", "train"),
        ),
        Stage(
            "swap the images",
            evaluation(run, shown, "swapped", "--images=swapped"),
            output / "swapped",
            report,
            ("draw the objects", "train"),
        ),
        Stage(
            "export",
            ["convert_checkpoint.py", f"--source={run}", f"--target={output / 'hf'}", "--format=hf"],
            output / "hf",
            ("config.json", "*.safetensors", "tokenizer.json"),
            ("train",),
        ),
    ]


def config_flag(name: str) -> str:
    return f"--config={os.path.relpath(ROOT / 'configs' / name)}"


def _corpora(objects: Path, scenes: Path, changed: dict[str, list[str]]) -> list[Stage]:
    plain = ["--config.seed=1", "--config.train=0", "--config.drill=800", "--config.things=0", "--config.finding=0"]
    return [
        Stage(
            "draw the objects",
            ["generate_corpus.py", config_flag("corpus/objects.py"), f"--output={objects}", *changed["objects"]],
            objects,
            ("corpus.json", "train.jsonl", *(f"{split}.jsonl" for split in SPLITS)),
        ),
        Stage(
            "draw plain scenes",
            ["generate_corpus.py", config_flag("corpus/scenes.py"), f"--output={scenes}", *plain, *changed["scenes"]],
            scenes,
            ("corpus.json", "drill.jsonl", "held_out.jsonl"),
        ),
    ]


def made_from() -> dict:
    """What decides the figures: settings, and the contents of the config files and of the base."""

    def digest(*paths: Path) -> str:
        hasher = hashlib.sha256()
        for path in paths:
            hasher.update(path.read_bytes())
        return hasher.hexdigest()[:16]

    configs = ("corpus/objects.py", "corpus/scenes.py", "quickstart.py")
    return {
        **{f"--{name}": list(flags.FLAGS[name].value) for name in ("objects", "scenes", "train")},
        **{f"configs/{name}": digest(ROOT / "configs" / name) for name in configs},
        "base model": digest(BASE / "config.json", *sorted(BASE.glob("*.safetensors"))),
    }


def read_state(path: Path, expected: dict) -> dict:
    """`{"made_from": …, "seconds": {stage: how long it took}}` of a quickstart that was begun, or a new one.

    Raises:
      InputError: it was begun with other settings, another base, or the file is damaged.
    """
    from vlm_jax.checkpoint.files import read_json
    from vlm_jax.errors import InputError

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


def run_stage(command: list[str], lock: int) -> None:
    """Runs a script as a person would; it has said itself what is wrong when it fails.

    Ctrl-C reaches the script from the terminal; it is given the time to save. A second one ends it.
    """
    script, *arguments = command
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts" / script), *arguments], pass_fds=(lock,))

    def stop(number, frame):
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    interrupted = False
    try:
        status = process.wait()
    except KeyboardInterrupt:
        interrupted = True
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.kill()
            status = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if status or interrupted:
        stopped = interrupted or status == 130
        terminal.say("stopped; the same command goes on from here" if stopped else f"{script} failed; see above")
        sys.exit(130 if stopped else 1)


def table(output: Path) -> str:
    """Before and after, and whether the images were used at all."""
    after, swapped = (json.loads((output / name / "report.json").read_text()) for name in ("after", "swapped"))
    rows = {
        "objects, unseen views (synthetic)": after["by"]["split"]["synthetic"],
        "objects on photographs (photo)": after["by"]["split"]["photo"],
        "plain scenes (must not be forgotten)": after["by"]["split"]["held_out"],
    }
    lines = [f"\n{'right answers':38}  before   after   95 % interval        n"]
    for name, part in rows.items():
        lines.append(
            f"{name:38}  {part['baseline']['mean']:>6.1%}  {part['mean']:>6.1%}   "
            f"{part['low']:>6.1%} – {part['high']:>6.1%}  {part['n']:>5}"
        )
    lines.append(
        f"{'objects, with the wrong images':38}  {'':6}  {swapped['mean']:>6.1%}   "
        f"{swapped['low']:>6.1%} – {swapped['high']:>6.1%}  {swapped['n']:>5}"
    )
    lines.append(claim([after["by"]["split"][split] for split in SPLITS], swapped))
    lost = rows["plain scenes (must not be forgotten)"]
    change = 100 * (lost["mean"] - lost["baseline"]["mean"])
    lines.append(f"Plain scenes changed by {change:+.1f} points.")
    return "\n".join(lines)


def claim(learned: list[dict], swapped: dict) -> str:
    """What may be said: that images are used only where wrong ones do not help, and right ones do for sure."""
    blind = swapped["majority"]
    if swapped["mean"] > blind + ALLOWED:
        return f"NO CLAIM: with the wrong images more is right than without looking ({blind:.1%})."
    if any(part["low"] <= max(blind, swapped["mean"]) for part in learned):
        return f"NO CLAIM: no more is right than without looking ({blind:.1%}) on some of the objects' questions."
    return f"The answers come from the images: without looking, {blind:.1%} would be right."


def next_steps(output: Path, objects: Path) -> str:
    first = json.loads((objects / "photo.jsonl").read_text(encoding="utf-8").splitlines()[0])
    image, question = (part.get("image") or part["text"] for part in first["messages"][0]["content"])
    python = os.path.relpath(sys.executable)
    return f"""Look at the answers with their images: {output / "after" / "report.html"}

Ask one question:
  {python} scripts/chat.py --model={output / "run"} --image={objects / image} --question="{question}"
Open it in transformers (needs PyTorch: {python} -m pip install torch):
  {python} -c "from transformers import AutoModelForImageTextToText as M; print(M.from_pretrained('{output / "hf"}'))"
Train on your own images (a table with the columns image, question, answer):
  {python} scripts/train.py --config=configs/quickstart.py --workdir=runs/my_images \\
    --config.data.path=questions.csv --config.train.steps=150"""


if __name__ == "__main__":
    command_line.run(main)
