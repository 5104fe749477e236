"""Limits on requests, enforced before anything is decoded or stored."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prsr.data.decoding import decode, no_warnings

MAX_UPLOAD_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MAX_BODY_BYTES = 4 * 2**20
"""Of a request that is no upload."""

MULTIPART_BYTES = 10_000
"""What multipart encoding may add to a file."""


class RefusedError(Exception):
    """What a client sent is not accepted.

    Args:
        status: of the response, 4xx.
        message: for the user.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def read_upload(data: bytes, mode: str = "RGB") -> Image.Image:
    """Decode an uploaded image file; its size is checked first.

    Args:
        data: the file.
        mode: Pillow's mode of the result, "RGB" or "L".

    Returns:
        The image, upright and without metadata.

    Raises:
        RefusedError: the file is too large (413), not an image (415), or damaged (422).
    """
    if len(data) > MAX_UPLOAD_BYTES:
        raise RefusedError(413, f"The file has more than {MAX_UPLOAD_BYTES // 2**20} MiB.")
    try:
        with no_warnings(), Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"The image has more than {MAX_PIXELS:,} pixels.") from error
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise RefusedError(415, "The file is not an image that can be read.") from error
    if width * height > MAX_PIXELS:
        raise RefusedError(
            413, f"The image has {width}×{height} pixels; at most {MAX_PIXELS:,} are accepted."
        )
    try:
        with no_warnings():
            return decode(io.BytesIO(data), mode)
    except Exception as error:  # of many kinds, as above
        raise RefusedError(422, "The image is damaged or incomplete.") from error


class BoundedBodies:
    """ASGI middleware: refuses large bodies, uploads that are not images, and files of others.

    Gradio takes the files that a request names from anywhere where it is mounted on another
    application (version 6.31): from any path that the server can read, and from other hosts.

    Args:
        app: to protect.
        temporary: the folder where Gradio puts uploads.
        upload_suffix: how the paths of uploads end.
    """

    def __init__(
        self, app: ASGIApp, temporary: Path, upload_suffix: str = "/gradio_api/upload"
    ) -> None:
        self.app, self.upload_suffix = app, upload_suffix
        self.temporary = temporary.resolve()
        self.decoders = anyio.CapacityLimiter(1)  # so that memory is bounded as well

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it is within bounds."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        try:
            is_upload = scope["path"].endswith(self.upload_suffix)
            most = MAX_UPLOAD_BYTES + MULTIPART_BYTES if is_upload else MAX_BODY_BYTES
            body = await read_body(scope, receive, most)
            if is_upload:
                for data in await uploaded_files(scope, body):
                    await anyio.to_thread.run_sync(read_upload, data, limiter=self.decoders)
            else:
                check_files(body, self.temporary)
        except RefusedError as refused:
            response = PlainTextResponse(refused.message, refused.status, {"Connection": "close"})
            await response(scope, receive, send)
            return
        await self.app(scope, replay(body, receive), send)


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it has more than ``most`` bytes.
    """
    too_large = RefusedError(413, f"A request may have {most:,} bytes.")
    headers: dict[bytes, bytes] = dict(scope["headers"])
    with suppress(ValueError):
        if int(headers.get(b"content-length", b"0")) > most:
            raise too_large
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "The request ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(parts)


def check_files(body: bytes, folder: Path) -> None:
    """A JSON body names no files but those in a folder.

    Raises:
        RefusedError: it names others.
    """
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return  # a form, or nothing that Gradio reads
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path, url = value.get("path"), value.get("url")
            inside = not isinstance(path, str) or is_inside(path, folder)
            if not inside or (isinstance(url, str) and url.startswith("data:")):
                raise RefusedError(403, "A file must be uploaded first.")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def is_inside(path: str, folder: Path) -> bool:
    """Whether a path lies in a folder, links followed."""
    try:
        return Path(path).resolve().is_relative_to(folder)
    except (OSError, ValueError):  # no path at all
        return False


async def uploaded_files(scope: Scope, body: bytes) -> list[bytes]:
    """The files of a multipart body.

    Raises:
        RefusedError: it is not valid, or holds no file or several.
    """
    request = Request(scope, replay(body, None))
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            files: list[Any] = [v for v in form.values() if isinstance(v, UploadFile)]
            data = [await file.read() for file in files]
    except Exception as error:  # HTTPException, or what the parser raises
        raise RefusedError(400, "The upload is not valid: one file is accepted.") from error
    if not data:
        raise RefusedError(400, "The upload holds no file.")
    return data


def replay(body: bytes, receive: Receive | None) -> Receive:
    """A ``receive`` that hands out a body that was read, then what follows it."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive() if receive else {"type": "http.disconnect"}

    return again
