"""A whole alignment with tiny models that are loaded here: every stage, again, with other settings, in two rounds."""

from data_pipeline.parity.aligning import Options, align
from data_pipeline.parity.pairs import read_pairs
from tests.consoles import Lines


def aligned(workdir, config, **options):
    lines = []
    closing = align(workdir, config, Options(**options), say=lines.append, console=Lines())
    return closing, lines


def test_annotate_identify_level_evaluate(made_config, tmp_path):
    closing, lines = aligned(tmp_path, made_config())
    print(closing, *lines, sep="\n")
    pairs = read_pairs(tmp_path / "round-1" / "annotated.jsonl")
    assert all(pair.question == "What is its name?" for pair in pairs)
    print(pairs[:2])
    print((tmp_path / "report.json").read_text())
    assert 0
