import asyncio
import socket
from contextlib import ExitStack

import pytest

from cli.installation import LOOPBACK, reserve_port


def test_reserved_port_is_given_to_nobody_who_asks_for_any() -> None:
    with ExitStack() as opened:
        reserved = [opened.enter_context(reserve_port(LOOPBACK, 0)) for _ in range(20)]
        ports = {each.getsockname()[1] for each in reserved}
        assert len(ports) == 20
        listener = opened.enter_context(socket.create_server((LOOPBACK, 0), backlog=2000))
        for _ in range(2000):
            with reserve_port(LOOPBACK, 0) as another, socket.create_connection(listener.getsockname()) as outgoing:
                assert not {another.getsockname()[1], outgoing.getsockname()[1]} & ports


def test_server_listens_on_a_reserved_port_and_again_after_it_was_closed() -> None:
    async def listen(port: int) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, port)
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()

    with reserve_port(LOOPBACK, 0) as reserved:
        for _ in range(2):
            asyncio.run(listen(reserved.getsockname()[1]))


def test_port_that_something_listens_on_is_refused() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"Port {port} of 127.0.0.1 is not available: stop the process"):
            reserve_port(LOOPBACK, port)
