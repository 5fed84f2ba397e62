"""scripts/train.py with its run folder at gs:// (a store in memory): killed while it saves, gone on with, refused."""

import json
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

import vlm_jax
from tests.scripts.test_train import STEPS, command, losses
from tests.started import environment, run
from tests.tiny_models import PHOTOS, assistant, user
from vlm_jax.checkpoint import run_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.locations import folder

RUN = "gs://bucket/runs/one"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The photographs, and a record that is left out."""
    entries = json.loads((PHOTOS / "photos.json").read_text())
    entries.append({"id": "gone", "image": "gone.jpg", "conversations": entries[0]["conversations"]})
    path = tmp_path_factory.mktemp("data") / "data.json"
    path.write_text(json.dumps(entries))
    return path


def settings(base, workdir, data):
    # Another number of hosts is another program: updates in proportion to gradients do not enlarge its rounding.
    optimizer = ("--config.optimizer.eps=1.0", "--config.optimizer.learning_rate=1.0")
    more = (f"--config.data.image_root={PHOTOS}", "--config.data.on_error=drop", *optimizer)
    return command(base, workdir, *more, data=data)


def started(base, workdir, data, **variables):
    return subprocess.Popen(
        settings(base, workdir, data),
        env=environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(base, workdir, data):
    done = run(settings(base, workdir, data), env=environment())
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def unstopped(base, data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "unstopped"
    finished(base, workdir, data)
    return workdir


@pytest.fixture(scope="module")
def killed(store, base, data):
    """What a run leaves that was killed when all of its second checkpoint was written but its mark of success."""
    store.stall = "checkpoints/6/commit_success.txt"
    process = started(base, RUN, data)
    assert store.stalled.wait(200), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    store.stall = None
    with store.lock:
        return dict(store.objects)


def losses_at(store, workdir):
    return [json.loads(line)["loss"] for line in store.text(f"{workdir}/metrics.jsonl").splitlines()]


def parameters(workdir):
    assert run_folder.latest_step(folder(workdir)) == STEPS
    return {path: np.asarray(array) for path, array in open_model(str(workdir)).read().items()}


@pytest.mark.evidence
def test_a_run_killed_while_it_saves_goes_on_with_the_same_losses_and_weights(
    store, killed, base, data, unstopped, tmp_path
):
    assert run_folder.latest_step(folder(RUN)) == 3
    with pytest.raises(InputError, match="gs://bucket/runs/one/checkpoints/6: no finished checkpoint of the run"):
        open_model(f"{RUN}/checkpoints/6")
    assert len(losses_at(store, RUN)) >= 6  # as far as what was about to be saved

    assert "going on from step 3" in finished(base, RUN, data)
    assert losses_at(store, RUN) == losses(unstopped)
    expected = parameters(unstopped)
    for path, array in parameters(RUN).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)

    names = store.names(RUN)
    assert {name.split("/")[0] for name in names} >= {path.name for path in unstopped.iterdir()} - {".lock"}
    assert sum("events.out" in name for name in names) == 2  # one of each part of the run
    for name in ("ledger.jsonl", "assets/tokenizer.json"):
        assert store.text(f"{RUN}/{name}") == (unstopped / name).read_text()
    assert "gone.jpg" in store.text(f"{RUN}/ledger.jsonl")
    assert json.loads(store.text(f"{RUN}/config.json"))["train"]["steps"] == STEPS

    question = [user("What is it called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")]
    np.testing.assert_array_equal(vlm_jax.load(RUN).logits(question), vlm_jax.load(unstopped).logits(question))
    assert open_model(f"{RUN}/checkpoints/{STEPS}").folder == folder(f"{RUN}/checkpoints/{STEPS}")
    for name in names:
        copied = tmp_path / "copy" / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(store.objects["bucket", f"runs/one/{name}"])
    assert open_model(str(tmp_path / "copy")).digest() == open_model(RUN).digest()  # as adapters name their base
    vlm_jax.export(RUN, tmp_path / "hf", "hf")
    for path, array in open_model(str(tmp_path / "hf")).read().items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


@pytest.mark.evidence
@pytest.mark.timeout(400)
def test_two_hosts_that_share_no_disk_stop_together_and_one_goes_on_alone(store, base, data, unstopped, tmp_path):
    workdir = "gs://bucket/runs/two"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        several = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{probe.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    hosts = []
    for number in range(2):
        here = tmp_path / str(number)
        here.mkdir()
        hosts.append(started(base, workdir, data, **several, JAX_PROCESS_ID=str(number), TMPDIR=str(here)))
    deadline = time.monotonic() + 200
    while sum(len(path.read_bytes().splitlines()) for path in (tmp_path / "0").glob("*/metrics.jsonl")) < 3:
        assert all(host.poll() is None for host in hosts) and time.monotonic() < deadline
        time.sleep(0.01)
    # The second alone is told to stop, as a machine that is taken away is.
    hosts[1].send_signal(signal.SIGTERM)
    reported = [host.communicate(timeout=200)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [130, 130], reported
    assert "running on" in reported[0] and "running on" not in reported[1]  # one of them speaks
    reached = run_folder.latest_step(folder(workdir))
    assert 3 <= reached < STEPS
    assert f"going on from step {reached}" in finished(base, workdir, data)
    np.testing.assert_allclose(losses_at(store, workdir), losses(unstopped), atol=1e-4)
    expected = parameters(unstopped)
    for path, array in parameters(workdir).items():
        np.testing.assert_allclose(array, expected[path], atol=2e-4, err_msg=path)


@pytest.mark.parametrize(
    "address, expected",
    [
        ("gs://buckit/run", "gs://buckit/run: there is no bucket buckit; correct the name"),
        ("gs://bucket/others", "gs://bucket/others: holds files that are not a run's"),
    ],
)
def test_an_address_that_runs_cannot_use_is_one_line(store, base, address, expected):
    store.put(("bucket", "others/image.jpg"), b"", {})
    refused = run(settings(base, address, PHOTOS / "photos.json"), env=environment())
    assert refused.returncode == 1
    assert expected in refused.stderr and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1
