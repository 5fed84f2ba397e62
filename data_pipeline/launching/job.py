"""A job as a person asks for it, checked all together, and the request that it becomes.

Two kinds of lines: errors, of what cannot be right, raise; what is open (no project yet, data that is still on this
machine) is told, and only keeps a request from being sent: one can be looked at before there is a project.

The request is JSON as Google's REST interface has it; sending it is `vertex`'s.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.launching import machines, names, secrets, settings_of_job
from data_pipeline.launching.machines import Machine
from vlm_jax.errors import InputError, gathered

IMAGE_HOST = "{location}-docker.pkg.dev/{project}/vlm-jax/{kind}:latest"
"""Where docs/launching.md has the images pushed; --container_image names another."""
_ALONE = {"JAX_COORDINATOR_ADDRESS": "localhost:8482", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
"""The one process of a one-host TPU is told so, and need not find it out from the machine (`parallel.hosts`)."""
_MOST_NODES = 64
_LEAST_HOURS = 0.01
_LONGEST_NAME = 16
"""Of a variable without a value, that a message repeats: PATH, but no key."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a person asks for.

    Attributes:
      script: the name of a program of scripts/.
      flags: (name, value) of that program's own flags, in order; not --config and --workdir.
      config: FILE.py or FILE.py:ARGUMENT within the repository, as the image has it; "" for a program without.
      overrides: (key, text) of --config.KEY=TEXT.
      workdir: gs://BUCKET/FOLDER, which the program is given where it has such a flag; "" is still open.
      nodes: replicas of a GPU machine.
      env: NAME=VALUE of further variables.
    """

    script: str
    machine: str
    flags: Sequence[tuple[str, str]] = ()
    config: str = ""
    overrides: Sequence[tuple[str, str]] = ()
    workdir: str = ""
    takes_workdir: bool = True
    project: str = ""
    location: str = "us-central1"
    container_image: str = ""
    job_name: str = ""
    service_account: str = ""
    network: str = ""
    labels: str = ""
    env: Sequence[str] = ()
    nodes: int = 1
    spot: bool = False
    max_hours: float = 0.0


@dataclasses.dataclass(frozen=True)
class Request:
    """What is sent: `body`, a CustomJob in JSON, to `parent`; `open` is what must be settled before."""

    parent: str
    location: str
    body: dict[str, Any]
    open: tuple[str, ...] = ()


def prepare(job: Job, root: Path, settings: ConfigDict | None = None) -> Request:
    """Checks a job and makes its request. Sends nothing.

    Args:
      root: the repository, which the image holds.
      settings: those of the config, with its overrides.

    Raises:
      InputError: with every error that was found.
    """
    errors: list[str] = []
    machine = None
    with gathered(errors):
        machine = machines.find(job.machine)
    errors += _named(job)
    labels, wrong = names.labels(job.labels)
    errors += wrong
    variables, wrong = _variables(job.env)
    errors += wrong
    if machine:
        errors += _capacity(job, machine)
    given = [*_program_texts(job), *settings_of_job.texts({} if settings is None else settings)]
    leaks = dict.fromkeys(secrets.errors([*given, *_request_texts(job)]))
    open_lines = settings_of_job.without_disk(job.script, job.flags) + settings_of_job.on_this_machine(given, root)
    if machine and settings is not None:
        with gathered(errors):
            open_lines += settings_of_job.check(job.script, settings, machine, job.nodes)
    if errors or leaks or machine is None:
        # A message often repeats what is wrong: not where that is a secret, which has a line of its own.
        raise InputError([*leaks, *(line for line in errors if not secrets.errors([("", line)]))])
    overrides = settings_of_job.overrides({} if settings is None else settings, job.overrides)
    return _request(dataclasses.replace(job, overrides=overrides), machine, labels, variables, open_lines)


def _named(job: Job) -> list[str]:
    """Errors of the names that are given; of those left open there are none."""
    lines = names.location(job.location)
    for check, value in (
        (names.project, job.project),
        (names.image, job.container_image),
        (names.service_account, job.service_account),
        (names.network, job.network),
        (names.job_name, job.job_name),
    ):
        lines += check(value) if value else []
    if job.workdir:
        lines += names.store("workdir", job.workdir)
    for name, value in job.flags:
        if name in settings_of_job.WRITTEN:
            lines += names.store(name, value)
    return lines


def _variables(entries: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """NAME=VALUE as a mapping, and what is wrong with it."""
    pairs: dict[str, str] = {}
    errors = []
    for entry in entries:
        name, equals, value = entry.partition("=")
        shown = _shown(entry)
        if secrets.is_secret_name(name) and shown:
            errors.append(
                f"--env={shown}: is named as a secret; a request can be read by whoever sees the job, so none goes "
                "into it: give the job's --service_account the access instead"
            )
        elif not equals or not shown:
            errors.append(f"--env={shown}: wanted NAME=VALUE; nothing is taken over from this machine's environment")
        elif name in pairs or name in _ALONE:
            errors.append(f"--env={name}: is set already")
        pairs[name] = value
    return pairs, errors


def _shown(entry: str) -> str:
    """The name in NAME=VALUE; nothing where there is none, for what stands there instead may be a value."""
    name, equals, _ = entry.partition("=")
    known = name.isidentifier() and name.isascii() and (equals or len(name) <= _LONGEST_NAME)
    return name if known and not secrets.errors([("", name)]) else ""


def _capacity(job: Job, machine: Machine) -> list[str]:
    lines = []
    if not 1 <= job.nodes <= _MOST_NODES:
        lines.append(f"--nodes={job.nodes}: wanted 1 to {_MOST_NODES}")
    if job.nodes > 1 and machine.is_tpu:
        others = [name for name, one in machines.MACHINES.items() if one.hosts > 1 and name[:3] == machine.name[:3]]
        lines.append(f"--nodes={job.nodes}: of GPU machines only; a TPU of several hosts is one of {', '.join(others)}")
    if job.spot and machine.hosts > 1:
        lines.append(
            f"--spot: Vertex AI has no spot capacity for TPU slices of several hosts, and {machine.name} has "
            f"{machine.hosts}; leave it out, or take {machine.name.partition('-')[0]}-8"
        )
    if job.max_hours != 0 and not _LEAST_HOURS <= job.max_hours < math.inf:
        lines.append(f"--max_hours={job.max_hours:g}: wanted {_LEAST_HOURS} or more, or 0 for Google's default")
    hosts = max(job.nodes, machine.hosts)
    if hosts > 1 and job.script not in settings_of_job.JOINING:
        lines.append(
            f"--script={job.script}: runs on one host, and this would be {hosts} that all write the same; "
            f"{', '.join(settings_of_job.JOINING)} run on several"
        )
    return lines


def _program_texts(job: Job) -> list[tuple[str, str]]:
    """(where it stands, text) of what the program is given."""
    texts = [(f"--{name}", value) for name, value in job.flags]
    return texts + [(f"config.{key}", text) for key, text in job.overrides]


def _request_texts(job: Job) -> list[tuple[str, str]]:
    """(where it stands, text) of what else a person wrote that goes into the request."""
    texts = [(f"--env={_shown(entry)}", entry) for entry in job.env]
    known = ("machine", "location", "config", "workdir", "project", "container_image", "job_name", "service_account")
    return [*texts, *((f"--{name}", getattr(job, name)) for name in (*known, "network", "labels"))]


def _request(
    job: Job, machine: Machine, labels: Mapping[str, str], variables: Mapping[str, str], open_lines: Sequence[str]
) -> Request:
    project, workdir = job.project or "PROJECT", job.workdir or "gs://BUCKET/FOLDER"
    name = job.job_name or f"{Path(job.config.partition('.py')[0]).name or job.script}-{machine.name}"
    still = []
    if not job.project:
        still.append("--project is open (or GOOGLE_CLOUD_PROJECT)")
    if not job.workdir:
        still.append("--workdir is open: gs://BUCKET/FOLDER, in a bucket near --location")
    kind = "tpu" if machine.is_tpu else "cuda"
    image = job.container_image or IMAGE_HOST.format(location=job.location, project=project, kind=kind)
    if machine.is_tpu and machine.hosts == 1:
        variables = {**_ALONE, **variables}
    container = {
        "imageUri": image,
        "command": ["python", f"scripts/{job.script}.py"],
        "args": _arguments(job, workdir),
        "env": [{"name": key, "value": value} for key, value in variables.items()],
    }
    pool = {"machineSpec": machine.spec(), "replicaCount": "1", "containerSpec": container}
    pools = [pool] if job.nodes == 1 else [pool, {**pool, "replicaCount": str(job.nodes - 1)}]
    # A process of several cannot leave and join again: where one is started anew, all are, and go on from the folder.
    scheduling: dict[str, Any] = {"restartJobOnWorkerRestart": True}
    if job.spot:
        scheduling["strategy"] = "SPOT"
    if job.max_hours:
        scheduling["timeout"] = f"{round(job.max_hours * 3600)}s"
    spec: dict[str, Any] = {"workerPoolSpecs": pools, "scheduling": scheduling}
    for key, value in (("serviceAccount", job.service_account), ("network", job.network)):
        if value:
            spec[key] = value
    spec["baseOutputDirectory"] = {"outputUriPrefix": workdir}
    body = {"displayName": name, "jobSpec": spec, "labels": {names.OWN_LABEL: job.script, **labels}}
    parent = f"projects/{project}/locations/{job.location}"
    return Request(parent, job.location, body, (*still, *open_lines))


def _arguments(job: Job, workdir: str) -> list[str]:
    """The command line of the program, each flag one word."""
    words = [f"--config={job.config}"] if job.config else []
    if job.takes_workdir:
        words.append(f"--workdir={settings_of_job.as_written(job.script, 'workdir', workdir)}")
    words += [f"--{name}={settings_of_job.as_written(job.script, name, value)}" for name, value in job.flags]
    return words + [f"--config.{key}={text}" for key, text in job.overrides]
