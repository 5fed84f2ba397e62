"""The flag of every program that trains."""

from absl import flags

flags.DEFINE_string(
    "workdir", None, "folder of the run, here or gs://bucket/run: checkpoints, metrics, settings", required=True
)


def workdir() -> str:
    return flags.FLAGS.workdir
