"""Prefect's server behind the guard against foreign pages: Prefect itself answers any origin and any host.

python -m cli.prefect_server --host 127.0.0.1 --port 4200
"""

import argparse

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from api.loopback import LoopbackGuard
from registry.settings import get_settings


def main() -> None:
    """Run the server until it is terminated, as `prefect server start` does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server = get_current_settings().server
    uvicorn.run(
        LoopbackGuard(create_app(final=True), get_settings().allowed_hosts),
        host=arguments.host,
        port=arguments.port,
        timeout_keep_alive=server.api.keepalive_timeout,
        log_level=server.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
