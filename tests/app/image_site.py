"""A web site with an image, and with everything that a site may answer instead."""

import http.server
import io
import threading
import time

import PIL.Image

from remote_images import MOST_BYTES


def png() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (200, 20, 20)).save(buffer, "PNG")
    return buffer.getvalue()


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        answer = getattr(self, "_" + self.path.partition("?")[0].strip("/").replace(".", "_"), None)
        answer() if answer else self._send(404, "text/plain", b"no")

    def log_message(self, *words):
        pass

    def _send(self, status, kind, body, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _red_png(self):
        self._send(200, "image/png", png())

    def _page(self):
        self._send(200, "text/html", b"<p>an image")

    def _lies_png(self):
        self._send(200, "image/png", b"<svg xmlns='http://www.w3.org/2000/svg'/>")

    def _moved(self):
        self._send(302, "text/plain", b"", Location="/red.png")

    def _inwards(self):
        self._send(302, "text/plain", b"", Location="http://localhost/secret.png")

    def _metadata(self):
        self._send(307, "text/plain", b"", Location="http://169.254.169.254/latest/meta-data")

    def _file(self):
        self._send(302, "text/plain", b"", Location="file:///etc/passwd")

    def _round(self):
        self._send(302, "text/plain", b"", Location="/round")

    def _bracket(self):
        self._send(302, "text/plain", b"", Location="http://[/")

    def _accent(self):
        self._send(302, "text/plain", b"", Location="/caf\u00e9.png".encode().decode("latin-1"))

    def _digits(self):
        self._send(200, "image/png", png(), Content_Length="9" * 5000)

    def _announced(self):
        self._send(200, "image/png", b"", Content_Length=str(MOST_BYTES + 1))

    def _endless(self):
        self._send(200, "image/png", b"")
        try:
            for _ in range(40):
                self.wfile.write(bytes(1 << 20))
        except OSError:
            pass

    def _drops(self):
        self._send(200, "image/png", png()[:20], Content_Length="4000")

    def _slow(self):
        try:
            for letter in b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n":
                self.wfile.write(bytes([letter]))
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    def _compressed(self):
        self._send(200, "image/png", b"x", Content_Encoding="gzip")


def served() -> http.server.ThreadingHTTPServer:
    """Starts it on a free port. `asked` holds the host and the path of each request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
