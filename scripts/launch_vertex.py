r"""Runs a program of scripts/ as a job of Vertex AI: on a TPU slice or on GPUs, one machine or several.

    .venv/bin/python scripts/launch_vertex.py --config=configs/qwen2_5_vl_3b_lora.py --machine=v5e-8 \
        --project=my-project --workdir=gs://my-bucket/lora --config.data.path=gs://my-bucket/train.jsonl --dry_run

Without --dry_run it is sent. --script=evaluate, convert_checkpoint, … runs another program than train; its own flags
are given here as well and passed on, as every --config.KEY=VALUE is. Everything is checked before anything is sent, and
no secret goes into a request. docs/launching.md has the way from a laptop to a slice.
"""

import interrupts  # noqa: F401 - first of all

import json
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line
import launch_flags
import passed_on


def main(config: ConfigDict | None = None) -> None:
    from data_pipeline.launching import settings_of_job, vertex
    from data_pipeline.launching.job import Job, prepare
    from vlm_jax import terminal
    from vlm_jax.errors import InputError

    options, root = flags.FLAGS, Path(__file__).resolve().parents[1]
    if refused := passed_on.refusal(launch_flags.PROGRAM.name):
        raise InputError(refused)
    vertex.check_endpoint(options.endpoint)
    named = ""
    if config is not None:
        path, argument = launch_flags.config_file()
        named = settings_of_job.config_in_image(path, root) + argument
    request = prepare(Job(config=named, **launch_flags.asked()), root, config)
    if options.dry_run:
        terminal.say(f"not sent: POST {vertex.address(request, options.endpoint)}")
        for line in request.open:
            terminal.say(f"before it can be sent: {line}")
        print(json.dumps(request.body, indent=2, ensure_ascii=False))
        return
    made = vertex.submit(request, endpoint=options.endpoint)
    print(f"{made.name}\n{made.page}\nits log: gcloud ai custom-jobs stream-logs {made.name}")


if __name__ == "__main__":
    command_line.run(main, config=launch_flags.PROGRAM.takes_config)
