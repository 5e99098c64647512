"""A Prefect process worker that polls for runs when the server reports an event, not several times a second.

Start it with `python -m flows.warm.worker`, with Prefect's settings in the environment. Otherwise it is Prefect's own
worker, which also polls every `PREFECT_WORKER_QUERY_SECONDS`: a run whose event is lost starts then.
"""

import asyncio
import contextlib
import logging
import os
from functools import partial

import anyio
import httpx
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessWorker

from flows.warm.heartbeat import set_heartbeat_interval
from registry.logs import configure_logging
from registry.settings import get_settings

# A scheduled run may be due; a run that ends frees the concurrency slot that another waits for.
_STATES_TO_POLL_AFTER = ("Scheduled", "Completed", "Failed", "Crashed", "Cancelled")
_RECONNECT_SECONDS = 5
_logger = logging.getLogger("prefect.flows.warm.worker")


async def main() -> None:
    """Work until a signal ends the process, as `prefect worker start` does."""
    configure_logging()
    set_heartbeat_interval()
    setup_signal_handlers_worker(os.getpid(), "the process worker", _logger.info)
    worker = ProcessWorker(work_pool_name=get_settings().work_pool)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(worker.start, printer=_logger.info))
        tasks.start_soon(_poll_after_events, worker)


async def _poll_after_events(worker: ProcessWorker) -> None:
    names = [f"prefect.flow-run.{state}" for state in _STATES_TO_POLL_AFTER]
    while True:
        try:
            of_runs = EventFilter(event=EventNameFilter(name=names))
            async with get_events_subscriber(of_runs, reconnection_attempts=0) as events:
                await _poll(worker)  # for the events that were lost while the server was away
                async for _ in events:
                    await _poll(worker)
        except Exception as error:  # whatever it is, the worker must outlive an outage of the server
            _logger.warning("No events from the server: runs start only when the worker polls (%s)", error)
        await anyio.sleep(_RECONNECT_SECONDS)


async def _poll(worker: ProcessWorker) -> None:
    with contextlib.suppress(httpx.HTTPError):  # the worker's own polling reports it
        await worker.get_and_submit_flow_runs()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
