"""uvicorn's HTTP protocol, with bounds on the memory and the time that one client can take."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""What the URL, the headers and the trailers of one request may have together."""
PATIENCE_SECONDS = 10.0
"""How long a client may take to send a whole head, and then to send the next bytes of a body."""


class HeadTooLargeError(Exception):
    """The URL, headers and trailers have more than HEAD_BYTES. Raised in the parser, which makes uvicorn send a 400."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 that closes the connection of a client that sends too large a head, or stops sending.

    httptools itself collects heads without limit, and uvicorn waits for the rest of a request for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._expects_head = self._expects_body = True
        self._head_bytes = 0
        # What has come since the parser last called one of the methods below, and whether it has for this piece.
        self._unreported_bytes, self._has_reported = 0, False
        self._heard_at = self.loop.time()
        self._patience = self.loop.call_later(PATIENCE_SECONDS, self._check_patience)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._expects_head:
            self._heard_at = self.loop.time()
        self._has_reported = False
        super().data_received(data)
        # The parser reports a header when it is complete. Until then it collects the bytes.
        self._unreported_bytes = 0 if self._has_reported else self._unreported_bytes + len(data)
        if self._unreported_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The URL, headers and trailers may have at most {HEAD_BYTES:,} bytes.")
        # A line break between two requests cancels uvicorn's own time-out.
        if not self._has_reported and self._is_between_requests():
            self._expects_head, self._heard_at = True, self.loop.time()

    def on_message_begin(self) -> None:
        self._expects_head = self._expects_body = self._has_reported = True
        self._head_bytes = 0
        self._heard_at = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(": \r\n"))
        # Trailers come after the application was called, and must not become headers.
        if self._expects_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._expects_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_reported = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._expects_body = False
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._has_reported = True
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise HeadTooLargeError

    def _is_between_requests(self) -> bool:
        return not self._expects_head and not self._expects_body and self.cycle.response_complete

    def _check_patience(self) -> None:
        """Close the connection of a client that has stopped in the middle of a request."""
        now = self.loop.time()
        # While reading is paused, the client cannot send.
        if self.flow.read_paused or not (self._expects_head or self._expects_body):
            self._heard_at = now
        left = self._heard_at + PATIENCE_SECONDS - now
        if left <= 0:
            self.transport.close()
        else:
            self._patience = self.loop.call_later(left, self._check_patience)
