"""Published metadata against transformers: prompts, pixels, logits and greedy answers of small random weights under it.

    .venv/bin/python benchmarks/published_metadata.py --metadata=DIR --tokenizer=DIR

--metadata holds the small files of a published Qwen-VL checkpoint as they are on the hub (config.json, chat template,
image processor, generation_config.json, tokenizer_config.json), --tokenizer vocab.json and merges.txt where they lie
elsewhere. Nothing is downloaded, and no weights are needed: a few widths and the number of decoder layers are shrunk.
The folder is written as published, as transformers 4.4x saves it again, and as transformers 5 does; each is read by
transformers and here. Needs the test extra. Prints a table; the exit status is 1 where anything differs.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForImageTextToText
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.resaved import FORMS, compare, save, small_config
from tests.tiny_models import PHOTOS, assistant, noise, user
from vlm_jax.models import families


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metadata", type=Path, required=True, help="folder of a published checkpoint's small files")
    parser.add_argument("--tokenizer", type=Path, help="folder with vocab.json and merges.txt, if not there")
    options = parser.parse_args()
    logging.set_verbosity_error()
    config_json = json.loads((options.metadata / "config.json").read_text())
    if (kind := config_json.get("model_type")) not in families.titles():
        parser.error(f"{options.metadata}: model_type {kind!r}; known are {', '.join(families.titles())}")
    config_json = small_config(config_json)
    differs = False
    print(f"{'form':26} {'prompts':8} {'pixels':>8} {'logits':>8} answers")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "metadata"
        files.mkdir()
        for path in (*options.metadata.iterdir(), *(options.tokenizer.iterdir() if options.tokenizer else ())):
            shutil.copyfile(path, files / path.name)
        for form in FORMS:
            target = Path(folder) / form.replace(" ", "-")
            save(target, form, files, config_json)
            theirs = AutoModelForImageTextToText.from_pretrained(target, dtype="float32").eval()
            found = compare(target, theirs, conversations(Path(folder)), questions(Path(folder)), tokens=32)
            equal = ("equal", "DIFFER")
            print(f"{form:26} {equal[found.prompts]:8} {found.pixels:8.1e} {found.logits:8.1e} {equal[found.answers]}")
            differs |= found.prompts or found.answers or found.pixels > 1e-5 or found.logits > 1e-4
            shutil.rmtree(target)
    sys.exit(int(differs))


def questions(folder: Path) -> list:
    return [
        [user("What is on the saucer?", str(PHOTOS / "coffee.jpg"))],
        [user("Which is larger?", str(PHOTOS / "temple.jpg"), noise(folder, 140, 84))],
        [{"role": "user", "content": "What is the capital of France?"}],
        [{"role": "system", "content": "Answer in Thai."}, user("นี่คืออะไร", str(PHOTOS / "chelsea.jpg"))],
    ]


def conversations(folder: Path) -> list:
    asked = questions(folder)
    answered = [[*one, assistant("The first: 1,024 — naïve, 日本語 and 😀.")] for one in asked]
    return [*answered, [*answered[0], user("And now?"), assistant("Nothing")]]


if __name__ == "__main__":
    main()
