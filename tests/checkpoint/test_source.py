"""A model is found in a folder or on the hub. The hub here is a server on this machine that answers as the real one."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from vlm_jax.checkpoint import source
from vlm_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def files_of(name: str) -> dict[str, bytes]:
    return {
        "config.json": json.dumps({"model_type": "qwen2_5_vl", "name": name}).encode(),
        "model-00001-of-00001.safetensors": b"weights of " + name.encode(),
        "model.safetensors.index.json": b"{}",
        "tokenizer.json": b"{}",
        "README.md": b"# A model",
        "pytorch_model.bin": b"the same weights once more",
        "onnx/model.onnx": b"and again",
    }


OLDER = {"config.json": b"{}", "pytorch_model.bin": b"weights", "tf_model.h5": b"weights", "merges.txt": b""}
SHARDS = [f"pytorch_model-{number:05d}-of-00002.bin" for number in (1, 2)]
SHARDED = {"config.json": b"{}", "pytorch_model.bin.index.json": b"{}", **dict.fromkeys(SHARDS, b"weights")}
BOTH = {**SHARDED, "pytorch_model.bin": b"weights"}
ADAPTER = {"adapter_config.json": b"{}", "adapter_model.bin": b"weights", "non_lora_state_dict.bin": b"and others"}
COMMITS = {
    "a" * 40: files_of("first"),
    "b" * 40: files_of("second"),
    "c" * 40: {"data.csv": b"1,2"},
    "d" * 40: OLDER,
    "e" * 40: SHARDED,
    "f" * 40: BOTH,
    "1" * 40: ADAPTER,
    "2" * 40: {**ADAPTER, "adapter_model.safetensors": b"weights"},
}
REVISIONS = {"first": "a" * 40, "main": "b" * 40, "refs/pr/1": "a" * 40, "table": "c" * 40, "older": "d" * 40}
REVISIONS |= {"sharded": "e" * 40, "both": "f" * 40, "adapter": "1" * 40, "adapter-twice": "2" * 40}


class Hub(BaseHTTPRequestHandler):
    """The four endpoints of the hub's REST interface that a download of a model uses, for one model, `farm/crops`."""

    asked: list[str] = []

    def do_GET(self):
        self.respond()

    def do_HEAD(self):
        self.respond()

    def respond(self):
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.asked.append(f"{self.command} {unquote(self.path)}")
        model = parts[2:4] if parts[:2] == ["api", "models"] else parts[:2]
        if model == ["farm", "fenced"]:
            return self.refuse("GatedRepo", 403)
        if model == ["farm", "broken"]:
            return self.refuse("", 500)
        if model != ["farm", "crops"]:
            return self.refuse("RepoNotFound", 401)
        match parts:
            case ["api", "models", _, _, "revision", revision]:
                commit = REVISIONS.get(revision)
                if commit is None:
                    return self.refuse("RevisionNotFound", 404)
                listed = [{"rfilename": name} for name in COMMITS[commit]]
                self.send(json.dumps({"id": "farm/crops", "sha": commit, "siblings": listed}).encode())
            case ["api", "models", _, _, "tree", commit] if parse_qs(url.query).get("recursive"):
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in COMMITS[commit].items()
                ]
                self.send(json.dumps(entries).encode())
            case [_, _, "resolve", commit, *name] if "/".join(name) in COMMITS.get(commit, {}):
                content = COMMITS[commit]["/".join(name)]
                self.send(content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
            case _:
                self.refuse("EntryNotFound", 404)

    def send(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, code: str, status: int):
        self.send(b"", {"X-Error-Code": code} if code else None, status)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """The address of a hub on this machine, and what it was asked for."""
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Hub.asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def resolve(tmp_path):
    """Resolves an id in a fresh process, as the hub's client reads its environment once; gives (folder, errors)."""

    def call(model, endpoint, **environment):
        program = (
            "import sys\n"
            "from vlm_jax.checkpoint import source\n"
            "from vlm_jax.errors import InputError\n"
            "try:\n"
            "    print(source.resolve(sys.argv[1]))\n"
            "except InputError as error:\n"
            "    sys.exit('ERROR ' + str(error))\n"
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [sys.executable, "-c", program, model],
            cwd=tmp_path,
            env=kept | own | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        errors = [line.removeprefix("ERROR ") for line in done.stderr.splitlines() if line.startswith("ERROR ")]
        assert done.returncode == len(errors), done.stderr
        assert len(done.stderr.partition("ERROR ")[2].splitlines()) == len(errors), "an error is one line"
        return (Path(done.stdout.strip()) if done.returncode == 0 else None), errors

    return call


def name_in(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["name"]


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert source.resolve(str(tmp_path)) == tmp_path
    assert source.resolve(tmp_path) == tmp_path


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert source.resolve("~/model") == tmp_path / "model"


def test_a_folder_that_looks_like_a_hub_id_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "farm" / "crops").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert source.resolve("farm/crops") == Path("farm/crops")


@pytest.mark.parametrize("given", ["{}/modle", "{}/model/deeper/still", "./modle", "modle", ""])
def test_a_path_that_is_no_folder_is_one_line(tmp_path, monkeypatch, given):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        source.resolve(given.format(tmp_path))
    (error,) = raised.value.lines
    assert "no such folder" in error and "\n" not in error
    assert "model" in error.removeprefix(given.format(tmp_path)) or not given


def test_near_names_are_given(tmp_path):
    (tmp_path / "qwen-photos").mkdir()
    with pytest.raises(InputError, match=f"near it: {tmp_path}/qwen-photos"):
        source.resolve(f"{tmp_path}/qwen-photo")
    with pytest.raises(InputError, match=f"{tmp_path} has no folder runs"):
        source.resolve(f"{tmp_path}/runs/photo")


def test_a_file_is_refused_and_its_folder_proposed(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=f"is a file, .* give its folder, {tmp_path}"):
        source.resolve(f"{tmp_path}/model.safetensors")


def test_a_revision_is_downloaded_without_the_files_that_are_not_needed(hub, resolve):
    endpoint, asked = hub
    first, _ = resolve("farm/crops@first", endpoint)
    newest, _ = resolve("farm/crops", endpoint)
    assert (name_in(first), name_in(newest)) == ("first", "second")
    wanted = sorted(name for name in files_of("first") if name not in ("pytorch_model.bin", "onnx/model.onnx"))
    assert sorted(path.name for path in first.iterdir()) == wanted
    assert not any("pytorch_model" in line or "onnx" in line for line in asked)


def test_a_model_without_safetensors_comes_in_pytorchs_own_file(hub, resolve):
    folder, _ = resolve("farm/crops@older", hub[0])
    assert sorted(path.name for path in folder.iterdir()) == sorted(OLDER.keys() - {"tf_model.h5"})


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("sharded", SHARDED),
        ("both", BOTH.keys() - {*SHARDS, "pytorch_model.bin.index.json"}),
        ("adapter", ADAPTER),
        ("adapter-twice", ADAPTER.keys() - {"adapter_model.bin"} | {"adapter_model.safetensors"}),
    ],
)
def test_files_of_pytorch_come_only_where_nothing_before_them_is_there(hub, resolve, revision, expected):
    folder, errors = resolve(f"farm/crops@{revision}", hub[0])
    assert not errors
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)


def test_a_revision_is_a_tag_a_commit_or_a_reference_with_slashes(hub, resolve):
    endpoint, _ = hub
    assert name_in(resolve(f"farm/crops@{'a' * 40}", endpoint)[0]) == "first"
    assert name_in(resolve("farm/crops@refs/pr/1", endpoint)[0]) == "first"


def test_what_is_cached_is_found_offline_and_without_the_hub(hub, resolve):
    endpoint, asked = hub
    resolve("farm/crops@first", endpoint)
    asked.clear()
    assert name_in(resolve("farm/crops@first", endpoint, HF_HUB_OFFLINE="1")[0]) == "first"
    assert asked == []
    assert name_in(resolve("farm/crops@first", "http://127.0.0.1:9")[0]) == "first"


@pytest.mark.parametrize(
    ("model", "environment", "parts"),
    [
        ("farm/corps", {}, ["farm/corps: no folder of this name here; no model on http://", "hf auth login"]),
        ("farm/crops@third", {}, ["farm/crops has no revision 'third'", "/farm/crops/tree/main"]),
        ("farm/fenced", {}, ["access must be asked for at http://", "/farm/fenced"]),
        ("farm/broken", {}, ["farm/broken", "500"]),
        ("farm/crops@table", {}, ["farm/crops@table: has no config.json"]),
        ("farm/crops", {"HF_HUB_OFFLINE": "1"}, ["HF_HUB_OFFLINE forbids the download"]),
        ("farm/crops", {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["http://127.0.0.1:9 gives no answer", "HF_ENDPOINT"]),
    ],
)
def test_what_the_hub_does_not_give_is_one_line_that_says_what_to_do(hub, resolve, model, environment, parts):
    folder, errors = resolve(model, hub[0], **environment)
    assert folder is None
    assert len(errors) == 1 and all(part in errors[0] for part in parts), errors


def test_near_folders_are_named_when_the_hub_does_not_know_the_id_either(hub, resolve, tmp_path):
    (tmp_path / "farm" / "crops-tuned").mkdir(parents=True)
    _, errors = resolve("farm/crops-tune", hub[0])
    assert "farm/crops-tuned" in errors[0]
