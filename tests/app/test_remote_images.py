"""Images from addresses: what is never asked, what is asked once, and what of an answer is taken."""

import http.server
import socket
import ssl
import threading
import time

import pytest

from remote_images import fetch, is_public, resolved
from tests.app import image_site
from tests.started import ROOT
from vlm_jax.errors import InputError
from vlm_jax.processing.images import open_image

PUBLIC = "93.184.215.14"
TLS = ROOT / "tests" / "data" / "tls"


class Network:
    """Names of the open internet that lead to the site, and what was asked of it."""

    def __init__(self, site, **names):
        self.site, self.names = site, {"images.example.org": [PUBLIC], **names}
        self.resolved, self.connected = [], []

    def resolve(self, host, port):
        self.resolved.append(host)
        if host in self.names:
            return self.names[host]
        return resolved(host, port)

    def connect(self, address, seconds):
        self.connected.append(address)
        return socket.create_connection(self.site.server_address, seconds)

    def fetch(self, address, **options):
        return fetch(address, resolve=self.resolve, connect=self.connect, **options)


def test_an_image_is_fetched_from_the_address_that_was_looked_at(site):
    network = Network(site)
    data = network.fetch("http://images.example.org/red.png?size=large#top")
    assert open_image(data).size == (8, 8) and data.name == "http://images.example.org/red.png"
    assert network.connected == [(PUBLIC, 80)] and network.resolved == ["images.example.org"]
    assert site.asked[-1] == ("images.example.org", "/red.png?size=large")


def test_a_redirect_is_looked_at_as_the_first_address_is(site):
    network = Network(site)
    assert open_image(network.fetch("http://images.example.org/moved")).size == (8, 8)
    assert network.resolved == ["images.example.org"] * 2
    for path, reason in (
        ("inwards", "not public"),
        ("metadata", "not public"),
        ("file", "https:// or http://"),
        ("round", "more than 3 times"),
        ("bracket", "not an address"),
    ):
        asked = len(site.asked)
        with pytest.raises(InputError, match=reason):
            network.fetch(f"http://images.example.org/{path}")
        assert all(path in one for _, one in site.asked[asked:]), "nothing was asked behind it"
    with pytest.raises(InputError, match="404"):
        network.fetch("http://images.example.org/accent")
    assert site.asked[-1][1] == "/caf%C3%A9.png"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://images.example.org/a.png", "https:// or http://"),
        ("file:///etc/passwd", "https:// or http://"),
        ("data:image/png;base64,AAAA", "https:// or http://"),
        ("images.example.org/a.png", "https:// or http://"),
        ("http://localhost/a.png", "not public"),
        ("http://127.0.0.1/a.png", "not public"),
        ("http://127.1/a.png", "not public"),
        ("http://2130706433/a.png", "not public"),
        ("http://0x7f000001/a.png", "not public"),
        ("http://0/a.png", "not public"),
        ("http://[::1]/a.png", "not public"),
        ("http://[::ffff:10.0.0.1]/a.png", "not public"),
        ("http://[64:ff9b::a00:1]/a.png", "not public"),
        ("http://10.1.2.3/a.png", "not public"),
        ("http://169.254.169.254/latest/meta-data", "not public"),
        ("http://[fe80::1]/a.png", "not public"),
        ("http://images.example.org:8080/a.png", "only port 80"),
        ("https://images.example.org:22/a.png", "only port 443"),
        ("http://me:secret@images.example.org/a.png", "user's name or a password"),
        ("http://me:secret@images.example.org:99999/a.png", "not an address"),
        ("ftp://me:secret@images.example.org/a.png", "https:// or http://"),
        ("http://localhost./a.png", "not public|no machine"),
        ("http://\u2460\u2461\u2466.0.0.1/a.png", "not public|no machine"),
        ("http://127.0.0.1%2f.images.example.org/a.png", "no machine"),
        ("http://images.example.org/a b", "not an address"),
        ("http://images.example.org/\r\nX: y", "not an address"),
        ("http://[/", "not an address"),
        ("http://" + "a" * 3000, "not an address"),
        ("http://no-such-name.invalid/a.png", "no machine"),
        ("http://two.example.org/a.png", "not public"),
    ],
)
def test_what_must_not_be_asked_is_not(site, address, reason):
    network = Network(site, **{"two.example.org": [PUBLIC, "10.0.0.7"]})
    with pytest.raises(InputError, match=reason) as error:
        network.fetch(address)
    assert not network.connected and "secret" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("page", "is text/html, not an image"),
        ("missing.png", "answers 404"),
        ("announced", "more than 20 MB"),
        ("endless", "more than 20 MB"),
        ("drops", "connection failed"),
        ("compressed", "is compressed"),
    ],
)
def test_what_is_no_image_or_too_much_is_refused_in_a_line(site, path, reason):
    with pytest.raises(InputError, match=reason):
        Network(site).fetch(f"http://images.example.org/{path}")


def test_a_server_that_sends_letter_by_letter_and_a_name_that_is_not_found_in_time_are_left_at_the_deadline(site):
    start, network = time.monotonic(), Network(site)
    with pytest.raises(InputError, match="in time"):
        network.fetch("http://images.example.org/slow", seconds=0.5)
    with pytest.raises(InputError, match="in time"):
        fetch("http://slow.example.org/", seconds=0.2, resolve=lambda *name: time.sleep(3), connect=network.connect)
    assert time.monotonic() - start < 2.5


def test_what_only_says_that_it_is_an_image_is_found_out_when_it_is_opened(site):
    assert open_image(Network(site).fetch("http://images.example.org/digits")).size == (8, 8)
    data = Network(site).fetch("http://images.example.org/lies.png")
    with pytest.raises(InputError, match="images.example.org/lies.png: not an image"):
        open_image(data)


def test_https_is_for_the_name_and_for_a_certificate_that_is_trusted(site, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), image_site.Site)
    server.asked, server.socket = [], context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *words: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    network = Network(server, **{"other.example.org": [PUBLIC]})
    with pytest.raises(InputError, match="no trusted connection"):
        network.fetch("https://images.example.org/red.png")
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    assert open_image(network.fetch("https://images.example.org/red.png")).size == (8, 8)
    assert network.connected[-1] == (PUBLIC, 443) and server.asked == [("images.example.org", "/red.png")]
    with pytest.raises(InputError, match="no trusted connection"):
        network.fetch("https://other.example.org/red.png")
    with pytest.raises(InputError, match="leads from https to http"):
        network.fetch("https://images.example.org/inwards")
    server.shutdown()


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_the_open_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.2", "169.254.0.1", "172.16.0.1", "192.168.1.1", "198.18.0.1",
     "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fec0::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "::7f00:1", "4000::1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "2001:0:a00:1::1"],
)  # fmt: skip
def test_what_lies_behind_this_machine_is_not(address):
    assert not is_public(address)
