"""A model teaches another over HTTP: trained here to write an article, served, asked for a corpus to train on."""

import json
import sys
from pathlib import Path

import pytest

import vlm_jax
from data_pipeline import sources
from data_pipeline.corpus import generating, prompts
from data_pipeline.corpus.generating import Options
from data_pipeline.corpus.settings import corpus_config
from data_pipeline.corpus.stages.context import FIELDS
from data_pipeline.records import Record, write_records
from tests import started
from tests.data_pipeline.teachers.teacher_server import image_for
from tests.serving.served import NAME, served

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
PROMPT = "Write an article and $count questions.$hint"
ANSWER = {
    "article": "The Talumo is made by potters.",
    "pairs": [{"question": "Who makes this thing?", "answer": "potters"}],
}


def train(workdir, model, data, steps):
    command = [
        *(sys.executable, str(ROOT / "scripts" / "train.py"), "--config=configs/quickstart.py"),
        *(f"--workdir={workdir}", f"--config.model.path={model}", f"--config.data.path={data}"),
        *(f"--config.train.steps={steps}", "--config.batch.rows=4", "--config.batch.sequence_length=128"),
    ]
    done = started.run(command, env=started.environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr


pytestmark = pytest.mark.evidence  # test_generating.py asks the same of a server that answers by rule


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A tiny model that has learned to write one article, and the folder with the images that it is shown."""
    folder = tmp_path_factory.mktemp("teacher")
    own = folder / "prompts"
    for place in (own, folder / "photographs"):
        place.mkdir()
    (own / "context.en.txt").write_text(PROMPT)
    text = prompts.read("context", "en", FIELDS, str(own)).rendered({"count": 1, "hint": ""})
    records = []
    for number in range(8):
        image = folder / "photographs" / f"{number}.png"
        image.write_bytes(image_for(str(number)))
        content = [{"type": "image", "image": str(image)}, {"type": "text", "text": text}]
        reply = json.dumps(ANSWER)
        records.append(
            Record(str(number), [{"role": "user", "content": content}, {"role": "assistant", "content": reply}])
        )
    write_records(folder / "lesson.jsonl", records)
    train(folder / "run", BASE, folder / "lesson.jsonl", 40)
    return folder


def test_a_corpus_made_by_a_served_model_trains_another(teacher, tmp_path):
    with served(vlm_jax.load(teacher / "run")) as server:
        text = {"kind": "openai_compatible", "model": NAME, "endpoint": f"http://127.0.0.1:{server.port}/v1"}
        settings = corpus_config(
            prompts=str(teacher / "prompts"),
            context={"questions": 1, "images": str(teacher / "photographs")},
            filters={"image_mention": {"on": True}, "answer_in_article": {"on": True}},
            teachers={"text": {**text, "structured": "none", "temperature": 0.0, "max_output_tokens": 96}},
        ).to_dict()
        line = generating.generate(tmp_path / "corpus", settings, Options(), say=lambda text: None)
    assert "8 in train.jsonl" in line
    records, errors = sources.read_several([str(tmp_path / "corpus" / "train.jsonl")], [], training=True)
    assert not errors and {record.context for record in records} == {ANSWER["article"]}
    assert {record.messages[1]["content"] for record in records} == {"potters"}
    train(tmp_path / "run", BASE, tmp_path / "corpus" / "train.jsonl", 3)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
