import asyncio
import threading
import time

from api.inquiry import Inquiry, Reply
from registry.errors import UnavailableError


class Question:
    """Counts how often it is asked, and hangs until it is released."""

    def __init__(self) -> None:
        self.asked, self.is_released = 0, threading.Event()

    def __call__(self) -> int:
        self.asked += 1
        self.is_released.wait(20)
        return self.asked


def test_question_that_many_ask_is_asked_once_until_its_reply_is_old() -> None:
    question = Question()
    question.is_released.set()

    async def ask_often() -> list[Reply[int]]:
        inquiry = Inquiry("It", question, kept_seconds=0.3)
        at_once = await asyncio.gather(*(inquiry.ask() for _ in range(50)))
        await asyncio.sleep(0.4)
        return [*at_once, await inquiry.ask()]

    assert asyncio.run(ask_often()) == [Reply(1)] * 50 + [Reply(2)]


def test_question_that_hangs_is_asked_once_and_holds_nobody_up_longer_than_its_patience() -> None:
    question = Question()

    async def ask_while_it_hangs() -> tuple[list[str | None], float, float, Reply[int]]:
        inquiry, started = Inquiry("It", question, kept_seconds=0), time.monotonic()
        hanging = await asyncio.gather(*(inquiry.ask() for _ in range(50)))
        first = time.monotonic() - started
        hanging.append(await inquiry.ask())
        later = time.monotonic() - started - first
        question.is_released.set()
        await asyncio.sleep(0.3)
        return [reply.problem for reply in hanging], first, later, await inquiry.ask()

    problems, first, later, reply = asyncio.run(ask_while_it_hangs())
    assert {problem and problem.split(";")[0] for problem in problems} == {"It does not answer"}
    assert (2.9 < first < 4, later < 0.5) == (True, True)
    assert (reply, question.asked) == (Reply(2), 2)


def test_error_is_replied_and_no_exception_is_raised_twice() -> None:
    def fail() -> None:
        raise UnavailableError("It is away")

    def have_a_bug() -> None:
        raise ValueError("a text that nobody may see")

    async def ask() -> list[str | None]:
        inquiries = [Inquiry("It", each, kept_seconds=5) for each in (fail, have_a_bug)]
        return [(await inquiry.ask()).problem for inquiry in inquiries]

    assert asyncio.run(ask()) == ["It is away", "It: ValueError; the log of the API has the trace"]
