"""Run folders in a store: what is sent and brought back, who may write, and one line for what keeps a run out."""

import json

import fsspec
import numpy as np
import pytest

from vlm_jax import locations
from vlm_jax.checkpoint import workdir
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.errors import InputError


@pytest.fixture
def address(store, request):
    """A folder of its own in the store."""
    return f"gs://bucket/{request.node.name}"


def test_what_grows_is_sent_whole_and_only_where_it_changed(store, address, monkeypatch):
    run = workdir.open_workdir(address)
    with run.writing(first=True, done=None):
        (run.folder / "samples" / "3").mkdir(parents=True)
        (run.folder / "samples" / "3" / "report.html").write_text("page")
        (run.folder / ".metrics.jsonl.unfinished").write_text("1\n")
        with (run.folder / "metrics.jsonl").open("a") as file:
            file.write("1\n")
            file.flush()
            run.sync()
            assert store.names(address) == [".writer", "metrics.jsonl", "samples/3/report.html"]
            file.write("2\n")
        store.requests.clear()
        run.sync()
        sent = [path for method, path in store.requests if method == "POST" and "name=" in path]
        assert len(sent) == 1 and "metrics.jsonl" in sent[0]
        assert store.text(f"{address}/metrics.jsonl") == "1\n2\n"
        monkeypatch.setattr(workdir, "EVERY", 0.01)
        (run.folder / "ledger.jsonl").write_text("late\n")
    assert store.text(f"{address}/ledger.jsonl") == "late\n"
    assert not run.folder.exists()


def test_what_changed_is_sent_while_the_run_goes_on(store, address, monkeypatch):
    monkeypatch.setattr(workdir, "EVERY", 0.01)
    run = workdir.open_workdir(address)
    with run.writing(first=True, done=None):
        (run.folder / "metrics.jsonl").write_text("1\n")
        while store.text(f"{address}/metrics.jsonl") != "1\n":
            pass  # the test has a time limit


def test_lines_are_brought_back_and_other_assets_removed(store, address, tmp_path):
    name = address.removeprefix("gs://bucket/")
    for file, text in {"metrics.jsonl": "1\n", "assets/vocab.json": "old", "assets/config.json": "old"}.items():
        store.put(("bucket", f"{name}/{file}"), text.encode(), {})
    (tmp_path / "config.json").write_text("new")
    run = workdir.open_workdir(address)
    with run.writing(first=True, done=None):
        assert (run.folder / "metrics.jsonl").read_text() == "1\n"
        run.write_assets(tmp_path)
    assert store.names(address) == [".writer", "assets/config.json", "metrics.jsonl"]
    assert store.text(f"{address}/assets/config.json") == "new"


def test_other_hosts_send_what_is_theirs_and_touch_nothing_else(store, address):
    with workdir.open_workdir(address).writing(first=True, done=None):
        second = workdir.open_workdir(address)
        with second.writing(first=False, done=None):
            (second.folder / "profile").mkdir()
            (second.folder / "profile" / "second.pb").write_text("trace")
    assert store.names(address) == [".writer", "profile/second.pb"]


def test_the_run_that_began_last_writes_and_the_one_before_stops(store, address):
    one, two = workdir.open_workdir(address), workdir.open_workdir(address)
    with pytest.raises(InputError) as error, one.writing(first=True, done=None):
        with two.writing(first=True, done=None):
            (two.folder / "metrics.jsonl").write_text("two\n")
        (one.folder / "metrics.jsonl").write_text("one\n")
        one.sync()
    assert f"{address}: a later run (process " in str(error.value) and "this one stops" in str(error.value)
    assert store.text(f"{address}/metrics.jsonl") == "two\n"


def test_a_run_that_was_overtaken_before_it_began_is_told(store, address):
    checkpoints = Checkpoints(locations.folder(address))
    checkpoints.save(3, {"a": np.zeros(3)}, {})
    checkpoints.close()
    with workdir.open_workdir(address).writing(first=True, done=3):
        pass
    message = f"{address}: another run saved step 3 meanwhile; give the command again"
    with pytest.raises(InputError, match=message), workdir.open_workdir(address).writing(first=True, done=None):
        pass


def test_what_stopped_the_run_is_told_and_what_it_wrote_is_sent(store, address):
    run = workdir.open_workdir(address)
    with pytest.raises(InputError, match="too many"), run.writing(first=True, done=None):
        (run.folder / "skipped.jsonl").write_text(json.dumps({"step": 3}))
        raise InputError("too many in a row")
    assert store.text(f"{address}/skipped.jsonl") == '{"step": 3}'


def error(act):
    with pytest.raises(InputError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_account_without_permission_is_told_which_roles_it_needs(store, address, monkeypatch):
    run, home = workdir.open_workdir(address), locations.folder(address)
    checkpoints = Checkpoints(home)
    roles = "on gs://bucket the account needs the roles Storage Object User and Storage Legacy Bucket Reader"
    monkeypatch.setattr(store, "forbidden", {"write"})
    line = error(lambda: run.writing(first=True, done=None).__enter__())
    assert line.startswith(f"{address}: no permission (OSError: Forbidden: ") and line.endswith(roles)

    def save():
        checkpoints.save(3, {"a": np.zeros(3)}, {})
        checkpoints.wait()

    line = error(save)
    assert line.startswith(f"{address}/checkpoints") and ": no permission (" in line and line.endswith(roles)
    monkeypatch.setattr(store, "forbidden", {"read"})
    for act in (lambda: locations.check_bucket(home), lambda: open_model(address)):
        line = error(act)
        assert line.startswith(f"{address}: no permission (OSError: Forbidden: ") and line.endswith(roles)


def test_what_is_no_place_for_runs_is_one_line(store, address, monkeypatch):
    assert error(lambda: workdir.open_workdir("gs://")) == "gs://: names no bucket; an address is gs://BUCKET/FOLDER"
    expected = "a run is kept in a folder of this machine, or at a gs:// address"
    assert error(lambda: workdir.open_workdir("s3://bucket/run")) == f"s3://bucket/run: {expected}"
    expected = (
        "gs://buckit/run: there is no bucket buckit; correct the name, or `gcloud storage buckets create gs://buckit`"
    )
    assert error(lambda: open_model("gs://buckit/run")) == expected
    assert error(lambda: open_model(address)).startswith(f"{address}: no run folder with a checkpoint there; other")

    def without(scheme):
        raise ImportError("No module named gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", without)
    assert error(lambda: workdir.open_workdir(address)) == f"{address}: gs:// needs gcsfs; pip install 'vlm-jax[gs]'"
