"""``prsr data``: convert data sets to array files, and pack array files for transfer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from prsr.cli.options import PATH, print_line
from prsr.config import PRESETS, PRSRConfig
from prsr.data.convert import check_out, convert, was_killed_before_cleanup
from prsr.data.packed_arrays import pack, unpack
from prsr.data.sources import CELEBA_SPLITS, DataSource, HubDataset, Lsun, celeba, image_folder

UNALIGNED = 0.01
"""Share of images of an unexpected size above which faces are reported as unaligned."""


def conversion_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options --out and --preset, which all conversions have."""
    out = click.option("-o", "--out", required=True, type=PATH, help="Array file (.npy) to write.")
    preset = click.option(
        "--preset",
        default="paper",
        type=click.Choice(list(PRESETS)),
        help="Configuration of the model to train: defines image size, channels and levels.",
    )
    return out(preset(command))


@click.group()
def data() -> None:
    """Convert a data set to an array file for `prsr train --data`.

    Every image is cropped in the middle and resized bicubically to the high resolution. Images
    that cannot be read are skipped and listed. A conversion that was interrupted or killed resumes
    when the same command is run again. `pack` and `unpack` are for the transfer of array files to
    another machine.

    \b
    prsr data celeba celeba/ --split train --out celeba-train.npy
    prsr data lsun bedroom_train_lmdb/ --out bedrooms-train.npy
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)


@data.command("celeba")
@click.argument("folder", type=PATH)
@click.option("--split", required=True, type=click.Choice(CELEBA_SPLITS), help="Split to convert.")
@conversion_options
def celeba_command(folder: Path, split: str, out: Path, preset: str) -> None:
    """Convert the aligned and cropped images of CelebA.

    FOLDER has img_align_celeba/ and list_eval_partition.txt.
    """
    convert_sources(lambda: celeba(folder, split), out, preset)


@data.command("lsun")
@click.argument("folder", type=PATH)
@conversion_options
def lsun_command(folder: Path, out: Path, preset: str) -> None:
    """Convert a category of LSUN.

    FOLDER is one of its LMDB folders, such as bedroom_train_lmdb/.
    """
    convert_sources(lambda: Lsun(folder), out, preset)


@data.command("folder")
@click.argument("folder", type=PATH)
@conversion_options
def folder_command(folder: Path, out: Path, preset: str) -> None:
    """Convert all images in FOLDER and its subfolders, sorted by name."""
    convert_sources(lambda: image_folder(folder), out, preset)


@data.command("hub")
@click.argument("name")
@click.option(
    "--split",
    default="train",
    help="Split to convert, in the notation of the package datasets: train, train[:1000].",
)
@click.option("--column", help="Column of the images; required if several columns have images.")
@conversion_options
def hub_command(name: str, split: str, column: str | None, out: Path, preset: str) -> None:
    """Convert a data set of the Hugging Face hub.

    NAME is its id, or a folder that the package `datasets` can load.
    """
    convert_sources(lambda: HubDataset(name, split, column), out, preset)


@data.command("pack")
@click.argument("array", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="Archive (.zip) to write.")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="JPEG quality, which changes pixel values.  [default: lossless WebP]",
)
def pack_command(array: Path, out: Path, quality: int | None) -> None:
    """Pack ARRAY, a .npy array file, into a smaller archive.

    The archive is a zip file of strips of images, compressed as lossless WebP or JPEG. `prsr data
    unpack` restores the array file.
    """
    size = pack(array, out, quality, progress=True)
    print_line(f"wrote {out}: {size:,} bytes, {size / array.stat().st_size:.0%} of {array}")


@data.command("unpack")
@click.argument("packed", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="Array file (.npy) to write.")
def unpack_command(packed: Path, out: Path) -> None:
    """Restore an array file from PACKED, an archive of `prsr data pack`."""
    print_line(f"wrote {out}: {list(unpack(packed, out, progress=True))}")


def convert_sources(open_sources: Callable[[], DataSource], out: Path, preset: str) -> None:
    """Convert a data set, and print what was skipped, suspicious or written."""
    if not was_killed_before_cleanup(out):
        check_out(out)  # before the data set is opened, which can take minutes
    sources = open_sources()
    for fault in sources.faults:
        print_line(fault)
    result = convert(sources, out, PRSRConfig.preset(preset), progress=True)
    for name, reason in result.unreadable:
        print_line(f"skipped {name}: {reason}")
    if result.odd_sized and sources.size:
        width, height = sources.size
        print_line(
            f"{result.odd_sized} of {result.written} images are not {width}×{height} (the first: "
            f"{result.first_odd_sized})"
        )
        if result.odd_sized > UNALIGNED * result.written:
            print_line(
                "warning: these are probably not the aligned images; models trained on unaligned "
                "faces give poor samples"
            )
    print_line(f"wrote {out}: {result.written} images, {len(result.unreadable)} skipped")
