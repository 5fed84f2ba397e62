"""The table of benchmarks: what its entries name is there, and the page about them says the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.prompting import Prompt
from data_pipeline.sources import FORMATS
from vlm_jax.errors import InputError
from vlm_jax.evaluation import submissions
from vlm_jax.evaluation.benchmark import RULES, Submission, combined, headline_of
from vlm_jax.evaluation.benchmarks import BENCHMARKS, named
from vlm_jax.evaluation.metrics import METRICS
from vlm_jax.evaluation.runner import Prediction

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_an_entry_names_is_there(name):
    entry = BENCHMARKS[name]
    assert entry.name == name and entry.form in FORMATS and {entry.metric, *entry.also} <= METRICS.keys()
    assert Prompt(entry.template, entry.suffix) and entry.suffix[:1] in ("", "\n", " ")
    assert 0 < entry.visual_tokens[0] < entry.visual_tokens[1] and entry.max_new_tokens > 0 and entry.splits
    if entry.headline is not None:
        assert entry.headline.rule in RULES and entry.headline.group in entry.groups


def row(entry) -> str:
    """The line of a benchmark in the table of docs/benchmarks.md."""
    splits = ", ".join(
        f"{name}{f' {split.size:,}' if split.size else ''}{'' if split.answered else ' (no answers)'}"
        for name, split in entry.splits.items()
    )
    metrics = ", ".join(f"`{metric}`" for metric in (entry.metric, *entry.also))
    if entry.headline is not None:
        metrics += f"; {entry.headline.rule.replace('_', ' ')} of {' and '.join(entry.headline.values)}"
    handed = entry.submission
    submission = "–" if handed is None else f"`{handed.file}`: `{handed.id_field}`, `{handed.answer_field}`"
    cells = (f"`{entry.name}`", entry.title, entry.files, splits, metrics, ", ".join(entry.groups) or "–", submission)
    return "| " + " | ".join(cells) + " |"


def asked(entry) -> str:
    """The line of a benchmark in the table of how questions are asked."""
    tokens = f"{entry.visual_tokens[0]} to {entry.visual_tokens[1]}: {entry.tokens_from}"
    cells = (f"`{entry.name}`", f"`{entry.template}`" if entry.template else "–", str(entry.max_new_tokens))
    written = [cell.replace("\n", "\\n") for cell in (*cells, tokens, entry.asked_as)]
    return "| " + " | ".join(written) + " |"


@pytest.mark.parametrize("line", [row, asked])
def test_the_page_has_the_line_of_every_entry(line):
    lines = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines()
    missing = [line(entry) for entry in BENCHMARKS.values() if line(entry) not in lines]
    assert missing == [], "\n".join(["write into docs/benchmarks.md:", *missing])


def test_the_table_is_read_without_jax():
    code = "import sys; from vlm_jax.evaluation import benchmarks; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_name_that_is_none_leads_to_the_nearest():
    with pytest.raises(InputError, match="no benchmark is called 'TextVQA'; did you mean textvqa"):
        named("TextVQA")


@pytest.mark.parametrize(
    ("question", "entity", "final"),
    [(0.0889, 0.0738, 0.0806), (0.1274, 0.1228, 0.1251)],  # BLIP-2's, as infoseek_eval's README prints them
)
def test_a_published_figure_is_that_of_the_official_script(question, entity, final):
    by = {"data_split": {"unseen_question": {"mean": question}, "unseen_entity": {"mean": entity}}}
    assert headline_of(BENCHMARKS["infoseek"], by)["value"] == final
    assert combined("harmonic_mean", [0.5, 0.0]) == 0 and combined("mean", [0.5, 0.25]) == 0.375
    assert headline_of(BENCHMARKS["textvqa"], by) is None


def prediction(id, text):
    return Prediction(id, "?", text, [], None, "exact", {})


def test_answers_are_handed_in_whatever_characters_they_hold(tmp_path):
    submission = Submission("data_id", "prediction", lines=True)
    ids = {"1": {"data_id": 1}, "1 (2)": {"data_id": "1"}}
    entries = submissions.entries_of(submission, ids, [prediction("1", "a\nผ"), prediction("1 (2)", "\ud800")])
    assert [entry["data_id"] for entry in entries] == [1, "1"]
    path = submissions.write(submission, entries, tmp_path)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2 and path.name == "submission.jsonl"
    with pytest.raises(InputError, match="question '2' has no 'data_id'"):
        submissions.entries_of(submission, ids, [prediction("2", "a")])
