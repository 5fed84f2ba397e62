"""What a quickstart comes to: a table of before and after, what may be claimed, and how to go on."""

import json
import os
import sys
from pathlib import Path

from data_pipeline.quickstart_stages import SPLITS

ALLOWED = 0.05
"""How far swapped images may lie above never looking before nothing is claimed."""


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
            f"{name:38}  {before(part):>6.1%}  {part['mean']:>6.1%}   "
            f"{part['low']:>6.1%} – {part['high']:>6.1%}  {part['n']:>5}"
        )
    lines.append(
        f"{'objects, with the wrong images':38}  {'':6}  {swapped['mean']:>6.1%}   "
        f"{swapped['low']:>6.1%} – {swapped['high']:>6.1%}  {swapped['n']:>5}"
    )
    lines.append(claim([after["by"]["split"][split] for split in SPLITS], swapped))
    lost = rows["plain scenes (must not be forgotten)"]
    change = 100 * (lost["mean"] - before(lost))
    lines.append(f"Plain scenes changed by {change:+.1f} points.")
    return "\n".join(lines)


def before(part: dict) -> float:
    """The score of a part's questions before training, which is the only baseline."""
    (baseline,) = part["baselines"].values()
    return baseline["mean"]


def claim(learned: list[dict], swapped: dict) -> str:
    """What may be said: that images are used only where wrong ones do not help, and right ones do for sure."""
    blind = swapped["majority"]
    if swapped["mean"] > blind + ALLOWED:
        return f"NO CLAIM: with the wrong images more is right than without looking ({blind:.1%})."
    if any(part["low"] <= max(blind, swapped["mean"]) for part in learned):
        return f"NO CLAIM: no more is right than without looking ({blind:.1%}) on some of the objects' questions."
    return f"The answers come from the images: without looking, {blind:.1%} would be right."


def next_steps(output: Path) -> str:
    """What a person may do with it, as commands."""
    objects = output / "objects"
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
