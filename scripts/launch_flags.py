"""The flags of launch_vertex.py beside those of the program that it starts, and the job that they make."""

import os
import sys
from pathlib import Path

from absl import flags

import command_line
import passed_on
from config_file import file_and_argument

PROGRAM = passed_on.load(sys.argv)
_PROGRAMS = set(flags.FLAGS)  # its flags, and those of libraries

flags.DEFINE_string("script", "train", "the program of scripts/ that the job runs: train, evaluate, …")
flags.DEFINE_string("machine", None, "v5e-8, v6e-16, h100-8, …: generation or GPU, and chips", required=True)
flags.DEFINE_integer("nodes", 1, "so many machines with GPUs; TPU slices have their hosts by themselves")
flags.DEFINE_bool("spot", False, "cheap capacity that may be taken away: the job then goes on from its folder")
flags.DEFINE_string("project", None, "the Google Cloud project; else GOOGLE_CLOUD_PROJECT")
flags.DEFINE_string("location", "us-central1", "region of the job, near its bucket")
flags.DEFINE_string("container_image", None, "else LOCATION-docker.pkg.dev/PROJECT/vlm-jax/tpu:latest, or cuda:latest")
flags.DEFINE_string("job_name", None, "as it is listed; else the config's and the machine's")
flags.DEFINE_string("service_account", None, "account that the job runs as; else the project's own for training")
flags.DEFINE_string("network", None, "projects/NUMBER/global/networks/NAME, to be peered with")
flags.DEFINE_string("labels", "", "team=vision,run=7: for bills and lists")
flags.DEFINE_multi_string("env", [], "NAME=VALUE of a variable for the job, no secret; may be given several times")
flags.DEFINE_float("max_hours", 0.0, "after which the job is ended; 0: Google's default, seven days")
flags.DEFINE_string("endpoint", "", "another address of Google's, or http://127.0.0.1:PORT, which gets no credentials")
if "dry_run" not in flags.FLAGS:  # generate_corpus has one, which has no meaning in a job
    flags.DEFINE_bool("dry_run", False, "print the request, and send nothing; no account is needed")
_OWN = set(flags.FLAGS) - _PROGRAMS | {"dry_run"}

_SAME = ("machine", "location", "labels", "env", "nodes", "spot", "max_hours")
_TEXTS = ("workdir", "container_image", "job_name", "service_account", "network")


def asked() -> dict:
    """The fields of `launching.job.Job` that flags give; the config's own path is left to the caller."""
    options, overrides = flags.FLAGS, []
    if PROGRAM.takes_config:
        words = options.read_flags_from_files(sys.argv[1:], force_gnu=False)
        overrides = [(key, "true" if text is None else text) for key, text in command_line.split_overrides(words)[0]]
    return {
        "script": PROGRAM.name,
        "takes_workdir": PROGRAM.takes_workdir,
        "flags": passed_on.own_flags(_OWN),
        "overrides": overrides,
        "project": options.project or os.environ.get("GOOGLE_CLOUD_PROJECT", ""),
        **{name: options[name].value for name in _SAME},
        **{name: options[name].value or "" for name in _TEXTS},
    }


def config_file() -> tuple[Path, str]:
    """The file of --config=FILE.py:ARGUMENT, and `:ARGUMENT` or nothing."""
    path, argument = file_and_argument(flags.FLAGS.config)
    return path, "" if argument is None else f":{argument}"
