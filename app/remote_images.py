"""An image from an address that a visitor gives, fetched so that nobody can use this machine to reach others.

A server that fetches what it is told to can be sent to places that only it reaches: its own ports, machines beside it,
the cloud's metadata. So a name is resolved once, all of its addresses must be public, the connection goes to the one
that was looked at, and every redirect is looked at anew. Size and time are bounded, and what came must be an image.
"""

import contextlib
import http.client
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from vlm_jax.errors import InputError
from vlm_jax.processing.images import NamedBytes

SECONDS = 10.0
"""For all of it, redirects included."""
MOST_BYTES = 20 << 20
REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
"""Schemes, and the one port of each: other ports lead to other services."""
LONGEST_ADDRESS = 2000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that carry one of IPv4 in their last four bytes (RFC 6052)."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out to the open internet (RFC 4291, 2.4)."""
_HEADERS = {"User-Agent": "vlm-jax", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}

Resolve = Callable[[str, int], list[str]]
Connect = Callable[[tuple[str, int], float], socket.socket]


def resolved(host: str, port: int) -> list[str]:
    """The numeric addresses of a name. Raises OSError where it has none."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def is_public(address: str) -> bool:
    """Whether a numeric address is one of the open internet, also the IPv4 address that an IPv6 address carries."""
    found = ipaddress.ip_address(address.partition("%")[0])
    carried: list[ipaddress.IPv4Address | None] = []
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found not in _UNICAST:
            return False
        carried = [found.sixtofour, *(found.teredo or ())]
    named = [one for one in carried if one is not None]
    return found.is_global and not found.is_multicast and all(is_public(str(one)) for one in named)


def fetch(
    address: str,
    *,
    seconds: float = SECONDS,
    most_bytes: int = MOST_BYTES,
    resolve: Resolve = resolved,
    connect: Connect = socket.create_connection,
) -> NamedBytes:
    """The bytes behind an address, called by it. Whether they are an image is for `open_image` to see.

    Args:
      resolve: gives the numeric addresses of a name.
      connect: opens a connection to a numeric address.

    Raises:
      InputError: it may not be fetched, or could not be.
    """
    deadline, here = time.monotonic() + seconds, address.strip()
    for _ in range(REDIRECTS + 1):
        response = _one(here, deadline, most_bytes, resolve, connect)
        if isinstance(response, bytes):
            return NamedBytes.called(_shown(address), response)
        try:
            target = urljoin(here, response)
        except ValueError:
            raise InputError(f"{_shown(address)}: leads to what is not an address") from None
        if here.lower().startswith("https:") and not target.lower().startswith("https:"):
            raise InputError(f"{_shown(address)}: leads from https to {_scheme(target)}; give the last address itself")
        here = target
    raise InputError(f"{_shown(address)}: leads on more than {REDIRECTS} times; give the last address itself")


def _one(address: str, deadline: float, most_bytes: int, resolve: Resolve, connect: Connect) -> bytes | str:
    """What an address answers: bytes, or where it leads."""
    scheme, host, path = _parts(address)
    port, name = PORTS[scheme], _shown(address)
    try:
        numbers = _in_time(deadline, lambda: resolve(host, port))
    except TimeoutError:
        raise InputError(f"{name}: was not there in time; download the image and upload it") from None
    except (OSError, UnicodeError):
        raise InputError(f"{name}: there is no machine of the name {_shown(host)}") from None
    # Of a name with several, one private address is enough: it may be the one that is taken next time.
    if not numbers or not all(map(is_public, numbers)):
        raise InputError(f"{name}: leads to an address that is not public; download the image and upload it")
    left = deadline - time.monotonic()
    try:
        if left <= 0:
            raise TimeoutError
        with _Deadline(deadline, connect((numbers[0], port), left)) as use:
            if scheme == "https":
                tls = ssl.create_default_context()
                stream = use(tls.wrap_socket(use.stream, server_hostname=host, do_handshake_on_connect=False))
                stream.do_handshake()
            return _answer(use.stream, host, port, path, name, most_bytes)
    except InputError:
        raise
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
            raise InputError(f"{name}: was not there in time; download the image and upload it") from None
        if isinstance(error, ssl.SSLError):
            raise InputError(f"{name}: no trusted connection ({error.reason or 'TLS'})") from None
        raise InputError(f"{name}: the connection failed ({type(error).__name__})") from None


def _in_time(deadline: float, resolve: Callable[[], list[str]]) -> list[str]:
    """What `resolve` returns or raises. The system's resolver has no deadline of its own: it is left to end alone."""
    ended: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            ended.put(resolve())
        except Exception as error:
            ended.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        result = ended.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme, host and path of an address that may be asked."""
    name = _shown(address)
    try:
        parts = urlsplit(address)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise InputError(f"{name}: not an address") from None
    scheme = parts.scheme.lower()
    if len(address) > LONGEST_ADDRESS or any(letter.isspace() or not letter.isprintable() for letter in address):
        raise InputError(f"{name}: not an address")
    if scheme not in PORTS or not host:
        raise InputError(f"{name}: wanted an address that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{host}: an address with a user's name or a password is not fetched")
    if port not in (None, PORTS[scheme]):
        raise InputError(f"{name}: only port {PORTS[scheme]} is asked for {scheme}://")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise InputError(f"{name}: not an address") from None
    return scheme, ascii_host, "".join(letter if letter.isascii() else _percent(letter) for letter in path)


class _Deadline:
    """Closes a connection at a moment, however slowly the other side goes on sending."""

    def __init__(self, deadline: float, stream: socket.socket):
        self.stream = stream
        self._seconds = max(0.01, deadline - time.monotonic())
        self._timer = threading.Timer(self._seconds, self._shut)
        self._timer.daemon = True

    def __call__(self, stream: ssl.SSLSocket) -> ssl.SSLSocket:
        """The same connection, encrypted from here on."""
        self.stream = stream
        return stream

    def __enter__(self) -> "_Deadline":
        self.stream.settimeout(self._seconds)
        self._timer.start()
        return self

    def __exit__(self, *error) -> None:
        self._timer.cancel()
        self.stream.close()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.stream, socket.SHUT_RDWR)


def _answer(stream: socket.socket, host: str, port: int, path: str, name: str, most_bytes: int) -> bytes | str:
    connection = http.client.HTTPConnection(host, port)  # writes and reads HTTP alone: it is connected already
    connection.sock, connection.default_port = stream, port
    connection.request("GET", path, headers=_HEADERS)
    response = connection.getresponse()
    if response.status in (301, 302, 303, 307, 308) and (location := response.headers.get("Location")):
        return location.encode("latin-1").decode("utf-8", errors="replace")  # http.client reads headers as Latin-1
    if response.status != 200:
        raise InputError(f"{name}: its server answers {response.status}")
    kind = response.headers.get_content_type()
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise InputError(f"{name}: is {kind}, not an image; give the address of the image itself")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise InputError(f"{name}: is compressed; download the image and upload it")
    announced = response.length or 0
    too_large = InputError(f"{name}: more than {most_bytes >> 20} MB; scale it down first")
    if announced > most_bytes:
        raise too_large
    data = response.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise too_large
    if len(data) < announced:
        raise http.client.IncompleteRead(b"")
    return data


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())


def _scheme(address: str) -> str:
    return _shown(address.partition(":")[0])


def _shown(text: str) -> str:
    """A part of an address as it may stand in an error line: a password, or what is behind a ?, may be a secret."""
    text = re.sub("//[^/]*@", "//", text.partition("?")[0].partition("#")[0])
    return text if len(text) <= 120 else text[:60] + "…"
