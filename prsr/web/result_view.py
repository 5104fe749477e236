"""A run as HTML: every image is part of the page, so that the server keeps no file of it."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape

from PIL import Image
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.image_arrays import to_pil
from prsr.sampling.sample_sheet import sample_sheet
from prsr.web.run_settings import RunSettings
from prsr.web.runs import Models, Progress

STYLE = """
.prsr-images { display: flex; flex-wrap: wrap; gap: 0.75rem; }
.prsr-images figure { margin: 0; width: 8rem; text-align: center; font-size: 0.85rem; }
.prsr-images img { width: 8rem; height: 8rem; object-fit: contain; image-rendering: pixelated; }
"""


def view_input(models: Models, settings: RunSettings) -> str:
    """The crop, if there is one, and the input."""
    config = models.configs[settings.model]
    figures = [] if settings.image is None else [("crop", to_pil(settings.image, config))]
    low = models.low(settings)[0]
    figures.append((f"input, {low.shape[2]}×{low.shape[1]}", as_image(low, config)))
    return images_html(figures)


def view_run(
    models: Models,
    settings: RunSettings,
    progress: Progress,
    baselines: list[tuple[str, Tensor]],
) -> str:
    """The baselines and the samples so far; at the end a link that saves them."""
    config = models.configs[settings.model]
    height = progress.samples.shape[2]
    figures = [(name, as_image(image, config)) for name, image in baselines]
    figures += [
        (f"sample {number}", as_image(sample, config))
        for number, sample in enumerate(progress.samples, start=1)
    ]
    done = progress.rows == height
    status = f"{'Done' if done else 'Sampling'}: row {progress.rows} of {height}"
    if progress.seconds:
        rate = progress.drawn / progress.seconds
        status += f", {progress.seconds:.2f} s, {rate:,.0f} sub-pixels per second"
    engine = models.sampler(settings.model, settings.engine, settings.precision).engine
    html = f'<p role="status">{escape(status)}, engine {escape(engine)}</p>{images_html(figures)}'
    if done:
        low = models.low(settings)[0]
        sheet = sample_sheet([(low, progress.samples, None)], config)
        name = f"{settings.model.replace('/', '-')}-seed-{settings.seed}.png"
        html += (
            f'<p><a download="{escape(name)}" href="{data_url(sheet)}">Save all as one image</a>'
            " (a click on an image saves it alone)</p>"
        )
    return html


def as_image(pixels: Tensor, config: PRSRConfig) -> Image.Image:
    """``uint8 [D, H, W]`` as a Pillow image."""
    return to_pil(pixels.cpu().numpy(), config)


def images_html(figures: list[tuple[str, Image.Image]]) -> str:
    """Images side by side, each a link that saves it."""
    cells = []
    for caption, image in figures:
        url = data_url(image)
        cells.append(
            f'<figure><a download="{escape(caption)}.png" href="{url}">'
            f'<img src="{url}" alt="{escape(caption)}"></a>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f'<div class="prsr-images">{"".join(cells)}</div>'


def data_url(image: Image.Image) -> str:
    """An image as a PNG file in a URL."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
