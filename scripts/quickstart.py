"""A model learns what it did not know: corpus, the base's answers, training, answers again, export, a table.

    make quickstart

Every stage is one of the other scripts, printed as it is run, and left out once it is done: the same command goes on
after an interruption, and done twice it changes nothing. --output is the folder of it all.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

import command_line

flags.DEFINE_string("output", "runs/quickstart", "folder of all that is made")
flags.DEFINE_multi_string("objects", [], "a setting of the corpus, as --objects=factor=5")
flags.DEFINE_multi_string("scenes", [], "a setting of the plain scenes, as --scenes=train=800")
flags.DEFINE_multi_string("train", [], "a setting of the training, as --train=train.seed=1")

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("synthetic", "photo")
ALLOWED = 0.05
"""How far swapped pictures may lie above never looking before nothing is claimed."""


def main() -> None:
    from vlm_jax.errors import InputError

    output = Path(flags.FLAGS.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={output}: is a file; name a folder")
    base = ROOT / "vlm_jax" / "assets" / "tiny_base"
    if not (base / "config.json").is_file():
        raise InputError(
            f"{base}: the base model is missing; check the files out again, or make it with make tiny_base"
        )
    started = time.monotonic()
    objects, scenes, run = output / "objects", output / "scenes", output / "run"
    asked = ",".join([*(str(objects / f"{split}.jsonl") for split in SPLITS), str(scenes / "held_out.jsonl")])
    pictured = ",".join(str(objects / f"{split}.jsonl") for split in SPLITS)
    data = ",".join(str(folder / "train.jsonl") for folder in (objects, scenes))
    changed = {
        name: [f"--config.{setting}" for setting in flags.FLAGS[name].value] for name in ("objects", "scenes", "train")
    }
    short = "--max_new_tokens=16"

    def config(name: str) -> str:
        return f"--config={os.path.relpath(ROOT / 'configs' / name)}"

    # name -> (script and arguments, what it leaves when it is done)
    stages = {
        "draw the objects": (
            ["generate_corpus.py", config("corpus/objects.py"), f"--output={objects}", *changed["objects"]],
            objects / "corpus.json",
        ),
        "draw plain scenes": (
            [
                "generate_corpus.py",
                config("corpus/scenes.py"),
                f"--output={scenes}",
                "--config.seed=1",
                "--config.train=400",
                *changed["scenes"],
            ],
            scenes / "corpus.json",
        ),
        "ask the base": (
            ["evaluate.py", f"--model={base}", f"--benchmark={asked}", f"--output={output / 'before'}", short],
            output / "before" / "report.html",
        ),
        "train": (
            ["train.py", config("quickstart.py"), f"--workdir={run}", f"--config.data.path={data}", *changed["train"]],
            run / "checkpoints",
        ),
        "ask again": (
            [
                "evaluate.py",
                f"--model={run}",
                f"--benchmark={asked}",
                f"--output={output / 'after'}",
                f"--baseline={output / 'before'}",
                short,
            ],
            output / "after" / "report.html",
        ),
        "swap the pictures": (
            [
                "evaluate.py",
                f"--model={run}",
                f"--benchmark={pictured}",
                f"--output={output / 'swapped'}",
                "--pictures=swapped",
                short,
            ],
            output / "swapped" / "report.html",
        ),
        "export": (
            ["convert_checkpoint.py", f"--source={run}", f"--target={output / 'hf'}", "--format=hf"],
            output / "hf" / "config.json",
        ),
    }
    output.mkdir(parents=True, exist_ok=True)
    done = read_done(output / "stages.json")
    for number, (name, (command, product)) in enumerate(stages.items(), start=1):
        title = f"[{number}/{len(stages)}] {name}"
        if done.get(name) == command and product.exists():
            say(f"{title}: done before")
            continue
        say(f"{title}: scripts/{' '.join(map(str, command))}")
        begun = time.monotonic()
        # What comes later was made from what this stage is about to make.
        done = {earlier: done[earlier] for earlier in list(stages)[: number - 1] if earlier in done}
        write_done(output / "stages.json", done)
        run_stage(command)
        say(f"{title}: {time.monotonic() - begun:.0f} s")
        done[name] = command
        write_done(output / "stages.json", done)
    print(table(output))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    say(f"\nall in {time.monotonic() - started:.0f} s on {os.cpu_count()} cores; at most {peak:.1f} GB of memory\n")
    print(next_steps(output, objects))


def run_stage(command: list[str]) -> None:
    """Runs a script as a person would; it has said itself what is wrong when it fails."""
    script, *arguments = command
    try:
        status = subprocess.run([sys.executable, str(ROOT / "scripts" / script), *arguments]).returncode
    except KeyboardInterrupt:
        status = 130
    if status:
        say("stopped; the same command goes on from here" if status == 130 else f"{script} failed; see above")
        sys.exit(130 if status == 130 else 1)


def read_done(path: Path) -> dict[str, list[str]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_done(path: Path, done: dict[str, list[str]]) -> None:
    from vlm_jax.checkpoint.files import write_json

    write_json(path, done)


def table(output: Path) -> str:
    """Before and after, and whether the pictures were used at all."""
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
        f"{'objects, with the wrong pictures':38}  {'':6}  {swapped['mean']:>6.1%}   "
        f"{swapped['low']:>6.1%} – {swapped['high']:>6.1%}  {swapped['n']:>5}"
    )
    blind = swapped["majority"]
    if swapped["mean"] <= blind + ALLOWED:
        lines.append(f"The answers come from the pictures: without looking, {blind:.1%} would be right.")
    else:
        lines.append(f"NO CLAIM: with the wrong pictures more is right than without looking ({blind:.1%}).")
    lost = rows["plain scenes (must not be forgotten)"]
    change = 100 * (lost["mean"] - lost["baseline"]["mean"])
    lines.append(f"Plain scenes changed by {change:+.1f} points.")
    return "\n".join(lines)


def next_steps(output: Path, objects: Path) -> str:
    first = json.loads((objects / "photo.jsonl").read_text(encoding="utf-8").splitlines()[0])
    image, question = (part.get("image") or part["text"] for part in first["messages"][0]["content"])
    python = os.path.relpath(sys.executable)
    return f"""Look at the answers with their pictures: {output / "after" / "report.html"}

Ask one question:
  {python} scripts/chat.py --model={output / "run"} --image={objects / image} --question="{question}"
Open it in transformers (wants PyTorch):
  {python} -c "from transformers import AutoModelForImageTextToText as M; print(M.from_pretrained('{output / "hf"}'))"
Train on your own pictures (a table with the columns image, question, answer):
  {python} scripts/train.py --config=configs/quickstart.py --workdir=runs/mine --config.data.path=questions.csv"""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line.run(main)
