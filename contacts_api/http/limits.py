"""uvicorn's HTTP protocol with limits on the memory and time that one connection can use."""

import asyncio
import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if sys.platform == "linux":
    import fcntl
    import termios

HEAD_BYTES = 64 * 1024
"""The maximum total size of the URL, headers and trailers of one request."""
MAX_PIPELINED = 16
"""The maximum number of requests queued on a connection behind the current one."""
PIPELINED_BYTES = 2 * HEAD_BYTES
"""The maximum total size of the queued requests, including their bodies."""
SILENCE_SECONDS = 10.0
"""How long a client may take to send a complete head, and then between two pieces of a body."""
UNREAD_SECONDS = 30.0
"""How long a client may go without receiving any byte of a pending response."""


class ConnectionLimitError(Exception):
    """A client exceeded a connection limit. Raised in a parser callback, which makes uvicorn close the connection."""


class Parser(httptools.HttpRequestParser):
    """A parser that ignores the `Upgrade` header (RFC 9110, 7.8).

    httptools drops the body of a request with this header. So a new parser reads the request again without it.
    """

    def __init__(self, protocol: "Protocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # uvicorn passes bytes
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.get_method() == b"CONNECT":
                raise
            (end_of_head,) = upgrade.args
            head = self._protocol.head_without_upgrade()
            self._protocol.parser = Parser(self._protocol)
            self._protocol.parser.feed_data(head + data[end_of_head:])

    def is_upgrade(self) -> bool:
        return bool(self.should_upgrade() and self.get_method() != b"CONNECT")


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 that closes a connection if the client exceeds a limit, stops sending or stops receiving.

    httptools buffers heads without limit. uvicorn queues pipelined requests without limit. It also waits without limit
    for the rest of a request, and for a client to receive a response.
    """

    parser: Parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.parser = Parser(self)
        self._expects_head = self._expects_body = True
        self._head_bytes = self._pipelined_bytes = 0
        # The bytes received since the parser last called a method below, and whether it has called one for this piece.
        self._unreported_bytes, self._has_reported = 0, False
        self._heard_at = self._received_at = self.loop.time()
        self._unread_bytes = 0
        self._timer = self.loop.call_later(min(SILENCE_SECONDS, UNREAD_SECONDS), self._check_progress)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._expects_head:
            self._heard_at = self.loop.time()
        self._has_reported = False
        super().data_received(data)
        # The parser reports a header only when it is complete, and buffers it until then.
        self._unreported_bytes = 0 if self._has_reported else self._unreported_bytes + len(data)
        if self._unreported_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The URL, headers and trailers may have at most {HEAD_BYTES:,} bytes.")
        # A line break between two requests cancels uvicorn's keep-alive timeout, so start ours.
        if not self._has_reported and self._is_between_requests():
            self._expects_head, self._heard_at = True, self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Reject the request, and close the connection.

        Sends no response if earlier requests are still queued: the client would match it to one of them.
        """
        if self.pipeline:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        self._expects_head = self._expects_body = self._has_reported = True
        self._head_bytes = 0
        if not self.pipeline:
            self._pipelined_bytes = 0
        self._heard_at = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + len(": \r\n"))
        # Trailers arrive after the application was called, and must not be treated as headers.
        if self._expects_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.is_upgrade():
            return
        self._expects_head = False
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ConnectionLimitError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_reported = True
        self._count_pipelined(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.is_upgrade():
            return
        self._expects_body = False
        super().on_message_complete()

    def head_without_upgrade(self) -> bytes:
        """Return the head of the current request without the headers that ask for another protocol."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                value = b", ".join(each for each in options if each.lower() not in (b"upgrade", b"http2-settings"))
            if name not in (b"upgrade", b"http2-settings") and (value or name != b"connection"):
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _count_head(self, size: int) -> None:
        self._has_reported = True
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise ConnectionLimitError
        self._count_pipelined(size)

    def _count_pipelined(self, size: int) -> None:
        if self.pipeline:
            self._pipelined_bytes += size
            if self._pipelined_bytes > PIPELINED_BYTES:
                raise ConnectionLimitError

    def _is_between_requests(self) -> bool:
        return not self._expects_head and not self._expects_body and self.cycle.response_complete

    def _check_progress(self) -> None:
        """Close the connection if the client has stopped sending a request or receiving a response."""
        now = self.loop.time()
        # While reading is paused, the client cannot send.
        if self.flow.read_paused or not (self._expects_head or self._expects_body):
            self._heard_at = now
        unread_bytes = _count_unread(self.transport)
        if not unread_bytes or unread_bytes != self._unread_bytes:
            self._unread_bytes, self._received_at = unread_bytes, now
        if now - self._received_at >= UNREAD_SECONDS:
            self.transport.abort()
            return
        if now - self._heard_at >= SILENCE_SECONDS and not self.transport.is_closing():
            self.transport.close()
        due_at = min(self._heard_at + SILENCE_SECONDS, self._received_at + UNREAD_SECONDS)
        self._timer = self.loop.call_later(max(due_at - now, SILENCE_SECONDS / 10), self._check_progress)


def _count_unread(transport: asyncio.Transport) -> int:
    """Return the number of unsent bytes in the buffers of this process and, on Linux, of the kernel."""
    unread = transport.get_write_buffer_size()
    if sys.platform == "linux" and (connection := transport.get_extra_info("socket")):
        in_kernel = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        unread += int.from_bytes(in_kernel, sys.byteorder)
    return unread
