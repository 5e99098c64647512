"""A Prefect process worker that looks for runs when the server tells of one, not several times a second.

Start it with `python -m flows.warm.worker`, with Prefect's settings in the environment. It is Prefect's worker
otherwise, which asks every `PREFECT_WORKER_QUERY_SECONDS`, too: no run is missed that the server could not tell of.
"""

import asyncio
import contextlib
import logging
import os

import anyio
import httpx
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessWorker

_POOL = "contract-feedback"
# A run that is due, and one that has ended: another may have waited for its place.
_TELLING = ("Scheduled", "Completed", "Failed", "Crashed", "Cancelled")
_PAUSE_SECONDS = 5  # between the lines in the log while the server is away
_logger = logging.getLogger("prefect.flows.warm.worker")


async def main() -> None:
    """Work until a signal ends it, as `prefect worker start` does."""
    setup_signal_handlers_worker(os.getpid(), "the process worker", _logger.info)
    worker = ProcessWorker(work_pool_name=_POOL)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.start)
        tasks.start_soon(_look_when_told, worker)


async def _look_when_told(worker: ProcessWorker) -> None:
    names = [f"prefect.flow-run.{state}" for state in _TELLING]
    while True:
        try:
            async with get_events_subscriber(EventFilter(event=EventNameFilter(name=names))) as events:
                async for _ in events:
                    with contextlib.suppress(httpx.HTTPError):  # the server is away: the worker's own polling says so
                        await worker.get_and_submit_flow_runs()
        except Exception as error:  # the server may be away for as long as it likes
            _logger.warning("The server does not tell of runs: they are asked for only now and then (%s)", error)
        await anyio.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
