"""build_index.py and retrieve.py as a person starts them: an index, and records with what was found in it."""

import json
import sys

from tests.retrieval_world import write_passages
from tests.started import ROOT, environment, run
from tests.tiny_encoders import save_clip
from tests.tiny_models import PHOTOS, user


def test_passages_become_an_index_and_what_is_found_in_it_the_context_of_records(tmp_path):
    save_clip(tmp_path / "clip")
    write_passages(tmp_path / "knowledge")
    message = [user("Who is it?", str(PHOTOS / "chelsea.jpg")), {"role": "assistant", "content": "Chelsea"}]
    record = {"id": "r", "messages": message, "provenance": {"passage_id": "cat"}}
    (tmp_path / "questions.jsonl").write_text(json.dumps(record) + "\n")

    def started(program, *options):
        command = [sys.executable, ROOT / "scripts" / f"{program}.py", "--encoder=clip", *options]
        return run(command, env=environment(), cwd=tmp_path)

    built = started("build_index", "--passages=knowledge/passages.jsonl", "--output=index")
    assert built.returncode == 0, built.stderr
    said = "index: 5 passages, 5 images, by clip; of 1 only the first 40 tokens were read\n"
    assert built.stdout == said
    asked = ("--records=questions.jsonl", "--index=index", "--output=with.jsonl")
    done = started("retrieve", *asked, "--k=1", "--image_to_text=0", "--text_to_text=0", "--text_to_image=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "with.jsonl: 1 records, each with up to 1 of 5 passages",
        "recall @1 100.0% of 1 records that name their gold passage",
    ]
    written = json.loads((tmp_path / "with.jsonl").read_text())
    assert written["context"] == "Chelsea\nA tabby cat that looks at you."
    assert written["provenance"]["passages"] == [{"id": "cat", "rank": 1, "gold": True}]
    wrong = started("retrieve", *asked, "--distractors=-1")
    assert wrong.returncode != 0 and "Traceback" not in wrong.stderr
