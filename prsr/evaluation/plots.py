"""The paper's figures, by matplotlib: images in a grid or as they grow, training curves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.image_files import (
    EXIF_SUFFIXES,
    LONGEST_SIDES,
    PROVENANCE,
    check_not_foreign,
    provenance_options,
)
from prsr.data.images import to_pil
from prsr.sampling.baselines import IndependentSampler
from prsr.sampling.method import Method
from prsr.sampling.sampler import Sampler
from prsr.utils.files import check_file, replacing
from prsr.utils.headless_matplotlib import load_matplotlib
from prsr.utils.messages import printable

try:
    load_matplotlib()
    from matplotlib.animation import ArtistAnimation, PillowWriter
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"figures need matplotlib: pip install 'prsr[evaluate]' ({error})") from error

CELL = 0.9
"""Inches of an image's side in a grid."""

DPI = 120

MOST_CELLS = 600
"""Images in a row or column of a grid: what a JPEG file has room for."""

LONGEST_SIDE = 2**16 - 1
"""Pixels of a side, where the format has no smaller limit: what matplotlib draws."""

FORMATS = frozenset(FigureCanvasBase.get_supported_filetypes())
ANIMATION_FORMATS = frozenset({"gif", "webp"})

BITS, SQUARED_ERROR = "bits/dim", "mean squared error"
"""What validation measures, and so the units of curves."""

Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values by name."""


def grid(rows: Sequence[Sequence[Tensor]], headings: Sequence[str], config: PRSRConfig) -> Figure:
    """Images in rows under headings, every pixel a square.

    Args:
        rows: ``uint8 [D, H, W]`` each, as many in a row as there are headings.
        headings: of the columns.
        config: says how many levels there are.
    """
    figure = blank(len(rows), len(headings))
    axes = figure.subplots(len(rows), len(headings), squeeze=False)
    for places, row in zip(axes, rows, strict=True):
        for place, pixels in zip(places, row, strict=True):
            show(place, pixels, config)
    for place, heading in zip(axes[0], headings, strict=True):
        place.set_title(heading, fontsize=7)
    return figure


def check_grid(rows: int, columns: int) -> None:
    """A figure can have so many rows and columns.

    Raises:
        ValueError: it cannot.
    """
    if max(rows, columns) > MOST_CELLS:
        raise ValueError(
            f"a figure has {MOST_CELLS} rows and columns at most, not {rows} and {columns}"
        )


def blank(rows: int, columns: int) -> Figure:
    """An empty figure with room for so many images."""
    size = (columns * CELL, rows * CELL + 0.3)
    return Figure(figsize=size, dpi=DPI, layout="constrained")


def show(place: Any, pixels: Tensor, config: PRSRConfig) -> Any:
    """Lay an image ``uint8 [D, H, W]`` on axes, and nothing else; matplotlib's image."""
    place.set_axis_off()
    image = np.asarray(to_pil(pixels.cpu().numpy(), config))
    return place.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def methods_figure(
    methods: Mapping[str, Method], lr: Tensor, hr: Tensor, temperature: float, seed: int
) -> Figure:
    """A row for each input: the input, what every method makes of it, and the truth."""
    check_grid(len(lr), 2 + 2 * len(methods))
    made = {}
    for label, method in methods.items():
        made[label] = method.sample(lr, temperature, seed=seed)
        if isinstance(method, IndependentSampler):
            made[f"{label},\nargmax"] = method.sample(lr, 0.0, seed=seed)
    config = next(iter(methods.values())).config
    rows = list(zip(lr, *made.values(), hr, strict=True))
    return grid(rows, ["input", *made, "truth"], config)


def temperatures_figure(
    method: Method, lr: Tensor, hr: Tensor, temperatures: Sequence[float], seed: int
) -> Figure:
    """A row for each input: samples at each temperature, of the same noise, and the truth."""
    check_grid(len(lr), 2 + len(temperatures))
    made = [method.sample(lr, temperature, seed=seed) for temperature in temperatures]
    headings = [
        f"T = {value:g}\nτ = {1 / value:.3g}" if value else "T = 0\nτ = ∞" for value in temperatures
    ]
    rows = list(zip(lr, *made, hr, strict=True))
    return grid(rows, ["input", *headings, "truth"], method.config)


def samples_figure(
    method: Method, lr: Tensor, hr: Tensor, samples: int, temperature: float, seed: int
) -> Figure:
    """A row for each input: the input, many samples of it, and the truth."""
    check_grid(len(lr), 2 + samples)
    made = method.sample(lr, temperature, seed=seed, num_samples=samples)
    rows = [[low, *drawn, truth] for low, drawn, truth in zip(lr, made, hr, strict=True)]
    return grid(rows, ["input", *[""] * samples, "truth"], method.config)


def growth_animation(
    sampler: Sampler, lr: Tensor, temperature: float, seed: int
) -> ArtistAnimation:
    """Inputs above, and below them images that grow row by row; then they stand for a while."""
    check_grid(2, len(lr))
    figure = blank(2, len(lr))
    above, below = figure.subplots(2, len(lr), squeeze=False)
    for place, pixels in zip(above, lr, strict=True):
        show(place, pixels, sampler.config)
    scale, (height, width) = sampler.config.scale, lr.shape[2:]
    frames = []
    for rows in sampler.rows(lr, temperature, seed=seed):
        canvas = rows.new_zeros(*rows.shape[:2], scale * height, scale * width)
        canvas[:, :, : rows.shape[2]] = rows
        frames.append([show(*pair, sampler.config) for pair in zip(below, canvas, strict=True)])
    frames += [frames[-1]] * (len(frames) // 2)
    return ArtistAnimation(figure, frames)


def curves_figure(runs: Sequence[Path]) -> Figure:
    """Training loss and what validation found, over steps, from TensorBoard's event files.

    A row for each unit: bits on linear axes, squared errors on logarithmic ones.

    Args:
        runs: folders that ``prsr train`` wrote.

    Raises:
        FileNotFoundError: a folder has no event files.
    """
    units: dict[str, list[tuple[str, Curves]]] = {}
    for run in runs:
        curves = read_curves(run)
        squared = f"validation/{SQUARED_ERROR}" in curves
        units.setdefault(SQUARED_ERROR if squared else BITS, []).append(
            (printable(run.name), curves)
        )
    figure = Figure(figsize=(9, 3.6 * len(units)), dpi=DPI, layout="constrained")
    rows = figure.subplots(len(units), 2, squeeze=False)
    for (left, right), (unit, group) in zip(rows, units.items(), strict=True):
        for name, curves in group:
            left.plot(*smoothed(*curves["training/loss"]), label=name)
            for measure, (steps, values) in curves.items():
                if measure.startswith("validation/"):
                    label = f"{name}: {measure.removeprefix('validation/')}"
                    right.plot(steps, values, marker="o", markersize=3, label=label)
        loss = "nats" if unit == BITS else unit
        left.set(ylabel=f"training loss, {loss}\n(mean of neighbouring steps)")
        right.set(ylabel=f"validation, {unit}")
        for place in (left, right):
            place.set(xlabel="step", yscale="linear" if unit == BITS else "log")
            place.legend(fontsize=7)
            place.grid(alpha=0.3)
    return figure


def smoothed(steps: Sequence[int], values: Sequence[float]) -> tuple[Any, Any]:
    """At most 200 points: means over neighbouring steps of equal number."""
    points = min(200, len(steps))
    parts = [np.array_split(numbers, points) for numbers in (steps, values)]
    means = [np.array([part.mean() for part in row]) for row in parts]
    return means[0], means[1]


def read_curves(run: Path) -> Curves:
    """The scalars of a run by name: steps and values.

    Raises:
        FileNotFoundError: there are no event files with a training loss.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise ImportError("training curves need tensorboard: pip install 'prsr[train]'") from error
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    if run.is_dir():
        events.Reload()
    names = events.Tags()["scalars"]
    if "training/loss" not in names:
        raise FileNotFoundError(f"no event files of a training run in {run}")
    curves = {name: events.Scalars(name) for name in names}
    return {name: ([e.step for e in es], [e.value for e in es]) for name, es in curves.items()}


def check_target(path: Path, formats: Collection[str], *, overwrite: bool = True) -> None:
    """A figure can be written to ``path``: its suffix is one of ``formats``, its folder open.

    Raises:
        FileExistsError: it would replace a file that prsr has not written, unasked.
        ValueError: the suffix names none.
        OSError: no file can be written there: see :func:`prsr.utils.files.check_file`.
    """
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: the name must end in one of {', '.join(sorted(formats))}")
    check_file(path)
    check_not_foreign(path, overwrite)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in one step, in the format that the suffix names; see :func:`check_target`."""
    check_target(path, FORMATS)
    says: dict[str, Any] = {}
    if path.suffix.lower() == ".png":
        says["metadata"] = {PROVENANCE: "figure"}
    elif path.suffix.lower() in EXIF_SUFFIXES:
        says["pil_kwargs"] = provenance_options(path, "figure")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=fitting(figure, path), **says)


def fitting(figure: Figure, path: Path) -> float:
    """Dots per inch at which a figure is as large as usual, or as its format allows."""
    most = LONGEST_SIDES.get(path.suffix.lower(), LONGEST_SIDE)
    return min(DPI, most / max(figure.get_size_inches()))


def save_animation(animation: ArtistAnimation, path: Path, seconds: float = 4.0) -> None:
    """Write an animation of so many seconds in one step; it goes on for ever."""
    check_target(path, ANIMATION_FORMATS)
    frames = list(animation.new_frame_seq())
    artists: Any = frames[0]
    dpi = fitting(artists[0].figure, path)
    with replacing(path) as temporary:
        animation.save(
            str(temporary), dpi=dpi, writer=PillowWriter(max(1, round(len(frames) / seconds)))
        )
