"""Uploads: limits apply before decoding, and no file stays on disk."""

import os
import struct
import zlib
from pathlib import Path

import anyio
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from prsr.web.request_limits import (
    MAX_BODY_BYTES,
    MAX_PIXELS,
    MAX_UPLOAD_BYTES,
    RefusedError,
    read_upload,
)

UPLOAD = "/sample/gradio_api/upload"


def png_of_size(width, height):
    """A PNG file whose header claims a size, with only a few bytes of data."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def noise():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def kept(application):
    """A function that lists the files in the application's temporary folder."""
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    return lambda: sorted(path for path in folder.rglob("*") if path.is_file())


HOSTILE = {
    "a PNG of too many pixels": (png_of_size(10_000, MAX_PIXELS // 10_000 + 1), 413),
    "a decompression bomb": (png_of_size(100_000, 100_000), 413),
    "a file of too many bytes": (bytes(MAX_UPLOAD_BYTES + 1), 413),
    "text": (b"no image at all", 415),
    "nothing": (b"", 415),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', 415),
    "a ZIP file": (b"PK\x03\x04" + bytes(100), 415),
    "a PNG with few of its pixels": (png_of_size(3000, 3000), 422),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_uploads_get_a_4xx_and_leave_no_file(name, client, kept):
    data, status = HOSTILE[name]
    before = kept()
    answer = client.post(UPLOAD, files={"files": ("../../etc/Größe\u202e\x00.png", data)})
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert kept() == before


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_complete_images_are_accepted_and_truncated_ones_refused(kind, noise, encode):
    data = encode(noise, kind)
    assert read_upload(data).size == noise.size
    with pytest.raises(RefusedError) as refused:
        read_upload(data[: len(data) // 2])
    assert refused.value.status in (415, 422)


def test_uploads_of_any_name_stay_in_the_temporary_folder(client, noise, encode):
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    for name in ("../../../evil.png", "画像 \U0001f600.png", "a" * 300 + ".png", "C:\\evil.png"):
        answer = client.post(UPLOAD, files={"files": (name, encode(noise, "PNG"))})
        assert answer.status_code == 200
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(folder.resolve())
        Path(path).unlink()


def test_several_files_and_malformed_bodies_are_refused(client, kept, noise, encode):
    one = ("a.png", encode(noise, "PNG"))
    before = kept()
    assert client.post(UPLOAD, files=[("files", one), ("files", one)]).status_code == 400
    assert client.post(UPLOAD, data={"files": "text"}).status_code == 400
    assert client.post(UPLOAD, content=b"garbage").status_code == 400
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post(UPLOAD, content=b"--x\r\ngarbage", headers=headers).status_code == 400
    assert kept() == before


def test_a_body_without_a_content_length_is_bounded(client):
    def endless():
        for _ in range(MAX_BODY_BYTES // 100_000 + 2):
            yield bytes(100_000)

    assert client.post("/sample/gradio_api/queue/join", content=endless()).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/sample/gradio_api/file=/etc/passwd",
        "/sample/gradio_api/file=../../../../etc/passwd",
        "/sample/gradio_api/file=%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/sample/gradio_api/file=http://example.invalid/",
        "/sample/assets/../../../../etc/passwd",
        "/sample/static/..%2f..%2froutes.py",
    ],
)
def test_no_file_outside_the_application_is_served(path, client):
    answer = client.get(path, follow_redirects=False)
    assert 400 <= answer.status_code < 500
    assert "root:" not in answer.text


def test_images_in_the_working_and_temporary_folders_are_not_served(client, tmp_path, noise):
    planted = tmp_path / "planted.png"
    noise.save(planted)
    for path in (planted, Path("docs/faces.png").resolve(), Path("pyproject.toml").resolve()):
        assert client.get(f"/sample/gradio_api/file={path}").status_code == 403


@pytest.mark.parametrize("moment", ["before", "while"])
def test_fetching_an_upload_that_was_just_deleted_raises_no_exception(
    moment, application, noise, monkeypatch, encode
):
    client = TestClient(application, raise_server_exceptions=True)
    path = client.post(UPLOAD, files={"files": ("a.png", encode(noise, "PNG"))}).json()[0]
    address = f"/sample/gradio_api/file={path}"
    assert client.get(address).content == encode(noise, "PNG")
    open_file = anyio.open_file

    def deleting(name, *arguments, **options):
        Path(name).unlink()
        return open_file(name, *arguments, **options)

    if moment == "before":
        Path(path).unlink()
    else:
        monkeypatch.setattr(anyio, "open_file", deleting)
    assert client.get(address).content != encode(noise, "PNG")


def handler(client, name):
    """The id of a handler of the page."""
    page = client.get("/sample/config").json()
    return next(d["id"] for d in page["dependencies"] if d["api_name"] == name)


HOSTILE_FILES = {
    "another path": {"path": "PLANTED"},
    "a link out of the folder": {"path": "LINK"},
    "a path with dots": {"path": "DOTS"},
    "another host": {"path": "http://example.invalid/a.png"},
    "no path": {"path": "\x00"},
    "a data URL": {"path": "", "url": "data:image/png;base64,AAAA"},
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_a_file_that_was_not_uploaded_is_refused_and_kept(name, nested, client, tmp_path, noise):
    planted, folder = tmp_path / "planted.png", Path(os.environ["GRADIO_TEMP_DIR"])
    noise.save(planted)
    link = folder / "link.png"
    link.symlink_to(planted)
    words = {"PLANTED": planted, "LINK": link, "DOTS": f"{folder}/../../{planted}"}
    file = {key: str(words.get(value, value)) for key, value in HOSTILE_FILES[name].items()}
    file |= {"orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    data = {"background": None, "layers": [file]} if nested else file
    job = {"data": [data, "faces"], "fn_index": handler(client, "take_file"), "session_hash": "s"}
    try:
        for path in ("queue/join", "api/take_file", "call/take_file", "run/predict"):
            assert client.post(f"/sample/gradio_api/{path}", json=job).status_code == 403
    finally:
        link.unlink()
    assert planted.is_file()


def test_an_upload_is_deleted_once_it_is_read(client, kept, noise, encode):
    before = kept()
    (path,) = client.post(UPLOAD, files={"files": ("a.png", encode(noise, "PNG"))}).json()
    assert len(kept()) == len(before) + 1
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    job = {"data": [file, "faces"], "fn_index": handler(client, "take_file"), "session_hash": "t"}
    with client:
        client.post("/sample/gradio_api/queue/join", json=job)
        stream = client.get("/sample/gradio_api/queue/data", params={"session_hash": "t"}).text
        assert '"success":true' in stream.replace(" ", "")
        # Checked while the application runs: Gradio deletes everything when it ends.
        left = set(kept()) - set(before)
        assert not any(f.stat().st_size == len(encode(noise, "PNG")) for f in left)
        for f in left:  # the image to paint on, which Gradio deletes after a minute
            with Image.open(f) as image:
                assert image.size == (512, 512)


def test_gradio_pages_load_nothing_from_other_hosts(client):
    page = client.get("/sample/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.headers["content-security-policy"]
