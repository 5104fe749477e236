"""The sampling page (Gradio): choose an image, watch its samples grow, share the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from prsr.data.image_arrays import Pixels, high_resolution, pillow_mode, to_pil
from prsr.engines.registry import PRECISIONS
from prsr.web.request_limits import MAX_PIXELS, MAX_UPLOAD_BYTES, RefusedError, read_upload
from prsr.web.result_view import as_image, view_input, view_run
from prsr.web.run_settings import KEEP, MOST_SAMPLES, NOTHING, PAINTED, RunSettings, from_query
from prsr.web.runs import Models

MOST_WAITING = 16
"""Runs that wait in the queue; further ones are refused."""

TEMPORARY_SECONDS = 60
"""After which what Gradio holds in its temporary folder is deleted."""

CANVAS = 512
"""Pixels of the side of what is painted on."""

THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""Without fonts of other hosts."""

SHARE = "(query) => { history.replaceState(null, '', '?' + query); return location.href; }"

ABOUT = f"""
# Pixel recursive super resolution

The model sees the low-resolution input only. The details that it samples are inventions, never a
recovery of what was there. One run at a time; at most {MOST_WAITING} wait. Images may have
{MAX_UPLOAD_BYTES // 2**20} MiB and {MAX_PIXELS // 10**6} million pixels, and are not kept.
"""


class SamplePage:
    """The handlers of the page.

    Args:
        models: that are served.
        temporary: the folder where Gradio puts uploads.
    """

    def __init__(self, models: Models, temporary: Path) -> None:
        self.models, self.temporary = models, temporary.resolve()

    def chosen(self, model: str) -> tuple[Any, Any, None, None, str]:
        """Engines and examples of a model; the image chosen for another is dropped."""
        self._check_model(model)
        engines = gr.Dropdown(self.models.engines(model), value="auto")
        return engines, self._gallery(model), None, None, ""

    def take_file(self, path: str | None, model: str) -> tuple[None, RunSettings, Any, str]:
        """Read an upload, delete its file and show the crop."""
        self._check_model(model)
        if path is None:
            raise gr.Error("choose an image first", print_exception=False)
        file = Path(path).resolve()
        if not file.is_relative_to(self.temporary):  # Gradio checks it too; this one is deleted
            raise gr.Error("not an upload", print_exception=False)
        try:
            data = file.read_bytes()
        finally:
            file.unlink(missing_ok=True)
        config = self.models.configs[model]
        try:
            image = high_resolution(read_upload(data, pillow_mode(config)), config)
        except RefusedError as refused:
            raise gr.Error(refused.message, print_exception=False) from refused
        settings = RunSettings(model, image=image)
        return None, settings, self._canvas(model, image), view_input(self.models, settings)

    def take_example(self, model: str, chosen: gr.SelectData) -> tuple[RunSettings, None, str]:
        """Show the input of an example."""
        self._check_model(model)
        settings = RunSettings(model, example=int(chosen.index))
        return settings, None, view_input(self.models, settings)

    def prepare(
        self,
        chosen: RunSettings | None,
        editor: dict[str, Any] | None,
        model: str,
        engine: str,
        precision: str,
        temperature: float,
        seed: float,
        samples: float,
        keep: str,
    ) -> tuple[RunSettings, str]:
        """Check the settings of a run, and make the query string of its link."""
        try:
            self._check_model(model)
            if chosen is None or chosen.model != model:
                raise ValueError("choose an image or an example first")
            if not float(seed).is_integer() or not float(samples).is_integer():
                raise ValueError("seed and samples must be whole numbers")
            mask = chosen.mask
            if keep == PAINTED and chosen.image is not None:
                painted = painted_mask(editor, *chosen.image.shape[1:])
                mask = painted if painted is not None else mask
            settings = dataclasses.replace(
                chosen,
                engine=engine,
                precision=precision,
                temperature=float(temperature),
                seed=int(seed),
                samples=int(samples),
                keep=keep,
                mask=mask,
            )
            self.models.sampler(model, engine, precision)
            self.models.low(settings)
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        return settings, settings.to_query()

    def run(self, settings: RunSettings) -> Iterator[str]:
        """Sample; the page shows each row as it is drawn."""
        baselines = self.models.baselines(settings)
        try:
            for progress in self.models.run(settings):
                yield view_run(self.models, settings, progress, baselines)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def restore(self, request: gr.Request) -> list[Any]:
        """The settings of the page's own link, if it has any."""
        query = dict(request.query_params)
        first = next(iter(self.models.configs))
        if "model" not in query:
            # An image may have been chosen before this arrives: it stays.
            return [gr.skip()] * 7 + [self._gallery(first)] + [gr.skip()] * 3
        try:
            settings = from_query(query, self.models.configs)
            shown = view_input(self.models, settings)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        canvas = None
        if settings.image is not None:
            canvas = self._canvas(settings.model, settings.image)
        return [
            settings.model,
            gr.Dropdown(self.models.engines(settings.model), value=settings.engine),
            settings.precision,
            settings.temperature,
            settings.seed,
            settings.samples,
            settings.keep,
            self._gallery(settings.model),
            settings,
            canvas,
            shown,
        ]

    def _check_model(self, model: str) -> None:
        if model not in self.models.configs:
            raise gr.Error("this model is not served here", print_exception=False)

    def _gallery(self, model: str) -> Any:
        config = self.models.configs[model]
        images = [
            as_image(low, config).resize((96, 96), Image.Resampling.NEAREST)
            for low in self.models.examples(model)
        ]
        return gr.Gallery(images, visible=bool(images))

    def _canvas(self, model: str, image: Pixels) -> dict[str, Any]:
        crop = to_pil(image, self.models.configs[model]).convert("RGB")
        scale = CANVAS / max(crop.size)
        size = round(crop.width * scale), round(crop.height * scale)
        background = np.asarray(crop.resize(size, Image.Resampling.NEAREST))
        return {"background": background, "layers": [], "composite": None}


def painted_mask(editor: dict[str, Any] | None, height: int, width: int) -> Any:
    """Pixels of which more than half is painted, ``bool [H, W]``; None if nothing is painted.

    Args:
        editor: the value of a ``gr.ImageEditor`` of type "numpy"; layers are RGBA.
        height: H.
        width: W.
    """
    layers = (editor or {}).get("layers") or []
    mask = np.zeros((height, width), bool)
    for layer in layers:
        alpha = Image.fromarray(np.ascontiguousarray(layer[..., 3]))
        mask |= np.asarray(alpha.resize((width, height), Image.Resampling.BOX)) > 127
    return mask if mask.any() else None


def build_page(models: Models, temporary: Path) -> gr.Blocks:
    """The page with its queue; :data:`THEME` and ``STYLE`` go where it is mounted.

    Args:
        models: that are served.
        temporary: the folder where Gradio puts uploads.
    """
    page = SamplePage(models, temporary)
    names = list(models.configs)
    with gr.Blocks(
        title="prsr",
        analytics_enabled=False,
        delete_cache=(TEMPORARY_SECONDS, TEMPORARY_SECONDS),
    ) as blocks:
        gr.Markdown(ABOUT)
        chosen, checked = gr.State(), gr.State()
        with gr.Row():
            with gr.Column():
                model = gr.Dropdown(names, value=names[0], label="Model")
                upload = gr.Image(
                    type="filepath",
                    image_mode=None,  # as Gradio would decode it otherwise
                    sources=["upload", "clipboard"],
                    label="Choose or drop an image",
                    height=180,
                )
                gallery = gr.Gallery(
                    label="Or an example", columns=6, allow_preview=False, height=220
                )
                shown = gr.HTML()
                with gr.Accordion("Keep a part of the image, and complete the rest", open=False):
                    keep = gr.Radio(list(KEEP), value=NOTHING, label="Keep")
                    editor = gr.ImageEditor(
                        type="numpy",
                        sources=[],
                        layers=False,
                        transforms=[],
                        canvas_size=(CANVAS, CANVAS),
                        brush=gr.Brush(default_size=48, colors=["#ff00ff"], color_mode="fixed"),
                        label="Paint the part to keep",
                    )
            with gr.Column():
                temperature = gr.Slider(0, 2, 0.8, step=0.05, label="Temperature")
                samples = gr.Slider(1, MOST_SAMPLES, 4, step=1, label="Samples")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                engine = gr.Dropdown(models.engines(names[0]), value="auto", label="Engine")
                precision = gr.Dropdown(list(PRECISIONS), value="fp32", label="Precision")
                with gr.Row():
                    button = gr.Button("Sample", variant="primary")
                    stop = gr.Button("Stop")
                result = gr.HTML()
                query = gr.Textbox(visible=False)
                link = gr.Textbox(label="Link to this result", interactive=False, max_lines=1)
        hidden: dict[str, Any] = {"api_visibility": "private"}
        quick = hidden | {"concurrency_limit": None, "show_progress": "hidden"}
        model.input(page.chosen, model, [engine, gallery, chosen, editor, shown], **quick)
        upload.upload(page.take_file, [upload, model], [upload, chosen, editor, shown], **quick)
        gallery.select(page.take_example, model, [chosen, editor, shown], **quick)
        settings = [model, engine, precision, temperature, seed, samples, keep]
        started = button.click(page.prepare, [chosen, editor, *settings], [checked, query], **quick)
        started.success(None, query, link, js=SHARE)
        running = started.success(page.run, checked, result, concurrency_limit=1, **hidden)
        stop.click(None, cancels=[running])
        blocks.load(page.restore, None, [*settings, gallery, chosen, editor, shown], **quick)
    return blocks.queue(max_size=MOST_WAITING)
