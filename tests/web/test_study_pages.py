"""The study over HTTP: what a rater can and cannot do."""

import re
import signal
import sqlite3

import httpx
import pytest

from prsr.study.storage import Study


def token(page):
    return re.search(r'name="trial" value="([^"]+)"', page.text)[1]


def contents(path):
    with sqlite3.connect(path) as database:
        return list(database.iterdump())


def test_a_study_can_be_completed(client, study):
    assert "study/faces" in client.get("/").text
    assert "10 pairs" in client.get("/study/faces").text
    page = client.post("/study/faces/begin")
    for number in range(1, 11):
        assert f"{number} of 10" in page.text
        assert page.text.count("data:image/png;base64,") == 2
        page = client.post("/study/faces/pair", data={"trial": token(page), "choice": "left"})
    assert "Thank you" in page.text
    assert len(study.answers()) == 10
    assert all(answer.chose_left for answer in study.answers())
    assert all(answer.showings == 1 for answer in study.answers())


def test_the_page_does_not_reveal_which_image_is_real(client, study, folders):
    page = client.post("/study/faces/begin")
    for word in ("good", "bad", "real", "bicubic", "Größe", *map(str, folders.values())):
        assert word not in page.text


def test_a_rater_continues_after_the_last_answer(client, study):
    page = client.post("/study/faces/begin")
    client.post("/study/faces/pair", data={"trial": token(page), "choice": "right"})
    assert "Continue" in client.get("/study/faces").text
    assert "2 of 10" in client.post("/study/faces/begin").text
    assert study.count_raters() == 1


def test_double_clicks_and_two_tabs_count_once(client, study):
    page = client.post("/study/faces/begin")
    other = client.get("/study/faces/pair")
    assert token(page) == token(other)
    form = {"trial": token(page), "choice": "left"}
    client.post("/study/faces/pair", data=form)
    again = client.post("/study/faces/pair", data=form | {"choice": "right"})
    assert "2 of 10" in again.text
    (answer,) = study.answers()
    assert answer.chose_left
    assert answer.showings == 2


def test_the_question_is_escaped_and_pages_load_nothing_from_elsewhere(client, study):
    page = client.post("/study/faces/begin")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    nonce = re.search(r"'nonce-([^']+)'", policy)[1]
    assert page.text.count(f'nonce="{nonce}"') == 1
    assert "Which one is a &lt;photo&gt;?" in page.text
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r'(src|href)="(https?:)?//', page.text)


def test_the_cookie_is_limited_to_the_study(client, study):
    cookie = client.post("/study/faces/begin", follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "Path=/study/faces" in cookie
    assert "SameSite=lax" in cookie


HOSTILE = {
    "no such study": ("GET", "/study/absent", {}, 404),
    "path traversal": ("GET", "/study/..%2f..%2fetc%2fpasswd", {}, 404),
    "a file beside the studies": ("GET", "/study/faces.sqlite", {}, 404),
    "non-ASCII names": ("GET", "/study/%00%F0%9F%98%80", {}, 404),
    "static traversal": ("GET", "/static/..%2fapp.py", {}, 404),
    "no answer": ("POST", "/study/faces/pair", {}, 422),
    "no choice": ("POST", "/study/faces/pair", {"data": {"trial": "KNOWN"}}, 422),
    "an invalid choice": (
        "POST",
        "/study/faces/pair",
        {"data": {"trial": "KNOWN", "choice": "both"}},
        422,
    ),
    "a pair never shown": (
        "POST",
        "/study/faces/pair",
        {"data": {"trial": "UNSEEN", "choice": "left"}},
        404,
    ),
    "an unknown pair": (
        "POST",
        "/study/faces/pair",
        {"data": {"trial": "' OR 1=1 --", "choice": "left"}},
        404,
    ),
    "a long token": (
        "POST",
        "/study/faces/pair",
        {"data": {"trial": "x" * 10_000, "choice": "left"}},
        422,
    ),
    "a file instead of a token": (
        "POST",
        "/study/faces/pair",
        {"files": {"trial": b"x"}, "data": {"choice": "left"}},
        422,
    ),
    "JSON": ("POST", "/study/faces/pair", {"json": {"trial": "KNOWN", "choice": "left"}}, 422),
    "a large body": ("POST", "/study/faces/pair", {"content": b"x" * 5_000_000}, 413),
    "another method": ("DELETE", "/study/faces/pair", {}, 405),
    "a long cookie": ("GET", "/study/faces", {"headers": {"cookie": f"rater={'x' * 999}"}}, 422),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_get_a_4xx_and_change_nothing(name, client, study):
    known = token(client.post("/study/faces/begin"))
    with sqlite3.connect(study.path) as database:
        (unseen,) = database.execute("SELECT token FROM trial WHERE position = 5").fetchone()
    method, path, options, status = HOSTILE[name]
    if isinstance(data := options.get("data"), dict):
        words = {"KNOWN": known, "UNSEEN": unseen}
        options = options | {"data": {k: words.get(v, v) for k, v in data.items()}}
    before = contents(study.path)
    answer = client.request(method, path, **options)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert contents(study.path) == before
    assert client.get("/study/faces").status_code == 200


def test_a_rater_without_a_cookie_cannot_answer(client, study):
    trial = token(client.post("/study/faces/begin"))
    client.cookies.clear()
    form = {"trial": trial, "choice": "left"}
    assert client.post("/study/faces/pair", data=form).status_code == 403
    client.cookies.set("rater", "guessed")
    assert client.post("/study/faces/pair", data=form).status_code == 403
    assert "Begin" in client.get("/study/faces/pair").text
    assert study.answers() == []


def test_a_killed_server_loses_no_answer(studies, model, serve):
    arguments = ("--model", model, "--studies", studies)
    with httpx.Client(follow_redirects=True) as browser:
        for answered in (4, 8):
            with serve(*arguments) as (process, address):
                page = browser.post(f"{address}/study/faces/begin")
                for _ in range(4):
                    form = {"trial": token(page), "choice": "left"}
                    page = browser.post(f"{address}/study/faces/pair", data=form)
                process.send_signal(signal.SIGKILL)
                process.wait()
            study = Study(studies, "faces")
            assert len(study.answers()) == answered
            assert study.count_raters() == 1
