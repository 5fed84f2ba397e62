"""Serves one page on this machine on which people accept, reject and edit a corpus's records.

    .venv/bin/python scripts/review_corpus.py --corpus=runs/objects --sample=200

Doubtful records come first, then a sample of the others. Every action is on the disk, in review.jsonl of the corpus,
before the page says so; a build reads it. Several reviewers share one server, each under a name. Ctrl-C ends it and
prints what the review came to.
"""

import interrupts  # noqa: F401 - first of all

from absl import flags

import command_line
from vlm_jax import terminal

flags.DEFINE_string("corpus", None, "folder of the corpus", required=True)
flags.DEFINE_integer("port", 8020, "where the page is served, on 127.0.0.1; 0: a free one")
flags.DEFINE_string("reviewer", "", "name of who reviews; without it the page asks")
flags.DEFINE_integer("sample", 0, "so many records that no filter doubts, balanced by topic, task and language; 0: all")
flags.DEFINE_float("shared", 0.2, "share of the records that two reviewers see, for their agreement")
flags.DEFINE_integer("seed", 0, "of the sample, the order and the share")
flags.DEFINE_bool("blind", False, "hide what filters and other reviewers said")
flags.DEFINE_bool("summary", False, "print what the review came to so far, and serve nothing")


def main() -> None:
    options = flags.FLAGS
    from data_pipeline.review import server, summary
    from data_pipeline.review.session import Options

    if options.summary:
        found = summary.lines(summary.review_statistics(options.corpus))
    else:
        names = ("sample", "shared", "seed", "blind", "reviewer")
        chosen = Options(**{name: options[name].value for name in names})
        found = server.serve(options.corpus, chosen, port=options.port, say=terminal.say)
    for line in found:
        print(terminal.safe(line))


if __name__ == "__main__":
    command_line.run(main)
