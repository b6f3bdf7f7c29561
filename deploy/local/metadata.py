"""Asks a Kafka broker who is in its cluster: the proof that it serves, which an open port is not.

Speaks the one request by hand, so that it can be asked every few milliseconds from any thread, with or without an event
loop, without a client's retries and log lines. Must never raise for a server that is not there yet.
"""

import secrets
import socket
import struct
from dataclasses import dataclass

# Metadata request, version 4, with no topics asked for: https://kafka.apache.org/protocol#The_Messages_Metadata
_API_KEY, _API_VERSION = 3, 4
_ANSWER_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class ClusterView:
    """What a broker says of its cluster: its id, ids of the brokers that serve, and of the controller (-1: unknown)."""

    cluster_id: str | None
    broker_ids: frozenset[int]
    controller_id: int


def cluster_view(host: str, port: int, timeout_s: float = 2.0) -> ClusterView | None:
    """The broker's answer, or None if there is none within `timeout_s`, or not one of a Kafka broker."""
    correlation = secrets.randbits(31)
    client = b"clv"
    header = struct.pack(">hhih", _API_KEY, _API_VERSION, correlation, len(client)) + client
    body = struct.pack(">i?", 0, False)  # no topics; create none
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
            (size,) = struct.unpack(">i", _exactly(connection, 4))
            if not 0 < size <= _ANSWER_BYTES_MAX:
                return None
            return _decode(_exactly(connection, size), correlation)
    except (OSError, struct.error, EOFError, ValueError):
        return None


def _exactly(connection: socket.socket, count: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < count:
        chunk = connection.recv(count - len(chunks))
        if not chunk:
            raise EOFError
        chunks += chunk
    return bytes(chunks)


def _decode(answer: bytes, correlation: int) -> ClusterView:
    """Correlation id, throttle time, brokers (id, host, port, rack), cluster id, controller id."""
    got, _throttle, count = struct.unpack_from(">iii", answer, 0)
    if got != correlation:
        raise ValueError("an answer to another question")
    at, ids = 12, set()
    for _ in range(count):
        ids.add(struct.unpack_from(">i", answer, at)[0])
        at = _after_string(answer, at + 4) + 4  # host, port
        at = _after_string(answer, at)  # rack
    name_at, at = at + 2, _after_string(answer, at)
    cluster_id = None if struct.unpack_from(">h", answer, name_at - 2)[0] < 0 else answer[name_at:at].decode()
    return ClusterView(cluster_id, frozenset(ids), struct.unpack_from(">i", answer, at)[0])


def _after_string(answer: bytes, at: int) -> int:
    length: int = struct.unpack_from(">h", answer, at)[0]  # -1: null
    return at + 2 + max(length, 0)
