"""Questions that arrive together become one call: who is put together, who gets what, and who waits for whom."""

import asyncio

import pytest

from services.api.forms.batching import MicroBatcher


def doubling(calls: list[list[int]]):
    def answer(questions: list[int]) -> list[int | Exception]:
        calls.append(questions)
        return [ValueError(f"{each} is odd") if each % 2 else 2 * each for each in questions]

    return answer


async def test_a_lone_question_is_a_call_of_its_own_and_waits_for_nobody():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 8, 0.0)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    assert await batcher.ask(2) == 4
    counting.cancel()
    assert calls == [[2]]
    assert turns <= 3  # turns of the event loop: no timer, no pause


async def test_what_comes_soon_after_a_call_is_gathered_and_what_comes_after_a_pause_is_not():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 8, 0.1)
    loop = asyncio.get_running_loop()
    await batcher.ask(0)
    answered_at = loop.time()
    asked = []
    for each in (2, 4, 6):
        asked.append(asyncio.ensure_future(batcher.ask(each)))
        await asyncio.sleep(0.005)
    assert await asyncio.gather(*asked) == [4, 8, 12]
    assert calls == [[0], [2, 4, 6]]
    assert loop.time() - answered_at >= 0.09
    await asyncio.sleep(0.15)
    began = loop.time()
    await batcher.ask(8)
    assert loop.time() - began < 0.09
    assert calls[2:] == [[8]]


async def test_a_full_call_is_not_waited_with():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 3, 60.0)
    await batcher.ask(0)
    assert await asyncio.wait_for(asyncio.gather(*(batcher.ask(each) for each in (2, 4, 6))), 5) == [4, 8, 12]
    assert calls == [[0], [2, 4, 6]]


async def test_questions_that_arrive_together_are_one_call_each_with_its_own_answer():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 100, 0.0)
    found = await asyncio.gather(*(batcher.ask(each) for each in range(0, 20, 2)))
    assert found == list(range(0, 40, 4))
    assert calls == [list(range(0, 20, 2))]


async def test_no_call_has_more_questions_than_it_may_and_none_is_left_out():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 3, 0.0)
    assert await asyncio.gather(*(batcher.ask(2 * each) for each in range(8))) == [4 * each for each in range(8)]
    assert [len(each) for each in calls] == [3, 3, 2]


async def test_what_comes_during_the_answers_gathers_for_the_next_call():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 8, 0.0)

    async def twice(first: int) -> int:
        return await batcher.ask(await batcher.ask(first))

    assert await asyncio.gather(twice(2), twice(4)) == [8, 16]
    assert calls == [[2, 4], [4, 8]]


async def test_a_question_that_cannot_be_answered_is_raised_to_its_asker_alone():
    batcher = MicroBatcher(doubling([]), 8, 0.0)
    found = await asyncio.gather(*(batcher.ask(each) for each in (2, 3, 4)), return_exceptions=True)
    assert [found[0], found[2]] == [4, 8]
    assert isinstance(found[1], ValueError)


async def test_a_call_that_fails_is_raised_to_all_who_asked_and_the_next_one_works():
    failing = True

    def answer(questions: list[int]) -> list[int]:
        if failing:
            raise RuntimeError("no model")
        return questions

    batcher = MicroBatcher(answer, 8, 0.0)
    found = await asyncio.gather(batcher.ask(1), batcher.ask(2), return_exceptions=True)
    assert [str(each) for each in found] == ["no model"] * 2
    failing = False
    assert await batcher.ask(3) == 3


async def test_whose_client_has_gone_is_not_asked_for_and_disturbs_nobody():
    calls: list[list[int]] = []
    batcher = MicroBatcher(doubling(calls), 8, 0.0)
    gone, there = asyncio.ensure_future(batcher.ask(2)), asyncio.ensure_future(batcher.ask(4))
    await asyncio.sleep(0)
    gone.cancel()
    assert await there == 8
    assert calls in ([[4]], [[2, 4]])
    with pytest.raises(asyncio.CancelledError):
        await gone
