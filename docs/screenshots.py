"""Take the screenshots of docs/web.md with a Chromium that is installed.

    python docs/screenshots.py

They show cartoons only: the study's "photographs" are samples of the bundled model `faces` as well.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import prsr
from prsr.data.image_arrays import to_pil
from prsr.models.model_files import bundled_inputs
from prsr.study.storage import Settings, create_study, study_path
from prsr.study.study_images import read_inputs

HERE = Path(__file__).parent
MODEL, STUDY = "faces", "cartoons"
COLOURS = 128
"""Of the palette of a screenshot, which keeps the files small."""


def make_study(folder: Path) -> None:
    """A study of samples of two seeds."""
    model = prsr.PRSR.from_pretrained(MODEL)
    lr = bundled_inputs(MODEL)
    for name, seed in (("real", 1), ("method", 2)):
        (folder / name).mkdir()
        for index, image in enumerate(prsr.sample(lr, 0.6, model=model, seed=seed).numpy()):
            to_pil(image, model.config).save(folder / name / f"{index}.png")
    inputs = read_inputs(folder / "real", {"method": folder / "method"}, model.config.scale)
    settings = Settings("Which one is a photograph?", 60_000, per_method=8, catch=2, seed=0)
    create_study(study_path(folder, STUDY), settings, ["method"], inputs)


def save(page: Page, path: Path, **options: object) -> None:
    """Write a screenshot with a palette."""
    page.screenshot(path=path, **options)  # type: ignore[arg-type]  # object
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)
    print(f"wrote {path}: {path.stat().st_size // 1024} KiB")


def take(address: str) -> None:
    """Drive both pages and take their screenshots."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(f"{address}/sample/")
        page.locator(".thumbnail-item").nth(3).click()
        page.get_by_text("input, 8×8").wait_for()
        page.get_by_role("button", name="Sample", exact=True).click()
        page.get_by_text("Done: row 32 of 32").wait_for()
        page.wait_for_timeout(1000)  # for the last redraw
        save(page, HERE / "web-sample.png", full_page=True)
        page.set_viewport_size({"width": 700, "height": 560})
        page.goto(f"{address}/study/{STUDY}")
        page.get_by_role("button").click()
        page.get_by_text("1 of 10").wait_for()
        save(page, HERE / "web-study.png")
        browser.close()


def main() -> None:
    """Serve a study and the model, and take the screenshots."""
    with tempfile.TemporaryDirectory() as folder:
        make_study(Path(folder))
        command = [sys.executable, "-m", "prsr", "web", "--port", "0", "--model", MODEL]
        process = subprocess.Popen(
            [*command, "--studies", folder], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "prsr web did not start"
            take(found.group().rstrip("/"))
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
