"""Complaints of MongoDB's client as a person reads them."""

from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from services.runtime.mongo_errors import LINE_MAX, at, in_short, without_password

TOPOLOGY = ", Timeout: 5.0s, Topology Description: <TopologyDescription id: 6b, servers: [<ServerDescription …>]>"


def test_timeouts_and_topology_are_left_out() -> None:
    refused = "127.0.0.1:1: [Errno 111] Connection refused"
    timeouts = " (configured timeouts: socketTimeoutMS: 20000.0ms, connectTimeoutMS: 20000.0ms)"
    assert in_short(ServerSelectionTimeoutError(refused + timeouts + TOPOLOGY)) == refused
    nobody = "No replica set members found yet"
    assert in_short(ServerSelectionTimeoutError(nobody + TOPOLOGY)) == nobody


def test_anything_else_is_one_line_of_bounded_length() -> None:
    said = in_short(ValueError("first, with a comma\n  second " + "x" * 500))
    assert said.startswith("first, with a comma second x")
    assert len(said) == LINE_MAX


def test_where_nobody_answers_it_is_said_what_to_do() -> None:
    assert at("mongodb://user:secret@one:1", ServerSelectionTimeoutError("one:1: refused" + TOPOLOGY)) == (
        "MongoDB at mongodb://one:1: one:1: refused: start it, or set CLV_MONGO_URI to where it is"
    )
    assert at("mongodb://one:1", OperationFailure("not authorized")) == "MongoDB at mongodb://one:1: not authorized"


def test_no_password_is_shown() -> None:
    assert (
        without_password("mongodb://user:p%40ss@one:1,two:2/?replicaSet=clv") == "mongodb://one:1,two:2/?replicaSet=clv"
    )
    assert without_password("mongodb://one:1") == "mongodb://one:1"
