"""The fan-out: each listener gets its segment, a slow one loses its oldest and is told how many, nobody waits."""

import asyncio

from services.api.live.fanout import Batch, Event, Fanout


def event(number: int) -> Event:
    return Event(f"0-{number}", str(number))


async def test_each_listener_gets_what_it_asked_for_in_order() -> None:
    fanout = Fanout(10, 10)
    everything, some = fanout.listen(None), fanout.listen("at_risk")
    for number in range(4):
        fanout.publish("at_risk" if number % 2 else "high_value", lambda number=number: event(number))
    assert await everything.take() == Batch(0, [event(number) for number in range(4)])
    assert await some.take() == Batch(0, [event(1), event(3)])


async def test_a_slow_listener_loses_its_oldest_and_is_told_how_many() -> None:
    fanout = Fanout(10, 3)
    slow, fast = fanout.listen(None), fanout.listen(None)
    for number in range(10):
        fanout.publish("at_risk", lambda number=number: event(number))
        assert await fast.take() == Batch(0, [event(number)])
    assert await slow.take() == Batch(7, [event(7), event(8), event(9)])
    fanout.publish("at_risk", lambda: event(10))
    assert await slow.take() == Batch(0, [event(10)])


async def test_an_event_is_made_once_and_only_if_somebody_listens() -> None:
    fanout, made = Fanout(10, 3), []

    def make() -> Event:
        made.append(1)
        return event(0)

    fanout.publish("at_risk", make)
    listeners = [fanout.listen("at_risk") for _ in range(3)]
    fanout.publish("high_value", make)
    assert not made
    fanout.publish("at_risk", make)
    assert len(made) == 1
    for listener in listeners:
        fanout.leave(listener)
    assert len(fanout) == 0
    fanout.publish("at_risk", make)
    assert len(made) == 1


async def test_who_waits_is_woken_and_ended() -> None:
    fanout = Fanout(2, 3)
    first = fanout.listen(None)
    assert not fanout.full
    second = fanout.listen(None)
    assert fanout.full
    waiting = asyncio.ensure_future(first.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    fanout.close()
    assert await waiting is None
    assert await second.take() is None
    assert await fanout.listen(None).take() is None
