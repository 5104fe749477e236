"""Server-rendered pages: templates, and the headers that keep them to this host."""

from __future__ import annotations

import secrets
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

HERE = Path(__file__).parent
STATIC = HERE / "static"

_templates = Jinja2Templates(HERE / "templates")


def render(request: Request, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """A page that loads nothing from other hosts, runs no inline script and is not cached."""
    nonce = secrets.token_urlsafe(16)
    context = {"root": request.scope.get("root_path", ""), "nonce": nonce, "status": status}
    page = _templates.TemplateResponse(request, template, context | values, status_code=status)
    page.headers["Cache-Control"] = "no-store"
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; img-src data:; script-src 'self'; style-src 'self' 'nonce-{nonce}'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    page.headers["X-Content-Type-Options"] = "nosniff"
    return page
