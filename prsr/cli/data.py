"""``prsr data``: data sets as people have them on disk into array files, and these packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from prsr.cli.options import PATH, say
from prsr.config import PRESETS, PRSRConfig
from prsr.data.archive import pack, unpack
from prsr.data.convert import check_out, convert
from prsr.data.sources import CELEBA_SPLITS, DataSource, HubDataset, Lsun, celeba, image_folder

UNALIGNED = 0.01
"""The share of odd images from which on a set is taken for one of unaligned faces."""


def out_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every data source."""
    out = click.option("-o", "--out", required=True, type=PATH, help="The .npy file to write.")
    preset = click.option(
        "--preset",
        default="paper",
        type=click.Choice(list(PRESETS)),
        help="The model that is to be trained on it: it decides size, colours and levels.",
    )
    return out(preset(command))


@click.group()
def data() -> None:
    """Turn a data set into an array file, which `prsr train --data` reads at once.

    Every image is cropped in the middle and reduced bicubically to the high resolution, once.
    Images that cannot be read are left out and named. A command that was interrupted or killed
    goes on where it was when it is given again. `pack` and `unpack` are for array files that
    travel to another machine.

    \b
    prsr data celeba celeba/ --split train --out celeba-train.npy
    prsr data lsun bedroom_train_lmdb/ --out bedrooms-train.npy
    """  # noqa: D301  (\b keeps lines apart, and must be that character)


@data.command("celeba")
@click.argument("folder", type=PATH)
@click.option("--split", required=True, type=click.Choice(CELEBA_SPLITS))
@out_options
def celeba_command(folder: Path, split: str, out: Path, preset: str) -> None:
    """CelebA, aligned and cropped: FOLDER holds img_align_celeba/ and list_eval_partition.txt."""
    make(lambda: celeba(folder, split), out, preset)


@data.command("lsun")
@click.argument("folder", type=PATH)
@out_options
def lsun_command(folder: Path, out: Path, preset: str) -> None:
    """A category of LSUN: FOLDER is an official LMDB, such as bedroom_train_lmdb/."""
    make(lambda: Lsun(folder), out, preset)


@data.command("folder")
@click.argument("folder", type=PATH)
@out_options
def folder_command(folder: Path, out: Path, preset: str) -> None:
    """Every image in FOLDER and below it, in order of name."""
    make(lambda: image_folder(folder), out, preset)


@data.command("hub")
@click.argument("name")
@click.option("--split", default="train", help="As the package datasets writes it.")
@click.option("--column", help="That holds the images; to be told where several do.")
@out_options
def hub_command(name: str, split: str, column: str | None, out: Path, preset: str) -> None:
    """A data set of the Hugging Face hub by NAME, or a folder that `datasets` can load."""
    make(lambda: HubDataset(name, split, column), out, preset)


@data.command("pack")
@click.argument("array", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="The .zip file to write.")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Pack as JPEG of this quality, which changes values; without it, lossless.",
)
def pack_command(array: Path, out: Path, quality: int | None) -> None:
    """Pack ARRAY, a .npy file, for a slow link to another machine: `prsr data unpack` restores it.

    The images lie in strips, lossless WebP or JPEG files, in a zip archive.
    """
    size = pack(array, out, quality, progress=True)
    say(f"wrote {out}: {size:,} bytes, {size / array.stat().st_size:.0%} of {array}")


@data.command("unpack")
@click.argument("packed", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="The .npy file to write.")
def unpack_command(packed: Path, out: Path) -> None:
    """Write the array file that PACKED, a .zip file of `prsr data pack`, was made of."""
    say(f"wrote {out}: {list(unpack(packed, out, progress=True))}")


def make(opened: Callable[[], DataSource], out: Path, preset: str) -> None:
    """Convert a data source and report the result."""
    check_out(out)  # opening the source can take minutes
    source = opened()
    for fault in source.faults:
        say(fault)
    done = convert(source, out, PRSRConfig.preset(preset), progress=True)
    for name, reason in done.unreadable:
        say(f"left out {name}: {reason}")
    if done.odd_sized and source.size:
        width, height = source.size
        say(
            f"{done.odd_sized} of {done.written} images are not {width}×{height} (the first: "
            f"{done.first_odd_sized})"
        )
        if done.odd_sized > UNALIGNED * done.written:
            say(
                "warning: so many are probably not the aligned ones. Models that are trained on "
                "unaligned faces draw bad ones."
            )
    say(f"wrote {out}: {done.written} images, {len(done.unreadable)} could not be read")
