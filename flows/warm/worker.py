"""A Prefect process worker that polls for runs when the server reports an event, not several times a second.

Start it with `python -m flows.warm.worker`, with Prefect's settings in the environment. It also polls every
`PREFECT_WORKER_QUERY_SECONDS`: a run whose event is lost starts then. It outlives an outage of the server.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from abc import ABC
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
from anyio import to_thread
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import get_current_settings
from prefect.states import Crashed
from prefect.utilities.processutils import command_from_string, command_to_string
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from feedback.time_limits import TimeLimits
from flows.warm.client import STATUS_VARIABLE
from flows.warm.heartbeat import set_heartbeat_interval
from registry.database import build_engine, check_schema, translate_database_errors
from registry.errors import ContractFeedbackError
from registry.logs import configure_logging
from registry.settings import get_settings

# A scheduled run may be due; a run that ends frees the concurrency slot that another waits for.
_STATES_TO_POLL_AFTER = ("Scheduled", "Completed", "Failed", "Crashed", "Cancelled")
_RECONNECT_SECONDS = 5
_REPORT_SECONDS = 5
_logger = logging.getLogger("prefect.flows.warm.worker")


class RunConfiguration(ProcessJobConfiguration):
    """How a run starts: `python3` in its command is the interpreter of this process, whatever PATH says."""

    def prepare_for_flow_run(self, *arguments: Any, **named: Any) -> None:
        """Replace the interpreter in the command that Prefect has prepared."""
        super().prepare_for_flow_run(*arguments, **named)
        program, *rest = command_from_string(self.command or "")
        if program == "python3":
            self.command = command_to_string([sys.executable, *rest])


class Worker(ProcessWorker, ABC):  # Prefect would register a subclass without ABC in place of its own worker
    """Prefect's worker, which takes no run while the database has another release's schema, or does not answer.

    After each poll it writes why it takes none, or nothing, to the file that `CONTRACT_FEEDBACK_WORKER_STATUS` names.
    """

    job_configuration = RunConfiguration

    def __init__(self) -> None:
        super().__init__(work_pool_name=get_settings().work_pool, name=f"{socket.gethostname()} {os.getpid()}")
        self.under_way: set[UUID] = set()
        self._engine, self._problem = build_engine(get_settings()), ""

    async def run(self, flow_run: FlowRun, *arguments: Any, **named: Any) -> ProcessWorkerResult:
        """Run a flow run until it ends."""
        self.under_way.add(flow_run.id)
        try:
            return await super().run(flow_run, *arguments, **named)
        finally:
            self.under_way.discard(flow_run.id)

    async def poll(self) -> None:
        """Start the runs that are due."""
        try:
            await to_thread.run_sync(self._check_database)
            await self.get_and_submit_flow_runs()
        except (httpx.HTTPError, ContractFeedbackError) as error:
            self._report(
                str(error) if isinstance(error, ContractFeedbackError) else f"Prefect does not answer: {error!r}"
            )
        else:
            self._report("")

    async def synchronize(self) -> None:
        """Send a heartbeat and read the work pool."""
        try:
            await self.sync_with_backend()
        except httpx.HTTPError as error:
            _logger.warning("No heartbeat of the worker reaches Prefect: %r", error)

    def _check_database(self) -> None:
        with translate_database_errors(), self._engine.connect() as connection:
            check_schema(connection)

    def _report(self, problem: str) -> None:
        if problem and problem != self._problem:
            _logger.warning("No run is taken: %s", problem)
        self._problem = problem
        if status := os.environ.get(STATUS_VARIABLE):
            Path(status).write_text(problem)


async def main() -> None:
    """Work until SIGTERM or SIGINT; then take no new run, and return when those under way have ended.

    A second signal, or the time limit, ends the process at once; the runs under way are crashed, to be launched again.
    """
    configure_logging()
    set_heartbeat_interval()
    worker, signals = Worker(), asyncio.Queue[int]()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    async with worker:
        _logger.info("Worker %r takes runs of the work pool %s", worker.name, get_settings().work_pool)
        async with anyio.create_task_group() as loops:
            loops.start_soon(_repeat, worker.poll, get_current_settings().worker.query_seconds)
            loops.start_soon(_repeat, worker.synchronize, worker.heartbeat_interval_seconds)
            loops.start_soon(_poll_after_events, worker)
            await signals.get()
            loops.cancel_scope.cancel()
        _logger.info("No more runs are taken; %d are under way", len(worker.under_way))
        last_minutes = asyncio.create_task(_end_at_once(worker, signals))
    last_minutes.cancel()


async def _repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    while True:
        await work()
        await anyio.sleep(seconds)


async def _poll_after_events(worker: Worker) -> None:
    names = [f"prefect.flow-run.{state}" for state in _STATES_TO_POLL_AFTER]
    while True:
        try:
            of_runs = EventFilter(event=EventNameFilter(name=names))
            async with get_events_subscriber(of_runs, reconnection_attempts=0) as events:
                await worker.poll()  # for the events that were lost while the server was away
                async for _ in events:
                    await worker.poll()
        except Exception as error:  # whatever it is, the worker must outlive an outage of the server
            _logger.warning("No events from the server: runs start only when the worker polls (%s)", error)
        await anyio.sleep(_RECONNECT_SECONDS)


async def _end_at_once(worker: Worker, signals: asyncio.Queue[int]) -> None:
    """Wait for the time limit or a signal, report the runs under way as crashed, and end this process with them."""
    with anyio.move_on_after(TimeLimits().drain_seconds):
        await signals.get()
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    with anyio.move_on_after(_REPORT_SECONDS):
        async with get_client() as prefect:
            for run_id in worker.under_way:
                crashed: State[None] = Crashed(message="The worker was stopped while this run was under way")
                await prefect.set_flow_run_state(run_id, crashed)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
