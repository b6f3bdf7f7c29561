"""How fast a client may be: never more than burst + rate × t, and never less than was promised."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.http import rate_limits
from services.runtime.http.rate_limits import NS_PER_SECOND, RateLimiter, RateLimits, address_of, rate
from tests.effort import tries
from tests.unit.runtime.http.application import build, client_of, write_keys

RATES = st.tuples(st.sampled_from([0.1, 0.5, 1.0, 3.0, 7.7, 100.0, 1000.0, 33_333.3]), st.integers(1, 20))
GAPS_NS = st.lists(
    st.one_of(st.just(0), st.integers(0, 1000), st.integers(0, NS_PER_SECOND), st.integers(0, 20 * NS_PER_SECOND)),
    min_size=1,
    max_size=80,
)


class Bucket:
    """The oracle: a token bucket as textbooks have it, in exact fractions."""

    def __init__(self, per_second: Fraction, burst: int) -> None:
        self.per_second, self.burst = per_second, burst
        self.tokens, self.at_ns = Fraction(burst), 0

    def take(self, now_ns: int) -> bool:
        came = self.per_second * (now_ns - self.at_ns) / NS_PER_SECOND
        self.tokens, self.at_ns = min(Fraction(self.burst), self.tokens + came), now_ns
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(RATES, GAPS_NS)
def test_it_decides_as_a_textbook_bucket_does(allowed, gaps_ns: Sequence[int]):
    per_second, burst = allowed
    limits, limiter = rate(per_second, burst), RateLimiter()
    oracle = Bucket(Fraction(NS_PER_SECOND, limits.interval_ns), burst)
    for now_ns in accumulate(gaps_ns):
        verdict = limiter.take("c", limits, now_ns)
        assert (verdict.wait_ns == 0) == oracle.take(now_ns)
        assert verdict.remaining == int(oracle.tokens)


@given(RATES, GAPS_NS)
def test_in_any_stretch_of_time_no_more_pass_than_burst_and_rate_allow(allowed, gaps_ns: Sequence[int]):
    per_second, burst = allowed
    limits, limiter = rate(per_second, burst), RateLimiter()
    passed = [now_ns for now_ns in accumulate(gaps_ns) if limiter.take("c", limits, now_ns).wait_ns == 0]
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            seconds = Fraction(passed[last] - start, NS_PER_SECOND)
            assert last - first + 1 <= burst + Fraction(per_second) * seconds


@pytest.mark.parametrize("per_second", [0.1, 3.0, 7.7, 1000.0, 33_333.3])
def test_who_sends_as_soon_as_it_may_is_not_faster_than_the_rate(per_second: float):
    limits, limiter, now_ns, passed = rate(per_second, 5), RateLimiter(), 0, 0
    for _ in range(2000):
        wait_ns = limiter.take("c", limits, now_ns).wait_ns
        now_ns, passed = now_ns + wait_ns, passed + (wait_ns == 0)
        earned = 5 + Fraction(per_second) * Fraction(now_ns, NS_PER_SECOND)
        assert passed <= earned
    assert earned <= passed + 2, "nor is it much slower"


@given(RATES, GAPS_NS)
def test_who_waits_as_long_as_is_said_passes_and_who_waits_less_does_not(allowed, gaps_ns: Sequence[int]):
    limits, limiter = rate(*allowed), RateLimiter()
    now_ns = 0
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        verdict = limiter.take("c", limits, now_ns)
        if verdict.wait_ns:
            assert limiter.take("c", limits, now_ns + verdict.wait_ns - 1).wait_ns == 1
            now_ns += verdict.wait_ns
            assert limiter.take("c", limits, now_ns).wait_ns == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, NS_PER_SECOND // 2)), max_size=200), st.integers(1, 10))
@settings(max_examples=tries(50))
def test_however_many_clients_come_only_so_many_are_held_and_each_keeps_its_bound(sent, clients_max: int):
    per_second, burst = 1.0, 2
    limits, limiter = rate(per_second, burst), RateLimiter(clients_max)
    passed: dict[int, list[int]] = defaultdict(list)
    now_ns = 0
    for client, gap_ns in sent:
        now_ns += gap_ns
        if limiter.take(client, limits, now_ns).wait_ns == 0:
            passed[client].append(now_ns)
        assert len(limiter) <= clients_max + 1  # and the bucket that the others share
    for times in passed.values():
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                # a client may have passed by the shared bucket before it got one of its own
                assert last - first + 1 <= 2 * (burst + per_second * (times[last] - start) / NS_PER_SECOND)


def test_clients_that_are_new_when_there_are_too_many_share_one_bucket_until_there_is_room():
    limits, limiter = rate(1.0, 1), RateLimiter(clients_max=2)
    assert [limiter.take(client, limits, 0).wait_ns == 0 for client in ("a", "b", "c", "d")] == [
        True,
        True,
        True,
        False,
    ]
    assert limiter.take("d", limits, 5 * NS_PER_SECOND).wait_ns == 0
    assert limiter.take("e", limits, 5 * NS_PER_SECOND).wait_ns == 0
    assert len(limiter) == 2


def test_any_number_of_addresses_leaves_a_bounded_table():
    limits, limiter = rate(0.001, 1), RateLimiter(clients_max=1000)
    for number in range(200_000):
        limiter.take(number, limits, number * 1000)
    assert len(limiter) <= 1001


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_address_is_what_one_holder_has(one: str, other: str, same: bool):
    found = [address_of({"client": (each, 1)}) for each in (one, other)]
    assert (found[0] == found[1]) is same


async def test_above_the_rate_the_answer_is_429_with_the_time_to_wait():
    app = build(http_requests_per_second=0.01, http_burst=3)
    async with client_of(app) as client, client_of(app, "192.0.2.2") as other:
        answers = [await client.get("/v1/nested/1") for _ in range(4)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        assert [each.headers["ratelimit-remaining"] for each in answers] == ["2", "1", "0", "0"]
        assert {each.headers["ratelimit-limit"] for each in answers} == {"3"}
        assert 290 <= int(answers[2].headers["ratelimit-reset"]) <= 300
        assert 90 <= int(answers[3].headers["retry-after"]) <= 100
        assert answers[3].json()["status"] == 429
        assert "0.01 requests per second" in answers[3].json()["detail"]
        assert (await other.get("/v1/nested/1")).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path


async def test_each_key_has_its_own_rate_whatever_address_it_comes_from(tmp_path: Path):
    slow, other = write_keys(
        tmp_path / "keys", {"requests_per_second": 0.01}, {"requests_per_second": None, "id": "other"}
    )
    app = build(tmp_path / "keys", http_requests_per_second=0.05, http_burst=10)
    passed = {slow: 0, other: 0}
    for number in range(20):
        async with client_of(app, f"192.0.2.{number}") as client:
            for key in (slow, other):
                answer = await client.get("/v1/nested/1", headers={"x-api-key": key})
                passed[key] += answer.status_code == 200
    assert passed == {slow: 2, other: 10}  # a key's own rate has a burst in the same proportion


async def test_guessing_keys_is_bounded_by_address(tmp_path: Path):
    (key,) = write_keys(tmp_path / "keys", {})
    app = build(tmp_path / "keys", http_requests_per_second=0.01, http_burst=5)
    async with client_of(app) as client:
        found = [(await client.get("/v1/nested/1", headers={"x-api-key": f"clv_{n}"})).status_code for n in range(10)]
        assert found == [401] * 5 + [429] * 5
        assert (await client.get("/v1/nested/1", headers={"x-api-key": key})).status_code == 200


async def test_a_rate_of_0_is_no_limit():
    app = build(http_requests_per_second=0, http_burst=1)
    async with client_of(app) as client:
        answers = [await client.get("/v1/nested/1") for _ in range(20)]
    assert {each.status_code for each in answers} == {200}
    assert "ratelimit-limit" not in answers[0].headers


async def test_x_forwarded_for_counts_from_trusted_proxies_alone():
    strict = {"http_requests_per_second": 0.01, "http_burst": 1}
    for trusted, wanted in [((), [200, 429]), (("192.0.2.0/24",), [200, 200]), (("198.51.100.1",), [200, 429])]:
        app = build(http_trusted_proxies=trusted, **strict)
        async with client_of(app) as proxy:
            found = [
                (await proxy.get("/v1/nested/1", headers={"x-forwarded-for": client})).status_code
                for client in ("203.0.113.1", "203.0.113.2")
            ]
        assert found == wanted, trusted


def test_the_middleware_holds_a_bounded_number_of_clients():
    assert RateLimits(None, 1.0, 1)._limiter._clients_max == rate_limits.CLIENTS_MAX  # type: ignore[arg-type]
