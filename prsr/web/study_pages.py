"""The pages of a study. Without JavaScript they work as well: forms, and CSS for the exposure."""

from __future__ import annotations

import os
import sqlite3
import threading
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Cookie, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from prsr.study.database import connect
from prsr.study.storage import Study, UnknownTrial, study_path
from prsr.web.page_response import render

COOKIE = "rater"
COOKIE_SECONDS = 30 * 24 * 3600

Token = Annotated[str, Form(max_length=64)]
Rater = Annotated[str | None, Cookie(alias=COOKIE, max_length=64)]


def study_router(folder: Path) -> APIRouter:
    """The routes below ``/study`` for the studies in a folder."""
    router = APIRouter(prefix="/study")
    studies = OpenStudies(folder)

    def find(name: str) -> Study:
        try:
            return studies.find(name)
        except (FileNotFoundError, ValueError) as error:
            raise HTTPException(404, "There is no such study.") from error
        except PermissionError as error:
            raise HTTPException(503, "The answers to this study cannot be stored.") from error

    @router.get("/{name}")
    def start(request: Request, name: str, rater: Rater = None) -> Response:
        study = find(name)
        begun = rater is not None and study.has_rater(rater)
        return render(request, "start.html", study=study, begun=begun)

    @router.post("/{name}/begin")
    def begin(request: Request, name: str, rater: Rater = None) -> Response:
        study = find(name)
        response = to_pair(request, name)
        if rater is None or not study.has_rater(rater):
            response.set_cookie(
                COOKIE,
                study.add_rater(),
                max_age=COOKIE_SECONDS,
                path=f"{request.scope.get('root_path', '')}/study/{name}",
                httponly=True,
                samesite="lax",
            )
        return response

    @router.get("/{name}/pair")
    def pair(request: Request, name: str, rater: Rater = None) -> Response:
        study = find(name)
        try:
            trial = study.next_trial(rater or "")
        except LookupError:
            root = request.scope.get("root_path", "")
            return RedirectResponse(f"{root}/study/{name}", status_code=303)
        if trial is None:
            return render(request, "end.html", study=study)
        left, right = (b64encode(image).decode() for image in (trial.left, trial.right))
        return render(request, "pair.html", study=study, trial=trial, left=left, right=right)

    @router.post("/{name}/pair")
    def answer(
        request: Request,
        name: str,
        trial: Token,
        choice: Annotated[Literal["left", "right"], Form()],
        rater: Rater = None,
    ) -> Response:
        study = find(name)
        try:
            # A second answer, from a double click or another tab, changes nothing.
            study.answer(rater or "", trial, choice == "left")
        except UnknownTrial as error:
            raise HTTPException(404, "This pair has not been shown to you.") from error
        except LookupError as error:
            raise HTTPException(403, "You have not begun this study.") from error
        return to_pair(request, name)

    return router


class OpenStudies:
    """Studies, with an idle connection to each.

    SQLite checkpoints and deletes the WAL file whenever the last connection closes.

    Args:
        folder: of the studies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, tuple[os.stat_result, Study, sqlite3.Connection]] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Study:
        """A study by name; read again if its file is another one.

        Raises:
            FileNotFoundError: there is no such study.
            ValueError: the name is not valid, or the file is not a study.
            PermissionError: the file or its folder is not writable.
        """
        path = study_path(self.folder, name)
        with self._lock:
            opened = self._open.get(name)
            if opened and path.exists() and os.path.samestat(opened[0], path.stat()):
                return opened[1]
            if opened:
                self._open.pop(name)[2].close()
            study = Study(self.folder, name)
            idle = connect(path)
            idle.execute("SELECT 1 FROM study").fetchone()  # opens the file
            self._open[name] = path.stat(), study, idle
            return study


def to_pair(request: Request, name: str) -> RedirectResponse:
    """To the next pair, by GET."""
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/study/{name}/pair", status_code=303)
