"""Puts questions that arrive together into one call, because one call for eight costs little more than for one.

Who asks while it is quiet waits for nobody. A question that comes soon after a call waits until a few milliseconds have
passed since then, with whatever else comes meanwhile: without that, calls would be small until there is no time left.
Must never let one question's answer depend on the others: that is promised by whoever answers.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class MicroBatcher(Generic[Question, Reply]):
    """Gathers the questions of one event loop. `answer` runs in the loop: it must take milliseconds."""

    def __init__(
        self,
        answer: Callable[[list[Question]], Sequence[Reply | Exception]],
        questions_max: int,
        pause_seconds: float,
    ) -> None:
        """answer: one reply a question, in order; an exception among them is raised to its asker alone. What it raises
        itself is raised to all. questions_max: most in one call, which bounds how long the loop stands still.
        pause_seconds: least time from the end of a call to the next, unless so many questions wait.
        """
        self._answer, self._questions_max, self._pause_seconds = answer, questions_max, pause_seconds
        self._next_call_at = 0.0
        self._planned: asyncio.Handle | None = None
        self._waiting: list[tuple[Question, asyncio.Future[Reply]]] = []

    async def ask(self, question: Question) -> Reply:
        """The reply to one question."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((question, future))
        if self._planned is None:
            wait_seconds = self._next_call_at - loop.time()
            self._planned = (
                loop.call_later(wait_seconds, self._call) if wait_seconds > 0 else loop.call_soon(self._call)
            )
        elif len(self._waiting) == self._questions_max:
            self._planned.cancel()
            self._planned = loop.call_soon(self._call)
        return await future

    def _call(self) -> None:
        loop = asyncio.get_running_loop()
        asked, self._waiting = self._waiting[: self._questions_max], self._waiting[self._questions_max :]
        self._planned = loop.call_soon(self._call) if self._waiting else None
        asked = [each for each in asked if not each[1].done()]  # whose client has gone needs no answer
        if asked:
            self._reply(asked)
            self._next_call_at = loop.time() + self._pause_seconds

    def _reply(self, asked: list[tuple[Question, "asyncio.Future[Reply]"]]) -> None:
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
