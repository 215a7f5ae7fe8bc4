"""A WebSocket client of the standard library alone, for scripts that look at a server from outside."""
import base64
import hashlib
import os
import socket
import struct

# RFC 6455 section 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Client:
    """A session that is open; over TLS with a context of the module ssl, for localhost."""

    def __init__(self, port, path, seconds=120, tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.settimeout(seconds)
        self.inbox = b""
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key
            + b"\r\n\r\n")
        while b"\r\n\r\n" not in self.inbox:
            self._receive()
        head, self.inbox = self.inbox.split(b"\r\n\r\n", 1)
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        if not head.startswith(b"HTTP/1.1 101 ") or accept not in head:
            raise AssertionError(f"no upgrade: {head!r}")

    def _receive(self):
        received = self.socket.recv(1 << 16)
        if not received:
            raise EOFError("the server hung up")
        self.inbox += received

    def _take(self, length):
        while len(self.inbox) < length:
            self._receive()
        taken, self.inbox = self.inbox[:length], self.inbox[length:]
        return taken

    def send(self, opcode, payload):
        """Sends one masked frame."""
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0xFE, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, length)
        mask = os.urandom(4)
        pad = (mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")
        self.socket.sendall(head + mask + masked)

    def frame(self):
        """The next frame: opcode and payload."""
        first, second = self._take(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 15, self._take(length)

    def answer(self):
        """The next frame behind pings, which are answered: on a busy machine some come in between."""
        while True:
            opcode, payload = self.frame()
            if opcode != PING:
                return opcode, payload
            self.send(PONG, payload)

    def close(self):
        """The closing handshake."""
        self.send(CLOSE, struct.pack("!H", 1000))
        opcode, payload = self.answer()
        if opcode != CLOSE or payload[:2] != struct.pack("!H", 1000):
            raise AssertionError(f"no Close: {opcode} {payload!r}")


def echo(port, path="/echo", tls=None):
    """Messages of all kinds of length come back as they were."""
    client = Client(port, path, tls=tls)
    for length in (0, 1, 125, 126, 127, 4096, 65535, 65536, 300_000):
        payload = os.urandom(length)
        client.send(BINARY, payload)
        if client.answer() != (BINARY, payload):
            raise AssertionError(f"{length} bytes came back changed")
    client.send(TEXT, "grüß".encode())
    if client.answer() != (TEXT, "grüß".encode()):
        raise AssertionError("text came back changed")
    client.close()
