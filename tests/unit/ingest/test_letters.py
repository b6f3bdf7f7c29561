"""Dead letters keep what they can."""

from schemas.dead_letters import Origin, Reason, to_headers
from services.ingest.letters import dead_letter
from services.ingest.rejection import Rejection
from services.runtime.dead_letter import HEADER_TRUNCATED_FROM

REJECTION = Rejection(Reason.INVALID_JSON, "no")
ORIGIN = Origin("t", 1, 2)


def test_a_letter_that_fits_is_the_message_byte_for_byte():
    headers = [("h", b"\xff"), ("null", None)]
    letter = dead_letter(REJECTION, ORIGIN, 5, key=b"\x00", value=b"\xff" * 91_000, headers=headers, bytes_max=100_000)
    assert (letter.key, letter.value, letter.original_headers) == (b"\x00", b"\xff" * 91_000, headers)


def test_a_value_that_does_not_fit_is_cut_and_says_so():
    value = b"v" * 200_000
    letter = dead_letter(REJECTION, ORIGIN, 5, key=b"k", value=value, headers=[("h", b"1")], bytes_max=100_000)
    assert value.startswith(letter.value)
    assert len(letter.value) > 90_000
    assert letter.key == b"k"
    assert letter.original_headers == [("h", b"1"), (HEADER_TRUNCATED_FROM, b"200000")]
    size = len(letter.value) + sum(len(name) + len(value) for name, value in to_headers(letter))
    assert size < 100_000


def test_keys_and_headers_beyond_reason_are_left_out():
    letter = dead_letter(
        REJECTION, ORIGIN, 5, key=b"k" * 90_000, value=b"v" * 20_000, headers=[("h", b"1" * 90_000)], bytes_max=100_000
    )
    assert letter.key is None
    assert letter.value == b"v" * 20_000
    assert letter.original_headers == [(HEADER_TRUNCATED_FROM, b"20000")]
