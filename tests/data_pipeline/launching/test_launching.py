"""Jobs for Vertex AI: what Google's own client sends, field by field, and what is refused before anything is sent."""

import dataclasses

import pytest

from data_pipeline.launching import machines, vertex
from data_pipeline.launching.job import Job, prepare
from tests.data_pipeline.launching.vertex_server import VertexServer
from tests.started import ROOT
from vlm_jax.errors import InputError
from vlm_jax.training.config import default_config

SPOT, H100, L4 = 4, 13, 11
"""Google's numbers: of the scheduling strategy, and of accelerators. The client sends numbers, and int64 as text."""
JOB = Job(
    script="train",
    machine="v5e-8",
    config="configs/qwen2_5_vl_3b_lora.py",
    overrides=[("data.path", "gs://bkt/train.jsonl"), ("batch.rows", "16")],
    workdir="gs://bkt/runs/lora",
    project="my-project",
    location="us-west4",
)
IMAGES = "us-west4-docker.pkg.dev/my-project/vlm-jax"
ALONE = [
    {"name": "JAX_COORDINATOR_ADDRESS", "value": "localhost:8482"},
    {"name": "JAX_NUM_PROCESSES", "value": "1"},
    {"name": "JAX_PROCESS_ID", "value": "0"},
]


def settings(**changes):
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-VL-3B-Instruct"
    config.data.path = "gs://bkt/train.jsonl"
    config.batch.rows = 16
    config.update_from_flattened_dict(changes)
    return config


def job(**changes) -> Job:
    return dataclasses.replace(JOB, **changes)


def errors(asked: Job, config=None) -> list[str]:
    with pytest.raises(InputError) as caught:
        prepare(asked, ROOT, config)
    return caught.value.lines


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("google.cloud.aiplatform_v1")
    with VertexServer() as server:
        yield server


def sent(server, request) -> dict:
    """What arrives at the server when the client sends a request."""
    server.calls.clear()
    made = vertex.submit(request, endpoint=server.url)
    ((path, headers, body),) = server.calls
    assert path.partition("?")[0] == "/v1/projects/my-project/locations/us-west4/customJobs"
    assert "Authorization" not in headers
    assert made.name == "projects/my-project/locations/us-west4/customJobs/1"
    return body


def pool(machine: dict, image: str, replicas: str = "1", env: list | None = None) -> dict:
    arguments = ["--config=configs/qwen2_5_vl_3b_lora.py", "--workdir=gs://bkt/runs/lora"]
    arguments += ["--config.data.path=gs://bkt/train.jsonl", "--config.batch.rows=16"]
    container = {"imageUri": image, "command": ["python", "scripts/train.py"], "args": arguments}
    if env:
        container["env"] = env
    return {"machineSpec": machine, "replicaCount": replicas, "containerSpec": container}


def expected(name: str, pools: list[dict], scheduling: dict, **spec) -> dict:
    return {
        "displayName": name,
        "jobSpec": {
            "workerPoolSpecs": pools,
            "scheduling": {"restartJobOnWorkerRestart": True, **scheduling},
            "baseOutputDirectory": {"outputUriPrefix": "gs://bkt/runs/lora"},
            **spec,
        },
        "labels": {"vlm_jax": "train"},
    }


def test_a_tpu_of_one_host_is_asked_for_field_by_field_and_told_that_it_is_alone(server):
    machine = {"machineType": "ct5lp-hightpu-8t", "tpuTopology": "2x4"}
    body = sent(server, prepare(JOB, ROOT, settings()))
    assert body == expected("qwen2_5_vl_3b_lora-v5e-8", [pool(machine, f"{IMAGES}/tpu:latest", env=ALONE)], {})


def test_a_tpu_slice_of_several_hosts_is_one_replica_whose_topology_says_the_hosts(server):
    machine = {"machineType": "ct6e-standard-4t", "tpuTopology": "4x4"}
    body = sent(server, prepare(job(machine="v6e-16", job_name="sliced"), ROOT, settings()))
    assert body == expected("sliced", [pool(machine, f"{IMAGES}/tpu:latest")], {})


def test_one_machine_with_gpus_is_asked_for_field_by_field_with_account_network_labels_and_limit(server):
    asked = job(
        machine="h100-8",
        container_image="europe-docker.pkg.dev/other/images/mine:3",
        service_account="trainer@my-project.iam.gserviceaccount.com",
        network="projects/123456/global/networks/vpc",
        labels="team=vision,run=7",
        env=["XLA_FLAGS=--xla_gpu_autotune_level=0"],
        max_hours=1.5,
    )
    machine = {"machineType": "a3-highgpu-8g", "acceleratorType": H100, "acceleratorCount": 8}
    variables = [{"name": "XLA_FLAGS", "value": "--xla_gpu_autotune_level=0"}]
    wanted = expected(
        "qwen2_5_vl_3b_lora-h100-8",
        [pool(machine, "europe-docker.pkg.dev/other/images/mine:3", env=variables)],
        {"timeout": "5400s"},
        serviceAccount="trainer@my-project.iam.gserviceaccount.com",
        network="projects/123456/global/networks/vpc",
    )
    wanted["labels"] |= {"team": "vision", "run": "7"}
    assert sent(server, prepare(asked, ROOT, settings())) == wanted


def test_several_machines_with_gpus_are_a_first_replica_and_a_pool_of_the_others(server):
    machine = {"machineType": "g2-standard-12", "acceleratorType": L4, "acceleratorCount": 1}
    body = sent(server, prepare(job(machine="l4-1", nodes=4), ROOT, settings()))
    pools = [pool(machine, f"{IMAGES}/cuda:latest", replicas) for replicas in ("1", "3")]
    assert body == expected("qwen2_5_vl_3b_lora-l4-1", pools, {})


def test_spot_capacity_is_asked_for_and_the_job_starts_anew_on_its_folder(server):
    machine = {"machineType": "ct6e-standard-4t", "tpuTopology": "2x2"}
    body = sent(server, prepare(job(machine="v6e-4", spot=True), ROOT, settings()))
    pools = [pool(machine, f"{IMAGES}/tpu:latest", env=ALONE)]
    assert body == expected("qwen2_5_vl_3b_lora-v6e-4", pools, {"strategy": SPOT})


def test_the_clients_own_high_level_job_sends_the_same(server):
    """`aiplatform.CustomJob`, which Google's pages show, and the request of ours."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    ours = sent(server, prepare(job(machine="v6e-4", spot=True), ROOT, settings()))
    aiplatform.init(
        project="my-project",
        location="us-west4",
        api_endpoint=server.url,
        api_transport="rest",
        credentials=AnonymousCredentials(),
        staging_bucket="gs://bkt",
    )
    container = {"image_uri": f"{IMAGES}/tpu:latest", "command": ["python", "scripts/train.py"], "env": ALONE}
    container["args"] = ours["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
    machine = {"machine_type": "ct6e-standard-4t", "tpu_topology": "2x2"}
    theirs = aiplatform.CustomJob(
        "qwen2_5_vl_3b_lora-v6e-4",
        [{"machine_spec": machine, "replica_count": 1, "container_spec": container}],
        base_output_dir="gs://bkt/runs/lora",
        labels={"vlm_jax": "train"},
    )
    theirs.submit(restart_job_on_worker_restart=True, scheduling_strategy=SPOT)
    assert server.calls[-1][2] == ours


def test_every_machine_is_one_that_the_client_knows_and_its_chips_are_its_topologys():
    pytest.importorskip("google.cloud.aiplatform_v1")
    for machine in machines.MACHINES.values():
        request = prepare(job(machine=machine.name), ROOT)
        spec = vertex.message(request).job_spec.worker_pool_specs[0].machine_spec
        assert spec.machine_type == machine.type
        if machine.is_tpu:
            wide, high = map(int, machine.topology.split("x"))
            assert wide * high == machine.chips == int(machine.name.partition("-")[2])
            assert machine.hosts * int(machine.type[:-1].rpartition("-")[2]) == machine.chips
        else:
            assert (spec.accelerator_type.name, spec.accelerator_count) == (machine.accelerator, machine.chips)


def test_all_errors_are_told_together_one_line_each():
    wrong = job(
        machine="v5e-9",
        workdir="runs/lora",
        project="My Project",
        location="us-west4-a",
        container_image="nameless",
        service_account="me@example.com",
        network="default",
        labels="Team=x,run,a=B",
        env=["HF_TOKEN=abc", "PATH"],
    )
    lines = errors(wrong)
    begin = [line.partition(":")[0].partition("=")[0] for line in lines]
    wanted = "machine location project container_image service_account network workdir labels labels labels env env"
    assert begin == [f"--{name}" for name in wanted.split()]
    assert lines[0] == "--machine=v5e-9: no such machine; did you mean 'v5e-8'?"
    assert lines[1] == "--location=us-west4-a: is a zone; jobs are given a region: us-west4"
    assert "gone when it ends; wanted gs://" in lines[6]
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"spot": True, "machine": "v5e-16"}, "no spot capacity for TPU slices of several hosts, and v5e-16 has 4"),
        ({"nodes": 2}, "of GPU machines only; a TPU of several hosts is one of v5e-16, v5e-32"),
        ({"nodes": 0, "machine": "l4-1"}, "--nodes=0: wanted 1 to 64"),
        ({"max_hours": -1.0}, "--max_hours=-1: wanted 0.01"),
        ({"workdir": "gs://"}, "wanted gs://BUCKET/FOLDER"),
        ({"workdir": "gs://bkt/a folder"}, "the folder without blanks"),
        ({"workdir": "s3://bkt/x"}, "is on the job's own disk"),
        ({"max_hours": float("nan")}, "--max_hours=nan: wanted 0.01 or more"),
        ({"max_hours": float("inf")}, "--max_hours=inf: wanted 0.01"),
        ({"max_hours": 1e-5}, "--max_hours=1e-05: wanted 0.01"),
        ({"workdir": "/gcs/bkt/x"}, "is the bucket as the job will see it; give gs://bkt/x"),
        (
            {"labels": ",".join(f"k{n}=v" for n in range(64))},
            "64 labels, and a job has at most 64, one of them vlm_jax",
        ),
        ({"labels": "vlm_jax=mine"}, "'vlm_jax' is the launcher's own"),
        ({"script": "sweep", "machine": "v5e-16"}, "--script=sweep: runs on one host, and this would be 4"),
        ({"script": "convert_checkpoint", "machine": "l4-1", "nodes": 2}, "runs on one host, and this would be 2"),
        ({"env": ["HF_TOKEN abcdefgh"]}, "--env=: wanted NAME=VALUE"),
        ({"labels": "a=1,a=2"}, "'a' is given twice"),
        ({"labels": f"a={'x' * 64}"}, "has up to 63"),
        ({"env": ["JAX_PROCESS_ID=1"]}, "is set already"),
        ({"script": "evaluate", "flags": [("output", "runs/x")]}, "--output=runs/x: is on the job's own disk"),
        ({"job_name": "x" * 129}, "1 to 128"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(changes, line):
    lines = errors(job(**changes))
    assert len(lines) == 1 and line in lines[0]


def test_labels_of_every_script_are_taken_as_google_takes_them():
    body = prepare(job(labels="équipe=ภาพ_1,x="), ROOT).body
    assert body["labels"] == {"vlm_jax": "train", "équipe": "ภาพ_1", "x": ""}


def test_settings_are_checked_as_the_program_will_and_the_mesh_against_the_machine():
    assert errors(JOB, settings(**{"batch.rows": 0, "optimizer.name": "sgd"}))[0].startswith("config.batch.rows is 0")
    (line,) = errors(JOB, settings(**{"mesh.data": 1, "mesh.fsdp": 4}))
    assert "wants 4 devices; this run has 8 (--machine=v5e-8)" in line
    assert prepare(job(machine="h100-8", nodes=2), ROOT, settings(**{"mesh.fsdp": 16, "mesh.data": 1})).open == ()


@pytest.mark.parametrize(
    ("config", "machine", "line"),
    [
        ({"batch.rows": 6}, "v5e-8", "config.batch.rows 6 does not divide over data × fsdp = 8 × 1"),
        ({"mesh.tensor": 16}, "v5e-16", "does not divide among 4 processes"),
        ({"data.path": "mine.jsonl"}, "v5e-8", "config.data.path=mine.jsonl is not in the image"),
        ({"data.image_root": "/home/me/images"}, "v5e-8", "config.data.image_root=/home/me/images is a path of this"),
        ({"model.path": "~/qwen"}, "v5e-8", "config.model.path=~/qwen is a path of this machine"),
        ({"model.path": "tests/data/photos"}, "v5e-8", "config.model.path=tests/data/photos is on this machine"),
    ],
)
def test_what_would_fail_on_the_machine_is_open_and_keeps_a_request_from_being_sent(server, config, machine, line):
    request = prepare(job(machine=machine), ROOT, settings(**config))
    assert len(request.open) == 1 and line in request.open[0]
    server.calls.clear()
    with pytest.raises(InputError, match="nothing was sent"):
        vertex.submit(request, endpoint=server.url)
    assert server.calls == []


def test_a_request_without_a_project_or_a_bucket_can_be_looked_at():
    request = prepare(job(project="", workdir=""), ROOT, settings())
    assert request.parent == "projects/PROJECT/locations/us-west4"
    assert [line.split()[0] for line in request.open] == ["--project", "--workdir"]


def test_a_program_that_writes_through_the_file_system_is_given_the_mounted_bucket():
    flags = [("model", "gs://bkt/runs/lora"), ("benchmark", "gs://bkt/q.jsonl"), ("output", "gs://bkt/report")]
    flags += [("baseline", "gs://bkt/a,gs://bkt/b"), ("suffix", "gs://bkt is a word"), ("question", "/no_think")]
    request = prepare(job(script="evaluate", config="", overrides=[], flags=flags, takes_workdir=False), ROOT)
    container = request.body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    assert container["command"] == ["python", "scripts/evaluate.py"]
    assert container["args"] == [
        *("--model=/gcs/bkt/runs/lora", "--benchmark=gs://bkt/q.jsonl", "--output=/gcs/bkt/report"),
        *("--baseline=/gcs/bkt/a,/gcs/bkt/b", "--suffix=gs://bkt is a word", "--question=/no_think"),
    ]
    assert request.open == ()


def test_a_model_at_a_store_is_opened_through_the_mounted_bucket_also_where_the_config_file_names_it():
    """Only runs are read from gs:// itself; a folder of Hugging Face's form is not."""

    def arguments(asked, path):
        body = prepare(asked, ROOT, settings(**{"model.path": path})).body
        return body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]

    assert arguments(JOB, "gs://bkt/qwen")[-1] == "--config.model.path=/gcs/bkt/qwen"
    named = arguments(job(overrides=[("model.path", "gs://bkt/qwen")]), "gs://bkt/qwen")
    assert [word for word in named if "model.path" in word] == ["--config.model.path=/gcs/bkt/qwen"]
    assert not [word for word in arguments(JOB, "Qwen/Qwen2.5-VL-3B-Instruct") if "model.path" in word]


@pytest.mark.parametrize(
    ("script", "flags"),
    [("generate_corpus", []), ("align_parity", [])]
    + [("evaluate", [("judge", "kind=vertex")]), ("evaluate", [("model", "teacher:kind=vertex")])],
)
def test_a_program_that_wants_a_disk_that_stays_is_not_sent(script, flags):
    (line,) = prepare(job(script=script, flags=flags, config="", overrides=[], machine="l4-1"), ROOT).open
    assert "keeps its teachers' answers in SQLite" in line


@pytest.mark.parametrize(
    ("status", "word", "advice", "doubt"),
    [(403, "PERMISSION_DENIED", "roles/aiplatform.user in my-project", False)]
    + [(404, "NOT_FOUND", "does us-west4 have", False), (429, "RESOURCE_EXHAUSTED", "no quota is left", False)]
    + [(400, "INVALID_ARGUMENT", "", False), (503, "UNAVAILABLE", "", True), (504, "DEADLINE_EXCEEDED", "", True)],
)
def test_a_refusal_is_one_line_and_nothing_is_sent_twice(server, status, word, advice, doubt):
    server.calls.clear()
    server.refusals.append((status, word, "planned\nto fail"))
    with pytest.raises(InputError) as caught:
        vertex.submit(prepare(JOB, ROOT, settings()), endpoint=server.url)
    (line,) = caught.value.lines
    assert f"({status}): planned to fail" in line and advice in line
    assert ("may have been made" in line) == doubt
    assert len(server.calls) == 1


def test_a_request_that_was_interrupted_or_answered_by_a_proxy_may_have_made_a_job(server, monkeypatch, capsys):
    import google.auth.transport.requests as transport

    request, post = prepare(JOB, ROOT, settings()), transport.AuthorizedSession.post

    def answered(*words, **options):
        answer = post(*words, **options)
        answer._content = b"<html>please log in</html>"
        return answer

    def interrupted(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(transport.AuthorizedSession, "post", answered)
    with pytest.raises(InputError, match="the answer is no job.*may have been made"):
        vertex.submit(request, endpoint=server.url)
    monkeypatch.setattr(transport.AuthorizedSession, "post", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vertex.submit(request, endpoint=server.url)
    assert "the request was on its way; see `gcloud" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line():
    pytest.importorskip("google.cloud.aiplatform_v1")
    with pytest.raises(InputError, match=r"no answer \(ConnectionError\)"):
        vertex.submit(prepare(JOB, ROOT, settings()), endpoint="http://127.0.0.1:9")


def test_without_credentials_nothing_is_asked_of_google(monkeypatch):
    pytest.importorskip("google.cloud.aiplatform_v1")
    import google.auth
    import google.auth.exceptions

    def default(scopes):
        raise google.auth.exceptions.DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", default)
    with pytest.raises(InputError, match="gcloud auth application-default login"):
        vertex.submit(prepare(JOB, ROOT, settings()))


def test_credentials_are_shown_to_google_alone():
    wrong = ["http://example.com", "https://googleapis.com.example.com", "http://us-aiplatform.googleapis.com"]
    for endpoint in [*wrong, "https://me:word@us-aiplatform.googleapis.com", "http://127.0.0.1:port"]:
        with pytest.raises(InputError, match="credentials are shown to Google only") as caught:
            vertex.submit(prepare(JOB, ROOT, settings()), endpoint=endpoint)
        assert "me:word" not in caught.value.lines[0]


def test_a_missing_client_is_one_line_that_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    with pytest.raises(InputError, match=r"pip install 'vlm-jax\[launch\]'"):
        vertex.submit(prepare(JOB, ROOT, settings()))
