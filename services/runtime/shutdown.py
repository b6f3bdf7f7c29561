"""Running a service until SIGTERM or SIGINT, with a clean end within ten seconds and one line when it cannot run."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.runtime.logs import logger

GRACE_SECONDS = 9.0
log = logger(__name__)


class KnownProblem(Exception):
    """Something the operator can mend: the message says what and how. Logged as one line, without a traceback."""


def run_service(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main(stop)` to its end. SIGTERM and SIGINT set `stop`; main then has GRACE_SECONDS to finish.

    Exits 0 after a clean end, 1 after an error (one line on standard error), 2 when main did not finish in time:
    nothing is lost by that, since offsets are committed only after their effects.
    """
    try:
        asyncio.run(_run(main))
    except KnownProblem as problem:
        log.error("cannot_run", problem=str(problem))
        sys.exit(1)


async def _run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    work = asyncio.ensure_future(main(stop))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        log.info("stopping")
        await asyncio.wait({work}, timeout=GRACE_SECONDS)
    stopped.cancel()
    if not work.done():
        log.error("stopped_hard", problem=f"work did not end within {GRACE_SECONDS} s")
        os._exit(2)
    work.result()
    log.info("stopped")


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Do the work, and True; or give it up when `stop` is set, and False. What it raises is raised."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait({working})
    return False
