"""A connection of the MCP wire protocol: QUIC, the lane, and frames on it.

Written from proto/README.md; the numbers in comments are its sections.
"""

import asyncio
import pathlib
import random
import socket
import struct
import sys
import tempfile
import time
from contextlib import asynccontextmanager

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived, StreamReset
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def _compile():
    """The protobuf modules of proto/mcp/v1, made anew: generated code is not kept."""
    out = tempfile.mkdtemp(prefix="mcp-proto-")
    files = [str(path) for path in sorted(PROTO.glob("mcp/v1/*.proto"))]
    if protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", *files]) != 0:
        raise SystemExit(f"cannot compile {PROTO}/mcp/v1/*.proto")
    sys.path.insert(0, out)


_compile()
from google.protobuf.message import DecodeError  # noqa: E402
from mcp.v1 import error_pb2, frame_pb2, session_pb2, task_pb2  # noqa: E402

Frame = frame_pb2.Frame
VERSION = "1.0"
ALPN = "mcp-comm/1"
MAX_LENGTH = 16 * 1024 * 1024
MAX_BODY = 64 * 1024
CONNECT_TIMEOUT_S = 3
# A broker that is gone says nothing (2.3). PING after this silence; while nothing is awaited, rarely.
PROBE_AFTER_S, KEEP_ALIVE_S = 1, 10
# Then the connection counts as broken.
ANSWER_WITHIN_S = 5
# A peer that was told this does not come back by itself (9).
FINAL_CODES = {
    error_pb2.ERROR_CODE_REPLACED,
    error_pb2.ERROR_CODE_IDENTITY_MISMATCH,
    error_pb2.ERROR_CODE_UNSUPPORTED_VERSION,
}
# What a broker may send once the session is open (4.2).
FROM_BROKER = {
    "any": {"ping", "pong", "error", "goaway"},
    session_pb2.ROLE_CLIENT: {"deliver", "status", "accepted"},
    session_pb2.ROLE_WORKER: {"route", "cancel"},
}


class Closed(Exception):
    """The connection has ended. `code` is None when it broke."""

    def __init__(self, code, reason):
        if code is None:
            text = "broken"
        elif code == 0:
            text = "closed"
        elif code in error_pb2.ErrorCode.values():
            text = f"closed with {error_pb2.ErrorCode.Name(code)}"
        else:
            text = f"closed with {code}"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.code = code

    @property
    def is_final(self):
        return self.code in FINAL_CODES


class Lane(QuicConnectionProtocol):
    """The lane. `frames` yields what arrives, then raises Closed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ack = None
        self._buffer = bytearray()
        self._skip = 0
        self._stream = None
        self._expected = {"ack", "error", "goaway"}
        self._frames = asyncio.Queue()
        self._pongs = {}
        self._seq = 0
        self._heard = time.monotonic()

    async def open(self, hello):
        """Sends HELLO and waits for ACK (4.1)."""
        self._stream = self._quic.get_next_available_stream_id()
        roles = list(hello.roles)
        self.send(Frame(hello=hello))
        async for frame, _ in self.frames():
            if frame.HasField("ack"):
                break
        self.ack = frame.ack
        if self.ack.mcp_version.split(".")[0] != VERSION.split(".")[0]:
            self.fail(error_pb2.ERROR_CODE_UNSUPPORTED_VERSION, f"this side speaks {VERSION}")
        self._expected = set().union(FROM_BROKER["any"], *(FROM_BROKER[role] for role in roles))

    def send(self, frame, body=b""):
        """Appends a frame: u32 length, u16 header length, header, body (3.1)."""
        header = frame.SerializeToString()
        head = struct.pack(">IH", 2 + len(header) + len(body), len(header))
        self._quic.send_stream_data(self._stream, head + header + body)
        self.transmit()

    async def frames(self):
        while True:
            item = await self._frames.get()
            if isinstance(item, Closed):
                self._frames.put_nowait(item)
                raise item
            yield item

    def send_ping(self, readiness=None, **report):
        """Sends PING. The future it returns ends with the PONG: everything sent before has arrived."""
        self._seq += 1
        ping = session_pb2.Ping(seq=self._seq, readiness=readiness or 0, **report)
        self._pongs[self._seq] = asyncio.get_running_loop().create_future()
        self.send(Frame(ping=ping))
        return self._pongs[self._seq]

    async def watch(self, is_waiting):
        """Notices a broker that is gone."""
        probed = None
        while True:
            await asyncio.sleep(PROBE_AFTER_S / 2)
            silent_s = time.monotonic() - self._heard
            if probed and self._heard > probed:
                probed = None
            if probed and time.monotonic() - probed > ANSWER_WITHIN_S:
                self._end(Closed(None, "the broker does not answer"))
            elif not probed and silent_s > (PROBE_AFTER_S if is_waiting() else KEEP_ALIVE_S):
                probed = time.monotonic()
                self.send_ping()

    async def leave(self):
        """Closes in order: first the last frames arrive (2.4)."""
        try:
            async with asyncio.timeout(5):
                await self.send_ping()
        except (TimeoutError, Closed):
            pass
        self._quic.close(error_code=0)
        self.transmit()

    def fail(self, code, message):
        """ERROR and close (2.4)."""
        self.send(Frame(error=error_pb2.Error(code=code, message=message)))
        self._quic.close(error_code=code, reason_phrase=message)
        self.transmit()
        self._end(Closed(code, message))

    def abandon(self):
        """Ends the connection, if it has not ended yet, without waiting for an answer."""
        self._quic.close(error_code=error_pb2.ERROR_CODE_INTERNAL, reason_phrase="given up")
        self.transmit()
        if self._timer:
            self._timer.cancel()

    def error_received(self, error):
        """ICMP: nobody listens there. Once connected, the silence tells."""
        if self.ack is None:
            self._end(Closed(None, str(error)))

    def quic_event_received(self, event):
        self._heard = time.monotonic()
        if isinstance(event, StreamDataReceived) and event.stream_id == self._stream:
            self._buffer += event.data
            while self._parse():
                pass
        elif isinstance(event, StreamReset):
            self.fail(error_pb2.ERROR_CODE_MALFORMED, "the lane was reset")
        elif isinstance(event, ConnectionTerminated):
            # An application's close has no frame type; everything else is a broken connection.
            code = event.error_code if event.frame_type is None else None
            self._end(Closed(code, event.reason_phrase))

    def _end(self, closed):
        self._frames.put_nowait(closed)
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(closed)
                pong.exception()  # Whether anyone waits for it or not.

    def _parse(self):
        """Takes one frame from the buffer, in the order of checks of 3.2."""
        buffer = self._buffer
        if self._skip:
            skipped = min(self._skip, len(buffer))
            del buffer[:skipped]
            self._skip -= skipped
            if self._skip:
                return False
        if len(buffer) < 4:
            return False
        length = struct.unpack_from(">I", buffer)[0]
        if length > MAX_LENGTH:
            self.fail(error_pb2.ERROR_CODE_FRAME_TOO_LARGE, f"a frame of {length} bytes")
            return False
        if length < 2:
            self.fail(error_pb2.ERROR_CODE_MALFORMED, f"a frame of {length} bytes")
            return False
        if len(buffer) < 6:
            return False
        header_length = struct.unpack_from(">H", buffer, 4)[0]
        body_length = length - 2 - header_length
        if body_length < 0:
            self.fail(error_pb2.ERROR_CODE_MALFORMED, "a header longer than its frame")
            return False
        is_large = body_length > MAX_BODY
        end = 6 + header_length + (0 if is_large else body_length)
        if len(buffer) < end:
            return False
        frame = Frame()
        try:
            frame.ParseFromString(bytes(buffer[6 : 6 + header_length]))
        except DecodeError as error:
            self.fail(error_pb2.ERROR_CODE_MALFORMED, str(error))
            return False
        body = bytes(buffer[6 + header_length : end])
        del buffer[:end]
        if is_large:
            self._skip = body_length
        return self._take(frame, body, is_large)

    def _take(self, frame, body, is_large):
        kind = frame.WhichOneof("kind")
        if kind is None:
            self._error(error_pb2.ERROR_CODE_UNKNOWN_FRAME, "a frame kind that is not known here")
        elif kind not in self._expected:
            self.fail(error_pb2.ERROR_CODE_UNEXPECTED_FRAME, f"{kind} is not expected")
            return False
        elif is_large:
            self._error(error_pb2.ERROR_CODE_BODY_TOO_LARGE, f"at most {MAX_BODY} bytes")
        elif kind == "ping":
            # Here, where nothing else can be busy (5.3).
            self.send(Frame(pong=session_pb2.Pong(seq=frame.ping.seq)))
        elif kind == "pong":
            pong = self._pongs.pop(frame.pong.seq, None)
            if pong and not pong.done():
                pong.set_result(None)
        else:
            if kind == "ack":
                # Frames of the roles may follow ACK at once.
                self._expected = set().union(*FROM_BROKER.values())
            self._frames.put_nowait((frame, body))
        return True

    def _error(self, code, message):
        self.send(Frame(error=error_pb2.Error(code=code, message=message)))


class Broker:
    """Where a broker is, and how to trust it."""

    def __init__(self, address, ca_file, server_name="localhost"):
        host, port = address.rsplit(":", 1)
        self.host, self.port = host.strip("[]"), int(port)
        self.ca_file, self.server_name = ca_file, server_name

    @classmethod
    def from_state_dir(cls, state):
        """Of a `mcp-broker serve --dev --state DIR`."""
        state = pathlib.Path(state)
        return cls((state / "address").read_text().strip(), str(state / "ca.pem"))

    @asynccontextmanager
    async def connect(self, hello):
        """A lane that is open, until the end of the context (2.1, 4.1)."""
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[ALPN],
            idle_timeout=30.0,
            server_name=self.server_name,
            max_stream_data=1024 * 1024,
            max_data=2 * 1024 * 1024,
        )
        configuration.load_verify_locations(cafile=self.ca_file)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        address = found[0][4]
        transport, lane = await loop.create_datagram_endpoint(
            lambda: Lane(QuicConnection(configuration=configuration)), remote_addr=address)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                lane.connect(address, transmit=False)
                await lane.open(hello)
            yield lane
        finally:
            lane.abandon()
            transport.close()


def backoff_s(attempt):
    """100 ms, doubled up to 1 s, with jitter."""
    return min(0.1 * 2**attempt, 1.0) * random.uniform(0.5, 1.0)
