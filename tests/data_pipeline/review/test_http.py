"""The server as anybody on this machine and any page in its browser may ask it."""

import http.client
import json
import os
import socket
import sys

import pytest
from starlette.testclient import TestClient

from data_pipeline.review import log, server
from data_pipeline.review.app import review_app
from data_pipeline.review.current import CurrentReview
from data_pipeline.review.guard import MOST_BYTES
from data_pipeline.review.log import read_log
from data_pipeline.review.session import Options
from tests.review_corpus import MARKUP, make_corpus
from tests.review_server import serving
from vlm_jax.errors import InputError

HERE = "http://127.0.0.1:8020"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def client(corpus):
    with log.opened(corpus) as actions:
        app = review_app(CurrentReview(corpus, actions, Options()))
        with TestClient(app, base_url=HERE, follow_redirects=False) as client:
            yield client


def accepting(client, **changed):
    item = client.get("/api/item?reviewer=ann").json()["item"]
    sent = {"reviewer": "ann", "action": "accept", "token": "t", "key": item["key"], "content": item["content"]}
    return {**sent, **changed}


def post(client, body, headers=None, **more):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Origin": HERE, "Content-Type": "application/json"} if headers is None else headers
    return client.post("/api/action", content=content, headers=headers, **more)


def entries(corpus):
    return read_log(corpus / log.LOG)[0]


def test_a_session_over_http(client, corpus):
    start = client.get("/api/start").json()
    assert len(start["reasons"]) == 8 and start["corpus"] == "corpus" and not start["blind"]
    answer = post(client, accepting(client))
    assert answer.status_code == 200 and answer.json()["progress"]["decided"] == 1
    assert [(entry.reviewer, entry.action) for entry in entries(corpus)] == [("ann", "accept")]
    image = client.get(f"/image/{answer.json()['item']['key']}/0")
    assert image.headers["content-type"] == "image/jpeg" and image.content[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "path", ["/", "/record.js", "/review.js", "/review.css", "/api/start", "/nowhere", "/api/action"]
)
def test_every_answer_forbids_scripts_and_content_from_elsewhere(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    for sources in ("script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"):
        assert f"{sources};" in policy
    for forbidden in ("base-uri", "form-action", "frame-ancestors"):
        assert f"{forbidden} 'none';" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin" and headers["cache-control"] == "no-store"
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "", "[::1]"]
)
def test_another_host_is_refused(client, host):
    for path in ("/", "/api/start", "/image/x/0"):
        assert client.get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("site", ["cross-site", "same-site", "else"])
def test_another_site_may_lead_to_the_page_and_is_given_nothing_else(client, site):
    headers = {"Sec-Fetch-Site": site}
    assert client.get("/", headers=headers).status_code == 200
    for path in ("/api/start", "/api/item?reviewer=x", "/image/x/0", "/review.js", "/x"):
        assert client.get(path, headers=headers).status_code == 403
    assert client.get("/api/start", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_this_machine_is_served_under_both_names_and_any_port(client):
    for host in ("127.0.0.1:8020", "localhost:8020", "localhost", "127.0.0.1:9999"):
        assert client.get("/api/start", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:8021",
        "http://localhost:8020",
        "https://127.0.0.1:8020",
        "http://127.0.0.1:8020/",
        "http://127.0.0.1:8020.evil.example",
    ],
)
def test_an_action_from_another_origin_or_from_none_is_refused(client, corpus, origin):
    headers = {"Content-Type": "application/json", **({} if origin is None else {"Origin": origin})}
    assert post(client, accepting(client), headers).status_code == 403
    assert entries(corpus) == []


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json, text/plain", "text/json",
             "application/json; charset=utf-7", "multipart/form-data; boundary=x"]
)  # fmt: skip
def test_an_action_that_is_not_sent_as_json_is_refused(client, corpus, kind):
    headers = {"Origin": HERE, **({} if kind is None else {"Content-Type": kind})}
    assert post(client, accepting(client), headers).status_code == 415
    assert entries(corpus) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff",
        b"NaN",
        b'{"token": "a", "token": "b"}',
        b"[" * 100_000,
        b'{"a": 1e999}',
        b"null",
    ],
    ids=lambda body: body[:10].decode("latin-1"),
)
def test_a_body_that_is_no_object_is_refused(client, corpus, body):
    answer = post(client, body)
    assert answer.status_code == 400 and answer.json()["error"]
    assert entries(corpus) == []


def test_a_large_body_is_refused_whether_or_not_it_says_its_length(client, corpus):
    large = accepting(client, note="x" * MOST_BYTES)
    assert post(client, large).status_code == 413
    chunks = (json.dumps(large).encode()[start : start + 1000] for start in range(0, MOST_BYTES + 2000, 1000))
    headers = {"Origin": HERE, "Content-Type": "application/json"}
    assert client.post("/api/action", content=chunks, headers=headers).status_code == 413
    assert entries(corpus) == []


def test_what_cannot_be_done_is_told_with_its_status(client, corpus):
    assert post(client, accepting(client, action="ponder")).status_code == 400
    assert post(client, accepting(client, content="old")).status_code == 409
    assert client.get("/api/item?reviewer=").status_code == 400
    assert client.get("/api/item?reviewer=a&step=sideways").status_code == 400
    assert client.post("/api/item").status_code == 405 and client.get("/api/action").status_code == 405
    assert client.get("/api/item/").status_code == 404
    assert entries(corpus) == []


def test_images_are_served_by_key_and_number_and_nothing_by_path(client):
    key = client.get("/api/item?reviewer=ann").json()["item"]["key"]
    paths = [
        f"/image/{key}/1",
        f"/image/{key}/-1",
        f"/image/{key}/00x",
        f"/image/{key}",
        "/image/none/0",
        f"/image/..%2f{key}/0",
        "/image/%2e%2e%2f%2e%2e%2fsecret.txt/0",
        "/images/talumo.jpg",
        "/secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/review.jsonl",
        "/train.jsonl",
        "/index.html",
        "//etc/passwd",
        "/page/review.js",
    ]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 404 and b"secret" not in answer.content.replace(b"secret.txt", b""), path


def key_of(client, identifier):
    item = client.get("/api/item?reviewer=ann").json()["item"]
    while item["id"] != identifier:
        item = client.get(f"/api/item?reviewer=ann&step=next&key={item['key']}").json()["item"]
    return item["key"]


def test_a_file_that_becomes_a_link_out_of_the_corpus_later_is_not_followed(client, corpus):
    key, path = key_of(client, "rocket"), corpus / "images" / "rocket.jpg"
    outside = corpus.parent / "outside.jpg"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)
    answer = client.get(f"/image/{key}/0")
    assert answer.status_code == 404 and "not in the corpus" in answer.json()["error"]
    path.unlink()
    path.symlink_to("coffee.jpg")
    assert client.get(f"/image/{key}/0").content == (corpus / "images" / "coffee.jpg").read_bytes()


def test_what_is_no_image_is_not_served_whatever_it_is_called(client, corpus):
    key, path = key_of(client, "rocket"), corpus / "images" / "rocket.jpg"
    for content in (b"<script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b""):
        path.write_bytes(content)
        answer = client.get(f"/image/{key}/0")
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/json"
    path.unlink()
    assert "no such image" in client.get(f"/image/{key}/0").json()["error"]
    os.mkfifo(path)
    assert "named pipe" in client.get(f"/image/{key}/0").json()["error"]


def test_formats_that_browsers_do_not_show_are_sent_as_png(client, corpus):
    import PIL.Image

    path = corpus / "images" / "rocket.jpg"
    with PIL.Image.open(path) as image:
        image.save(path, "TIFF")
    answer = client.get(f"/image/{key_of(client, 'rocket')}/0")
    assert answer.headers["content-type"] == "image/png" and answer.content.startswith(b"\x89PNG")


def test_what_a_model_wrote_is_sent_as_a_string_of_json_alone(client):
    key = key_of(client, "markup")
    answer = client.get(f"/api/item?reviewer=ann&key={key}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["item"]["texts"]["answer"]["text"] == MARKUP
    assert MARKUP.encode() not in client.get("/").content


def test_the_page_makes_no_markup_of_texts_and_asks_nobody_else(client):
    page, style = client.get("/").text, client.get("/review.css").text
    script = client.get("/record.js").text + client.get("/review.js").text
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "DOMParser"):
        assert word not in script
    for text in (page, script, style):
        assert "http:" not in text and "https:" not in text and "//cdn" not in text and "@import" not in text
    assert "style=" not in page and "onclick" not in page and "<style" not in page


def test_the_disk_that_is_full_is_told_and_nothing_is_taken_for_saved(client, corpus):
    import resource

    body, limits = accepting(client), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        answer = post(client, body)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer.status_code == 507 and answer.json()["error"].startswith("Nothing was saved")
    assert (corpus / log.LOG).read_bytes() == b""
    assert post(client, body).status_code == 200 and len(entries(corpus)) == 1


@pytest.mark.parametrize("done", ["was removed", "was replaced", "was changed"])
def test_a_log_that_is_no_more_the_servers_is_told_and_nothing_is_taken_for_saved(client, corpus, done):
    path = corpus / log.LOG
    assert post(client, accepting(client, token="first")).status_code == 200
    body, before = accepting(client), path.read_bytes()
    if done == "was changed":
        path.write_bytes(b"")
    else:
        path.rename(corpus / "away")
    if done == "was replaced":
        path.write_bytes(before)
    found = path.read_bytes() if path.exists() else None
    answer = post(client, body)
    assert answer.status_code == 507 and f"Nothing was saved: review.jsonl {done}" in answer.json()["error"]
    assert (path.read_bytes() if path.exists() else None) == found
    if done != "was changed":
        (corpus / "away").rename(path)
        assert post(client, body).status_code == 200 and len(entries(corpus)) == 2


def test_without_its_packages_the_server_says_what_to_install(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'vlm-jax\[review\]'"):
        server.serve(corpus, Options(), port=0, say=print)


def test_a_real_server_listens_on_loopback_and_resolves_no_paths(corpus):
    with serving(corpus) as (address, _):
        port = int(address.rpartition(":")[2])
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for other in others - {"127.0.0.1"}:
            with pytest.raises(OSError):
                socket.create_connection((other, port), timeout=2)
        for path in ("/../secret.txt", "/image/../../secret.txt", "/%2e%2e/%2e%2e/etc/passwd", "/..\\secret.txt"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.putrequest("GET", path, skip_host=False)
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status == 404 and b'"secret"' not in answer.read()
            connection.close()
        assert raw(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert raw(port, b"GET / HTTP/1.0\r\n\r\n").split()[1] == b"400"
        assert b"server:" not in raw(port, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").lower()


def raw(port, request):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_several_reviewers_at_once_all_have_their_actions_written(corpus):
    import threading

    def review(name, address, failed):
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        connection.request("GET", f"/api/item?reviewer={name}&step=undecided")
        item = json.loads(connection.getresponse().read())["item"]
        for number in range(50):
            if item is None:
                return
            sent = {"reviewer": name, "action": "accept", "token": f"{name}{number}", "key": item["key"]}
            headers = {"Origin": address, "Content-Type": "application/json"}
            connection.request("POST", "/api/action", json.dumps({**sent, "content": item["content"]}), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                failed.append(answer.read())
                return
            item = json.loads(answer.read())["item"]

    failed = []
    with serving(corpus, Options(shared=1.0)) as (address, _):
        threads = [
            threading.Thread(target=review, args=(name, address, failed)) for name in ("ann", "ben", "cho", "dai")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    written = [(entry.id, entry.reviewer) for entry in entries(corpus)]
    # Each of 10 records twice, by two reviewers: who opens one has it, so no slot is left or given away twice.
    assert not failed and len(set(written)) == len(written) == 20


def test_a_corpus_that_is_made_again_meanwhile_is_shown_as_it_is_now(client, corpus):
    before = accepting(client)
    shown = client.get("/api/item?reviewer=ann").json()["item"]
    train = corpus / "train.jsonl"
    text, manifest = train.read_text(), (corpus / "manifest.json").read_text()
    train.write_text(text.replace("such as a rosette", "a rosette"))
    assert client.get("/api/item?reviewer=ann").json()["item"] == shown  # the build goes on
    (corpus / "manifest.json").write_text(manifest + " ")
    item = client.get("/api/item?reviewer=ann").json()["item"]
    assert (item["id"], item["texts"]["answer"]["text"]) == (shown["id"], "The white figure of foam, a rosette")
    answer = post(client, before)
    assert answer.status_code == 409 and "has changed" in answer.json()["error"] and not entries(corpus)
    assert client.get("/api/item?reviewer=bob").json()["item"]["id"] != shown["id"]  # ann has it open still

    train.write_text("{")
    (corpus / "manifest.json").write_text(manifest)
    answer = client.get("/api/item?reviewer=ann")
    assert answer.status_code == 409 and "cannot be read now: " in answer.json()["error"]
    train.write_text(text)
    assert client.get("/api/item?reviewer=ann").json()["item"] == shown
    assert post(client, before).status_code == 200
