"""The hand-written metadata question and answer, against aiokafka's codec and against servers that are not Kafka."""

import io
import socket
import struct
import threading
from collections.abc import Callable

from aiokafka.protocol.metadata import MetadataRequest_v4, MetadataResponse_v4
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.folders import free_ports
from deploy.local.metadata import ClusterView, _decode, cluster_view

INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(max_size=30)


@given(
    st.lists(st.tuples(INT32, TEXT, INT32, st.none() | TEXT), max_size=5),
    st.none() | TEXT,
    INT32,
    st.integers(0, 2**31 - 1),
)
def test_what_another_implementation_encodes_is_understood(brokers, cluster_id, controller, correlation) -> None:
    answer = struct.pack(">i", correlation) + MetadataResponse_v4(0, brokers, cluster_id, controller, []).encode()
    assert _decode(answer, correlation) == ClusterView(cluster_id, frozenset(each[0] for each in brokers), controller)


def served_by(answer: Callable[[bytes], bytes]) -> tuple[ClusterView | None, bytes]:
    """What `cluster_view` makes of a server that gives this answer to the question, and the question."""
    asked = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.extend(connection.recv(4096))
                connection.sendall(answer(bytes(asked)))

        thread = threading.Thread(target=serve)
        thread.start()
        view = cluster_view("127.0.0.1", server.getsockname()[1], timeout_s=0.5)
        thread.join()
    return view, bytes(asked)


def test_the_question_is_one_that_another_implementation_understands() -> None:
    def answer(question: bytes) -> bytes:
        body = question[8:12] + MetadataResponse_v4(0, [(1, "a", 2, None)], "id", 1, []).encode()
        return struct.pack(">i", len(body)) + body

    view, question = served_by(answer)
    assert view == ClusterView("id", frozenset({1}), 1)
    size, key, version, _, client_length = struct.unpack_from(">ihhih", question)
    assert (size, key, version) == (len(question) - 4, MetadataRequest_v4.API_KEY, MetadataRequest_v4.API_VERSION)
    body = MetadataRequest_v4.SCHEMA.decode(io.BytesIO(question[14 + client_length :]))
    assert body == ([], False)  # nothing asked for, nothing created


def test_servers_that_are_not_kafka_give_nothing() -> None:
    answers = [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x04", b"\xff\xff\xff\xff", b"\0\0\0\x04\0\0\0\0"]
    assert [served_by(lambda _, each=each: each)[0] for each in answers] == [None] * len(answers)


def test_an_answer_to_another_question_is_not_taken() -> None:
    body = struct.pack(">i", -5) + MetadataResponse_v4(0, [(1, "a", 2, None)], "id", 1, []).encode()
    assert served_by(lambda _: struct.pack(">i", len(body)) + body)[0] is None


def test_a_port_where_nobody_listens_gives_nothing() -> None:
    assert cluster_view("127.0.0.1", free_ports(1)[0]) is None
