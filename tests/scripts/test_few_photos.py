"""The small version of test_photos.py: a Qwen3-VL made from nothing tells four photographs apart by their pixels."""

import json

import vlm_jax
from data_pipeline import new_model
from data_pipeline.training_run import run
from tests.tiny_models import PHOTOS
from vlm_jax.training.config import default_config

COUNT = 4


def test_one_question_about_four_photographs_gets_four_answers(tmp_path):
    entries = json.loads((PHOTOS / "same_question.json").read_text())[:COUNT]
    for entry in entries:
        entry["image"] = str(PHOTOS / entry["image"])
    (tmp_path / "few.json").write_text(json.dumps(entries))
    new_model.make(tmp_path / "model", [str(tmp_path / "few.json")], family="qwen3_vl", vocab=300)
    config = default_config()
    config.model.update(path=str(tmp_path / "model"), max_visual_tokens=4)
    config.data.path = str(tmp_path / "few.json")
    config.batch.update(rows=8, sequence_length=96)
    config.train.update(steps=32, remat="none")
    config.optimizer.update(learning_rate=3e-3, warmup_fraction=0.05)
    run(config, str(tmp_path / "run"))
    model = vlm_jax.load(tmp_path / "run", dtype="float32")

    def asked(entries):
        content = [{"type": "image", "image": one["image"]} for one in entries]
        words = [one["conversations"][0]["value"].replace("<image>\n", "") for one in entries]
        return [
            [{"role": "user", "content": [part, {"type": "text", "text": text}]}]
            for part, text in zip(content, words, strict=True)
        ]

    answers = [entry["conversations"][1]["value"] for entry in entries]
    assert len(set(answers)) == COUNT
    # They follow the images: of the next photograph the next answer is given.
    swapped = entries[1:] + entries[:1]
    assert model.generate(asked(entries + swapped), max_new_tokens=24) == answers + answers[1:] + answers[:1]
