"""The paper's figures with matplotlib: grids of images, growing images and training curves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.data.image_arrays import to_pil
from prsr.data.write_images import (
    DOCUMENT_SUFFIXES,
    EXIF_SUFFIXES,
    LONGEST_SIDES,
    PROVENANCE,
    check_not_foreign,
    provenance_options,
)
from prsr.sampling.method import Method
from prsr.sampling.sampler import Sampler
from prsr.sampling.trained_baselines import IndependentSampler
from prsr.utils.files import check_file, replacing
from prsr.utils.headless_matplotlib import load_matplotlib
from prsr.utils.terminal_messages import printable

try:
    load_matplotlib()
    from matplotlib.animation import AbstractMovieWriter, ArtistAnimation
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"figures need matplotlib: pip install 'prsr[evaluate]' ({error})") from error

CELL = 0.9
"""Side of an image in a grid, in inches."""

DPI = 120
"""Usual resolution of a figure, in dots per inch."""

MAX_CELLS = 600
"""Largest number of images in a row or column of a grid, limited by the size of a JPEG file."""

LONGEST_SIDE = 2**16 - 1
"""Longest side in pixels that matplotlib renders; some formats have a smaller limit."""

FORMATS = frozenset(FigureCanvasBase.get_supported_filetypes())
ANIMATION_FORMATS = frozenset({"gif", "webp"})

BITS, SQUARED_ERROR = "bits/dim", "mean squared error"
"""Validation metrics of models with and without likelihoods: the units of training curves."""

MAX_POINTS = 200
"""Largest number of points of a smoothed curve."""

Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values by name."""


def image_grid(
    rows: Sequence[Sequence[Tensor]], headings: Sequence[str], config: PRSRConfig
) -> Figure:
    """A grid of images with a heading above each column; every pixel is a visible square.

    Args:
        rows: ``uint8 [D, H, W]`` each, one per heading in every row.
        headings: of the columns.
        config: for K, the number of levels.
    """
    figure = empty_figure(len(rows), len(headings))
    grid = figure.subplots(len(rows), len(headings), squeeze=False)
    for row_axes, images in zip(grid, rows, strict=True):
        for axes, image in zip(row_axes, images, strict=True):
            show_image(axes, image, config)
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=7)
    return figure


def check_grid_size(rows: int, columns: int) -> None:
    """Check that a grid has at most :data:`MAX_CELLS` rows and columns.

    Raises:
        ValueError: it has more.
    """
    if max(rows, columns) > MAX_CELLS:
        raise ValueError(
            f"a figure can have at most {MAX_CELLS} rows and columns, not {rows} and {columns}"
        )


def empty_figure(rows: int, columns: int) -> Figure:
    """A figure without axes, with space for a grid of images."""
    size = (columns * CELL, rows * CELL + 0.3)
    return Figure(figsize=size, dpi=DPI, layout="constrained")


def show_image(axes: Any, image: Tensor, config: PRSRConfig) -> Any:
    """Show an image ``uint8 [D, H, W]`` on axes without ticks or frame; returns the artist."""
    axes.set_axis_off()
    pixels = np.asarray(to_pil(image.cpu().numpy(), config))
    return axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def methods_figure(
    methods: Mapping[str, Method], lr: Tensor, hr: Tensor, temperature: float, seed: int
) -> Figure:
    """A row for each input: the input, a sample by every method, and the truth.

    Args:
        methods: by label; independent methods are also sampled at temperature 0, "argmax".
        lr: inputs, ``uint8 [N, D, h, w]``.
        hr: truth, ``uint8 [N, D, H, W]``.
        temperature: sampling temperature.
        seed: seed of the noise.

    Raises:
        ValueError: the grid would be too large.
    """
    check_grid_size(len(lr), 2 + 2 * len(methods))
    columns = {}
    for label, method in methods.items():
        columns[label] = method.sample(lr, temperature, seed=seed)
        if isinstance(method, IndependentSampler):
            columns[f"{label},\nargmax"] = method.sample(lr, 0.0, seed=seed)
    config = next(iter(methods.values())).config
    rows = list(zip(lr, *columns.values(), hr, strict=True))
    return image_grid(rows, ["input", *columns, "truth"], config)


def temperatures_figure(
    method: Method, lr: Tensor, hr: Tensor, temperatures: Sequence[float], seed: int
) -> Figure:
    """A row for each input: the input, a sample at each temperature, and the truth.

    All samples of a row use the same noise.

    Args:
        method: to sample with.
        lr: inputs, ``uint8 [N, D, h, w]``.
        hr: truth, ``uint8 [N, D, H, W]``.
        temperatures: one per column.
        seed: seed of the noise.

    Raises:
        ValueError: the grid would be too large.
    """
    check_grid_size(len(lr), 2 + len(temperatures))
    columns = [method.sample(lr, temperature, seed=seed) for temperature in temperatures]
    headings = [
        f"T = {value:g}\nτ = {1 / value:.3g}" if value else "T = 0\nτ = ∞" for value in temperatures
    ]
    rows = list(zip(lr, *columns, hr, strict=True))
    return image_grid(rows, ["input", *headings, "truth"], method.config)


def samples_figure(
    method: Method, lr: Tensor, hr: Tensor, samples: int, temperature: float, seed: int
) -> Figure:
    """A row for each input: the input, several samples, and the truth.

    Args:
        method: to sample with.
        lr: inputs, ``uint8 [N, D, h, w]``.
        hr: truth, ``uint8 [N, D, H, W]``.
        samples: number of samples per input.
        temperature: sampling temperature.
        seed: seed of the noise.

    Raises:
        ValueError: the grid would be too large.
    """
    check_grid_size(len(lr), 2 + samples)
    sampled = method.sample(lr, temperature, seed=seed, num_samples=samples)
    rows = [[low, *row, truth] for low, row, truth in zip(lr, sampled, hr, strict=True)]
    return image_grid(rows, ["input", *[""] * samples, "truth"], method.config)


def growth_animation(
    sampler: Sampler, lr: Tensor, temperature: float, seed: int
) -> ArtistAnimation:
    """The inputs and, below them, their samples row by row; the last frame is held.

    Args:
        sampler: to sample with.
        lr: inputs, ``uint8 [N, D, h, w]``.
        temperature: sampling temperature.
        seed: seed of the noise.

    Raises:
        ValueError: the grid would be too large.
    """
    check_grid_size(2, len(lr))
    figure = empty_figure(2, len(lr))
    input_axes, sample_axes = figure.subplots(2, len(lr), squeeze=False)
    for axes, image in zip(input_axes, lr, strict=True):
        show_image(axes, image, sampler.config)
    scale, (height, width) = sampler.config.scale, lr.shape[2:]
    frames = []
    for rows in sampler.rows(lr, temperature, seed=seed):
        images = rows.new_zeros(*rows.shape[:2], scale * height, scale * width)
        images[:, :, : rows.shape[2]] = rows
        frames.append(
            [
                show_image(axes, image, sampler.config)
                for axes, image in zip(sample_axes, images, strict=True)
            ]
        )
    frames += [frames[-1]] * (len(frames) // 2)
    return ArtistAnimation(figure, frames)


def curves_figure(runs: Sequence[Path]) -> Figure:
    """Training loss and validation metrics over steps, read from TensorBoard event files.

    A row of plots for each unit: linear axes for bits, logarithmic axes for squared errors.

    Args:
        runs: folders written by ``prsr train``.

    Raises:
        FileNotFoundError: a folder has no event files.
        ImportError: tensorboard is not installed.
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
            left.plot(*smooth_curve(*curves["training/loss"]), label=name)
            for scalar, (steps, values) in curves.items():
                if scalar.startswith("validation/"):
                    label = f"{name}: {scalar.removeprefix('validation/')}"
                    right.plot(steps, values, marker="o", markersize=3, label=label)
        loss = "nats" if unit == BITS else unit
        left.set(ylabel=f"training loss, {loss}\n(mean of neighbouring steps)")
        right.set(ylabel=f"validation, {unit}")
        for axes in (left, right):
            axes.set(xlabel="step", yscale="linear" if unit == BITS else "log")
            axes.legend(fontsize=7)
            axes.grid(alpha=0.3)
    return figure


def smooth_curve(steps: Sequence[int], values: Sequence[float]) -> tuple[Any, Any]:
    """Steps and values averaged over equal groups of neighbours: at most :data:`MAX_POINTS`."""
    points = min(MAX_POINTS, len(steps))
    groups = [np.array_split(numbers, points) for numbers in (steps, values)]
    means = [np.array([part.mean() for part in parts]) for parts in groups]
    return means[0], means[1]


def read_curves(run: Path) -> Curves:
    """The scalars in the event files of a run: steps and values by name.

    Raises:
        FileNotFoundError: there are no event files with a training loss.
        ImportError: tensorboard is not installed.
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


def check_plot_path(path: Path, formats: Collection[str], *, overwrite: bool = True) -> None:
    """Check that a figure can be written to ``path``.

    Args:
        path: of the file.
        formats: accepted suffixes, without the dot.
        overwrite: whether files that prsr did not write may be replaced.

    Raises:
        FileExistsError: such a file exists, and ``overwrite`` is false.
        ValueError: the suffix is none of ``formats``.
        OSError: no file can be written there (:func:`prsr.utils.files.check_file`).
    """
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: the name must end in one of {', '.join(sorted(formats))}")
    check_file(path)
    check_not_foreign(path, overwrite)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix; the file is replaced atomically.

    Raises:
        ValueError, OSError: see :func:`check_plot_path`.
    """
    check_plot_path(path, FORMATS)
    options: dict[str, Any] = {}
    if path.suffix.lower() == ".png":
        options["metadata"] = {PROVENANCE: "figure"}
    elif path.suffix.lower() in DOCUMENT_SUFFIXES:
        options["metadata"] = {"Creator": f"{PROVENANCE}: figure"}
    elif path.suffix.lower() in EXIF_SUFFIXES | {".gif"}:
        options["pil_kwargs"] = provenance_options(path, "figure")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi_within_limits(figure, path), **options)


def dpi_within_limits(figure: Figure, path: Path) -> float:
    """Dots per inch for a figure: :data:`DPI`, or less where its file format has a size limit."""
    longest_side = LONGEST_SIDES.get(path.suffix.lower(), LONGEST_SIDE)
    return min(DPI, longest_side / max(figure.get_size_inches()))


def save_animation(animation: ArtistAnimation, path: Path, seconds: float = 4.0) -> None:
    """Write an animation that loops; the file is replaced atomically.

    Args:
        animation: to write.
        path: of a GIF or WebP file.
        seconds: duration of one loop, approximately.

    Raises:
        ValueError, OSError: see :func:`check_plot_path`.
    """
    check_plot_path(path, ANIMATION_FORMATS)
    frames = list(animation.new_frame_seq())
    artists: Any = frames[0]
    dpi = dpi_within_limits(artists[0].figure, path)
    with replacing(path) as temporary:
        animation.save(
            str(temporary), dpi=dpi, writer=AnimationWriter(max(1, round(len(frames) / seconds)))
        )


class AnimationWriter(AbstractMovieWriter):
    """Writes an animation that loops, with prsr's provenance text; matplotlib's cannot store it."""

    @override
    def setup(self, fig: Figure, outfile: str | Path, dpi: float | None = None) -> None:
        """Begin a file."""
        super().setup(fig, outfile, dpi)
        self.frames: list[Image.Image] = []

    @override
    def grab_frame(self, **options: Any) -> None:
        """Add the figure as it is now; it has no transparent pixels."""
        pixels = BytesIO()
        self.fig.savefig(pixels, format="rgba", dpi=self.dpi, **options)
        frame = Image.frombytes("RGBA", self.frame_size, pixels.getvalue())
        self.frames.append(frame.convert("RGB"))

    @override
    def finish(self) -> None:
        """Write the file."""
        path = Path(self.outfile)
        self.frames[0].save(
            path,
            save_all=True,
            append_images=self.frames[1:],
            duration=round(1000 / self.fps),
            loop=0,
            **provenance_options(path, "animation"),
        )
