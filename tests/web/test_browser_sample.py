"""The sampling page in a real browser."""

import base64
import contextlib
import io
import re
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from PIL import Image

from prsr import PRSR
from prsr.models.model_files import bundled_inputs
from prsr.sampling.sampler import Sampler
from prsr.web.app import create_app
from prsr.web.run_settings import PAINTED, TOP, from_query
from prsr.web.runs import Models


def samples(page):
    """The samples that the page shows, as arrays ``[H, W, 3]``."""
    urls = [img.get_attribute("src") for img in page.locator('img[alt^="sample "]').all()]
    return [decoded(url) for url in urls]


def decoded(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def sample(page):
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_text("Done: row 32 of 32").wait_for()


def choose_example(page, number=0):
    page.locator(".thumbnail-item").nth(number).click()
    page.get_by_text("input, 8×8").wait_for()


def choose_file(page, path):
    """Choose a file, and once more if nothing happens.

    On a busy machine the input may be there before Gradio listens to it, and then ignores a file
    that is chosen faster than a person could.
    """
    crop = page.get_by_text("crop", exact=True)
    page.locator("input[type=file]").first.set_input_files(path)
    for _ in range(300):
        if crop.is_visible():
            return
        page.wait_for_timeout(100)
    page.locator("input[type=file]").first.set_input_files(path)
    crop.wait_for()


def settings_of(page):
    query = dict(re.findall(r"([^?&=]+)=([^&]*)", urlsplit(page.url).query))
    return from_query(query, {"faces": PRSR.from_pretrained("faces").config})


def test_an_example_is_sampled_and_saved(open_page, server):
    page = open_page(f"{server}/sample/")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    choose_example(page, 1)
    sample(page)
    shown = samples(page)
    expected = Sampler(PRSR.from_pretrained("faces")).sample(
        bundled_inputs("faces")[1:2], 0.8, seed=0, num_samples=4
    )
    for one, other in zip(shown, expected[0].permute(0, 2, 3, 1).numpy(), strict=True):
        assert np.array_equal(one, other)
    assert page.locator('img[alt="bicubic"]').count() == 1
    assert "sub-pixels per second" in page.get_by_role("status").first.inner_text()
    with page.expect_download() as download:
        page.get_by_text("Save all as one image").click()
    assert download.value.suggested_filename == "faces-seed-0.png"
    assert Image.open(download.value.path()).width > 300
    assert {urlsplit(url).netloc for url in requests if url.startswith("http")} == {
        urlsplit(server).netloc
    }


def test_a_completed_image_is_reproduced_from_its_link(open_page, server, drawing):
    page = open_page(f"{server}/sample/")
    choose_file(page, drawing)
    crop = decoded(page.locator('img[alt="crop"]').get_attribute("src"))
    page.get_by_text("Keep a part of the image").click()
    page.get_by_label(TOP).check()
    sample(page)
    shown = samples(page)
    for image in shown:
        assert np.array_equal(image[:16], crop[:16])
        assert not np.array_equal(image[16:], crop[16:])
    assert page.get_by_label("Link to this result").input_value() == page.url
    other = open_page(page.url)
    other.get_by_text("crop", exact=True).wait_for()
    sample(other)
    assert all(map(np.array_equal, samples(other), shown))
    assert len(shown) == 4


def test_painted_pixels_are_kept(open_page, server, drawing):
    page = open_page(f"{server}/sample/", viewport={"width": 1200, "height": 1600})
    choose_file(page, drawing)
    crop = decoded(page.locator('img[alt="crop"]').get_attribute("src"))
    page.get_by_text("Keep a part of the image").click()
    page.get_by_label(PAINTED).check()
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_text("paint the part to keep first").wait_for()
    canvas = page.locator("canvas").last
    canvas.wait_for()
    page.wait_for_timeout(2000)  # the editor sets itself up and does not show when it is ready
    box = canvas.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=20)
    page.mouse.up()
    page.wait_for_timeout(1000)  # the editor sends the layer after a delay
    sample(page)
    mask = settings_of(page).mask
    rows, columns = np.nonzero(mask)
    assert 10 < mask.sum() < 32 * 32 / 2
    assert rows.min() >= 10
    assert rows.max() <= 21
    assert columns.max() - columns.min() > 8
    for shown in samples(page):
        assert np.array_equal(shown[mask], crop[mask])
        assert not np.array_equal(shown[~mask], crop[~mask])


def test_a_phone_shows_the_page_without_scrolling_sideways(open_page, server):
    page = open_page(f"{server}/sample/", viewport={"width": 360, "height": 740})
    choose_example(page)
    sample(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_errors_are_shown_on_the_page(open_page, server, drawing, tmp_path):
    page = open_page(f"{server}/sample/")
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_text("choose an image or an example first").wait_for()
    broken = tmp_path / "broken.png"
    broken.write_bytes(drawing.read_bytes()[:300])
    page.locator("input[type=file]").first.set_input_files(broken)
    page.get_by_text("damaged or incomplete").wait_for()
    page.goto(f"{server}/sample/?model=absent")
    page.get_by_text("is not served here").wait_for()


class SlowModels(Models):
    """Counts rows and delays each."""

    rows = 0
    ended = threading.Event()

    def run(self, settings):
        try:
            for progress in super().run(settings):
                type(self).rows += 1
                yield progress
                time.sleep(0.5)
        finally:
            self.ended.set()


@contextlib.contextmanager
def serving_here(models, folder):
    """Run a server in this process; its address."""
    config = uvicorn.Config(create_app(models, folder, folder), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def test_closing_the_page_stops_the_work(open_page, tmp_path):
    models = SlowModels({"faces": PRSR.from_pretrained("faces")})
    with serving_here(models, tmp_path) as address:
        page = open_page(f"{address}/sample/")
        choose_example(page)
        page.get_by_role("button", name="Sample", exact=True).click()
        page.get_by_text("Sampling: row 3").wait_for()
        page.close()
        assert models.ended.wait(60)
        assert models.rows < 20  # the server checks for closed connections between rows


class LateExamples(Models):
    """Delivers the examples once ``chosen`` is set."""

    chosen = threading.Event()

    def examples(self, model):
        assert self.chosen.wait(60)
        return super().examples(model)


def test_an_image_chosen_while_the_page_loads_is_kept(open_page, tmp_path, drawing):
    models = LateExamples({"faces": PRSR.from_pretrained("faces")})
    with serving_here(models, tmp_path) as address:
        page = open_page(f"{address}/sample/")
        choose_file(page, drawing)
        models.chosen.set()
        page.locator(".thumbnail-item").first.wait_for()
        sample(page)
        assert len(samples(page)) == 4
        page.close()  # the server stops once no client is connected


@pytest.mark.parametrize("width", [360, 1200])
def test_the_start_page_links_to_sampling_and_studies(width, open_page, server, study):
    page = open_page(server, viewport={"width": width, "height": 700})
    page.get_by_role("link", name="Study: faces").click()
    page.get_by_role("button", name="Begin").wait_for()
    page.go_back()
    page.get_by_role("link", name="Sample an image").click()
    page.get_by_role("button", name="Sample", exact=True).wait_for()
