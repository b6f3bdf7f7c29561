"""Puts questions that arrive together into one call, because one call for eight costs little more than for one.

Nobody waits for company: what has arrived when the event loop comes round is answered at once, and what arrives during
a call gathers for the next. So a lone question is a call of one, and under load calls grow by themselves. Must never
let one question's answer depend on the others: that is promised by whoever answers.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class MicroBatcher(Generic[Question, Reply]):
    """Gathers the questions of one event loop. `answer` runs in the loop: it must take milliseconds."""

    def __init__(self, answer: Callable[[list[Question]], Sequence[Reply | Exception]], questions_max: int) -> None:
        """answer: one reply a question, in order; an exception among them is raised to its asker alone. What it raises
        itself is raised to all. questions_max: most in one call, which bounds how long the loop stands still."""
        self._answer, self._questions_max = answer, questions_max
        self._waiting: list[tuple[Question, asyncio.Future[Reply]]] = []

    async def ask(self, question: Question) -> Reply:
        """The reply to one question."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._call)
        self._waiting.append((question, future))
        return await future

    def _call(self) -> None:
        asked, self._waiting = self._waiting[: self._questions_max], self._waiting[self._questions_max :]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._call)
        asked = [each for each in asked if not each[1].done()]  # whose client has gone needs no answer
        if not asked:
            return
        try:
            replies = self._answer([question for question, _ in asked])
            assert len(replies) == len(asked)
        except Exception as error:  # noqa: BLE001 (raised to whoever asked)
            for _, future in asked:
                future.set_exception(error)
            return
        for (_, future), reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
