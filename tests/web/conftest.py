"""A small study, a server and a browser for the tests of the web application."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prsr.study.storage import Settings, Study, create_study, study_path
from prsr.study.study_images import read_inputs

SETTINGS = Settings("Which one is a <photo>?", 300, per_method=4, catch=2, seed=7)


def write_images(folder, names, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")


@pytest.fixture
def folders(tmp_path):
    """Folders of twelve real images and of the samples of two methods, with non-ASCII names."""
    names = [f"{i:02d} Größe 画像 <b>" for i in range(12)]
    for seed, name in enumerate(("real", "good", "bad")):
        write_images(tmp_path / name, names, seed)
    return {name: tmp_path / name for name in ("real", "good", "bad")}


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """The folder of studies for servers that run for the whole session."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def studies(study_folder, folders):
    """A folder with nothing but the study ``faces``, new for each test."""
    for path in study_folder.iterdir():
        path.unlink()
    methods = {name: folders[name] for name in ("good", "bad")}
    inputs = read_inputs(folders["real"], methods, 4)
    create_study(study_path(study_folder, "faces"), SETTINGS, list(methods), inputs)
    return study_folder


@pytest.fixture
def study(studies):
    return Study(studies, "faces")


@contextlib.contextmanager
def read_only_copy(folder):
    """A copy of a folder that this process can read but not change."""
    # Not in tmp_path, which only its owner can enter.
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name).resolve()
        for path in folder.iterdir():
            shutil.copyfile(path, copy / path.name)
            (copy / path.name).chmod(0o444)
        copy.chmod(0o555)
        root = os.geteuid() == 0  # no mode restricts it
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield copy
        finally:
            if root:
                os.setresuid(0, 0, 0)
            copy.chmod(0o755)


@pytest.fixture
def read_only():
    return read_only_copy


@contextlib.contextmanager
def serving(*arguments):
    """Run ``prsr web`` on a free port; its process and address."""
    command = [sys.executable, "-m", "prsr", "web", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, f"prsr web ended with {process.wait()}"
        yield process, found.group().rstrip("/")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def serve():
    return serving


@pytest.fixture(scope="session")
def server(study_folder):
    """The address of a server of the bundled model ``faces`` and of the studies."""
    with serving("--model", "faces", "--studies", study_folder) as (_, address):
        yield address


@pytest.fixture(scope="session")
def application(study_folder, tmp_path_factory):
    """The application in this process, with the bundled model ``faces``."""
    from prsr import PRSR
    from prsr.web.app import create_app
    from prsr.web.runs import Models

    models = Models({"faces": PRSR.from_pretrained("faces")})
    return create_app(models, study_folder, tmp_path_factory.mktemp("temporary"))


@pytest.fixture
def client(application):
    from fastapi.testclient import TestClient

    return TestClient(application, raise_server_exceptions=False)


@pytest.fixture(scope="session")
def browser():
    """The headless Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # Continuous integration runs as root, where Chromium has no sandbox.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """A function that opens a page in a browser context of its own."""
    with contextlib.ExitStack() as stack:

        def opened(address, **options):
            context = browser.new_context(**options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.goto(address)
            return page

        yield opened


@pytest.fixture
def drawing(tmp_path):
    """An image file of 260×200 pixels: a rectangle on a gradient."""
    pixels = np.zeros((200, 260, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, 260)
    pixels[40:160, 60:200] = (40, 160, 220)
    Image.fromarray(pixels).save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png"
