"""Serving the application with uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than a rater looks at a pair."""


def serve(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: to serve.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        ready: called with the address once connections are accepted.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error}") from error
    with listener:
        address, number = listener.getsockname()[:2]
        name = f"[{address}]" if family == socket.AF_INET6 else address
        ready(f"http://{name}:{number}/")
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=2, timeout_keep_alive=KEEP_ALIVE
        )
        uvicorn.Server(config).run(sockets=[listener])
