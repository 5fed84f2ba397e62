"""scripts/inspect_data.py: what training would see, and what would not fit, before anything is trained."""

import re
import subprocess
import sys

from tests.scripts.test_train import PHOTOS, ROOT
from tests.started import environment, run


def command(base, *more):
    return [
        sys.executable,
        str(ROOT / "scripts" / "inspect_data.py"),
        f"--config={ROOT / 'configs' / 'photos.py'}",
        f"--config.model.path={base}",
        f"--config.data.path={PHOTOS / 'photos.json'}",
        "--config.model.max_visual_tokens=16",
        "--config.batch.sequence_length=256",
        *more,
    ]


def inspect(base, *more):
    return run(command(base, *more), env=environment())


def test_lengths_batches_and_an_epoch_are_told(base):
    done = subprocess.run(command(base), env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "examples   39" in done.stdout and "images   11" in done.stdout
    assert "left out or changed: nothing" in done.stdout
    steps, tokens = re.search(r"an epoch is ([\d,]+) steps and ([\d,]+) tokens", done.stdout).groups()
    assert int(steps) > 1 and int(tokens.replace(",", "")) > 39 * 20


def test_images_that_keep_all_of_their_tokens_are_counted(base):
    done = inspect(base, "--config.model.visual_tokens=500", "--config.model.token_reduction=divprune")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("11 of 11 images have no more than 500 visual tokens, and keep all") == 1
    done = inspect(base, "--config.model.visual_tokens=2", "--config.model.token_reduction=divprune")
    assert "keep all" not in done.stdout
    assert "visual tokens an example with images (at most 2 of an image's, by divprune)" in done.stdout


def test_what_does_not_fit_is_counted_with_its_reason(base):
    done = inspect(base, "--config.batch.sequence_length=100", "--config.data.too_large=drop")
    assert done.returncode == 0, done.stderr
    assert re.search(r"left out or changed: \d+ dropped \(too large\)", done.stdout)
    assert re.search(r"photos.json, entry \d+ .*takes \d+ tokens", done.stdout)


def test_a_sample_is_enough_for_an_estimate(base):
    done = inspect(base, "--sample=16")
    assert done.returncode == 0, done.stderr
    assert "of which 16 were measured" in done.stdout and "(from the first 16 examples of the run)" in done.stdout


def test_words_without_images_are_looked_at_too(base, tmp_path):
    (tmp_path / "t.csv").write_text("image,question,answer\n,Who?,I.\n,What?,It.\n")
    done = inspect(base, f"--config.data.path={tmp_path / 't.csv'}")
    assert done.returncode == 0, done.stderr
    assert "images   0" in done.stdout and "resolution" not in done.stdout


def test_a_missing_file_is_one_line(base):
    done = inspect(base, "--config.data.path=nowhere.json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "nowhere.json" in done.stderr
