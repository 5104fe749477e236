"""The web application: sampling page, studies and security middleware."""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prsr.study.storage import list_studies
from prsr.web.page_response import STATIC, render
from prsr.web.request_limits import MAX_PIXELS, BoundedBodies
from prsr.web.result_view import STYLE
from prsr.web.runs import Models
from prsr.web.sample_page import THEME, build_page
from prsr.web.study_pages import study_router

SAMPLE_PATH = "/sample"

OWN_HOST_ONLY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
"""Gradio needs inline scripts; nothing comes from or goes to another host."""


def create_app(models: Models, studies: Path, temporary: Path) -> FastAPI:
    """The application.

    Args:
        models: that the sampling page serves; at least one.
        studies: folder of the studies; it need not exist.
        temporary: folder for what Gradio holds while it serves a request.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(temporary)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Pillow raises at twice this number; it guards what Gradio decodes by itself.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    app = FastAPI(title="prsr", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(study_router(studies))

    @app.get("/")
    def index(request: Request) -> Response:
        return render(request, "index.html", studies=list_studies(studies))

    @app.exception_handler(HTTPException)
    def refuse(request: Request, error: HTTPException) -> Response:
        message = error.detail if error.status_code != 404 or error.detail != "Not Found" else None
        return render(
            request,
            "error.html",
            status=error.status_code,
            message=message or "There is no such page.",
        )

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        fields = ", ".join(sorted({str(each["loc"][-1]) for each in error.errors()}))
        return render(request, "error.html", status=422, message=f"Not valid: {fields}.")

    gr.mount_gradio_app(
        app,
        build_page(models, temporary),
        path=SAMPLE_PATH,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=THEME,
        css=STYLE,
        allowed_paths=[],
    )
    app.add_middleware(DeletedUploads)
    app.add_middleware(BoundedBodies, temporary=temporary)
    app.add_middleware(OwnHostOnly)
    return app


class OwnHostOnly:
    """ASGI middleware: the sampling page loads nothing from other hosts.

    Args:
        app: to protect.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header to responses of the sampling page."""

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", OWN_HOST_ONLY)
            await send(message)

        await self.app(scope, receive, send_with_header if scope["type"] == "http" else send)


class DeletedUploads:
    """ASGI middleware: a request for an upload that was deleted meanwhile is no server error.

    The page deletes an upload once it is read, while the browser may still be fetching its preview.

    Args:
        app: to protect.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; the response for a deleted file is what the application made of it."""
        try:
            await self.app(scope, receive, send)
        except (FileNotFoundError, RuntimeError):  # the latter is Starlette's, if stat fails
            if not scope.get("path", "").startswith(f"{SAMPLE_PATH}/gradio_api/file="):
                raise
