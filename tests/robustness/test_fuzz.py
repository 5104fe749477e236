"""Every parser of external bytes returns a result or raises a clear error, for any input.

``PRSR_FUZZ`` is the number of inputs of each parser: 200, or 10,000 in ``make nightly``.
"""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from prsr import PRSR, PRSRConfig
from prsr.data.convert import convert
from prsr.data.dataset import SuperResolutionImages, read_array
from prsr.data.decoding import decode
from prsr.data.image_arrays import high_resolution, read_image
from prsr.data.repair_metadata import png_chunk
from prsr.data.sources import Lsun
from prsr.data.write_images import provenance_of
from prsr.training.trainer import Trainer, TrainSettings

INPUTS = int(os.environ.get("PRSR_FUZZ", "200"))
TINY = PRSRConfig.preset("tiny")

pytestmark = pytest.mark.filterwarnings("ignore")

fuzzed = settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    derandomize=INPUTS <= 200,  # the same inputs in CI, and new ones every night
)


@st.composite
def damaged(draw, original):
    """A file with some bytes changed, truncated, or replaced by random bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(original)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 6]))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.integers(0, 3))
        if how == 0:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == 1:
            numbers = st.sampled_from([0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1])
            order = draw(st.sampled_from("<>"))
            data[at : at + 4] = struct.pack(f"{order}I", draw(numbers))
        elif how == 2:
            data[at:at] = draw(st.binary(max_size=20))
        else:
            del data[at : at + draw(st.integers(1, 40))]
    if draw(st.integers(0, 4)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


def outcome_of(work, *errors):
    """The outcome of a call: "read", or the name of an allowed error."""
    try:
        work()
    except errors as error:
        return f"{type(error).__name__}" if str(error).strip() else "errors without a message"
    return "read"


def pixels(seed=0, shape=(12, 10, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(kind, image, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_files():
    """A file of each format, with metadata where the format has any."""
    image, exif = Image.fromarray(pixels()), Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257)
    own = {"exif": exif, "icc_profile": profile}
    return {
        "PNG": encoded("PNG", image, **own),
        "PNG of 16 bits": encoded("PNG", deep),
        "PNG of a palette": encoded("PNG", image.convert("P"), transparency=3),
        "APNG": encoded("PNG", image, save_all=True, append_images=[image]),
        "JPEG": encoded("JPEG", image, comment=b"comment", **own),
        "MPO": encoded("MPO", image, save_all=True, append_images=[image]),
        "WEBP": encoded("WEBP", image, **own),
        "AVIF": encoded("AVIF", image, **own),
        "GIF": encoded("GIF", image.convert("P")),
        "TIFF": encoded("TIFF", image, compression="tiff_lzw", **own),
        "TIFF of 16 bits": encoded("TIFF", deep),
        "BMP": encoded("BMP", image),
        "PPM": encoded("PPM", image),
        "TGA": encoded("TGA", image, compression="tga_rle"),
        "JPEG2000": encoded("JPEG2000", image),
        "ICO": encoded("ICO", image),
    }


FILES = image_files()


def test_damaged_image_files_give_an_image_or_a_clear_error(tmp_path, tally, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**16)  # damaged sizes would take minutes
    path = tmp_path / "image"

    def read():
        image = read_image(path, TINY)
        assert image.mode == "RGB"
        assert high_resolution(image, TINY).shape == (3, 6, 6)

    @fuzzed
    @given(data=st.sampled_from(sorted(FILES)).flatmap(lambda kind: damaged(FILES[kind])))
    def run(data):
        path.write_bytes(data)
        provenance_of(path)
        tally[outcome_of(read, ValueError)] += 1

    run()


PNG_KINDS = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"gAMA", b"cHRM", b"pHYs", b"sRGB"]
PNG_KINDS += [b"tIME", b"sBIT", b"hIST", b"bKGD", b"acTL", b"fcTL", b"fdAT", b"cICP", b"abCd"]


def test_any_png_metadata_leaves_the_pixels_unchanged(tally):
    original = encoded("PNG", Image.fromarray(pixels()))
    content = st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda data: b"XML:com.adobe.xmp\0\0\0\0\0" + data),
        st.binary(max_size=60).map(lambda data: b"key\0\0" + zlib.compress(data)),
        st.binary(max_size=60).map(lambda data: b"Raw profile type exif\0" + data),
    )

    @fuzzed
    @given(kind=st.sampled_from(PNG_KINDS), content=content, last=st.booleans(), flip=st.booleans())
    def run(kind, content, last, flip):
        chunk = png_chunk(kind, content)
        if flip:
            chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
        at = original.index(b"IEND" if last else b"IDAT") - 4
        image = decode(io.BytesIO(original[:at] + chunk + original[at:]), "RGB")
        assert np.array_equal(np.asarray(image), pixels())
        tally["read"] += 1

    run()


def test_any_jpeg_metadata_leaves_the_pixels_unchanged(tally):
    original = encoded("JPEG", Image.fromarray(pixels()))
    expected = np.asarray(decode(io.BytesIO(original), "RGB"))
    heads = [
        b"Exif\0\0",
        b"ICC_PROFILE\0\1\1",
        b"MPF\0",
        b"Photoshop 3.0\0",
        b"http://ns.adobe.com/",
    ]
    markers = [*range(0xE1, 0xEE), 0xEF, 0xFE]

    @fuzzed
    @given(
        marker=st.sampled_from(markers),
        head=st.sampled_from([*heads, b""]),
        content=st.binary(max_size=60),
    )
    def run(marker, head, content):
        segment = struct.pack(">BBH", 0xFF, marker, 2 + len(head + content)) + head + content
        image = decode(io.BytesIO(original[:2] + segment + original[2:]), "RGB")
        assert np.array_equal(np.asarray(image), expected)
        tally["read"] += 1

    run()


def test_damaged_array_files_give_an_array_or_a_clear_error(tmp_path, tally):
    path = tmp_path / "set.npy"
    np.save(path, pixels(shape=(2, 3, 6, 6)) % 8)
    original = path.read_bytes()

    @fuzzed
    @given(data=damaged(original), any_size=st.booleans())
    def run(data, any_size):
        path.write_bytes(data)
        tally[outcome_of(lambda: read_array(path, TINY, any_size=any_size), ValueError)] += 1

    run()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_damaged_models_give_a_model_or_a_clear_error(file, tmp_path, tally):
    PRSR(TINY).save_pretrained(tmp_path)
    original = (tmp_path / file).read_bytes()
    # Only the header of a safetensors file is parsed; any bytes are valid weights.
    head = (
        8 + int.from_bytes(original[:8], "little") if file == "model.safetensors" else len(original)
    )
    rest = original[head:]

    @fuzzed
    @given(data=damaged(original[:head]))
    def run(data):
        (tmp_path / file).write_bytes(data + rest)
        tally[outcome_of(lambda: PRSR.from_pretrained(tmp_path), ValueError, OSError)] += 1

    run()


def test_damaged_checkpoints_are_restored_or_give_a_clear_error(tmp_path, tally):
    path = tmp_path / "checkpoint.safetensors"
    trainer = Trainer(TrainSettings(TINY, batch_size=1), "data", torch.device("cpu"))
    trainer.train_step(*SuperResolutionImages(pixels(shape=(1, 3, 6, 6)) % 8, TINY).batch([0]))
    trainer.save(path)
    trainer.restore(path)
    original = path.read_bytes()
    head = 8 + int.from_bytes(original[:8], "little")

    @fuzzed
    @given(data=damaged(original[:head]))
    def run(data):
        path.write_bytes(data + original[head:])
        tally[outcome_of(lambda: trainer.restore(path), ValueError)] += 1

    run()


def test_damaged_event_files_give_curves_or_a_clear_error(tmp_path, tally):
    from torch.utils.tensorboard import SummaryWriter

    from prsr.evaluation.plots import read_curves

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(5):
            writer.add_scalar("training/loss", 1.0 / (1 + step), step)
            writer.add_scalar("validation/bits/dim", 1.0, step)
    (path,) = tmp_path.iterdir()
    original = path.read_bytes()

    @fuzzed
    @given(data=damaged(original))
    def run(data):
        path.write_bytes(data)
        tally[outcome_of(lambda: read_curves(tmp_path), ValueError, FileNotFoundError)] += 1

    run()


def test_damaged_lmdb_folders_are_converted_or_give_a_clear_error(tmp_path, tally):
    """Each input has its own process, since LMDB may crash on damaged pages."""
    import lmdb

    folder = tmp_path / "set_lmdb"
    with lmdb.open(str(folder), map_size=2**20) as environment, environment.begin(write=True) as t:
        for seed in range(6):
            t.put(f"{seed:040x}".encode(), encoded("PNG", Image.fromarray(pixels(seed))))
    path = folder / "data.mdb"
    original = path.read_bytes()

    def attempt(data):
        path.write_bytes(data)
        out = tmp_path / "set.npy"
        for end in ("", ".partial", ".journal"):
            out.with_name(out.name + end).unlink(missing_ok=True)
        return outcome_of(lambda: convert(Lsun(folder), out, TINY), ValueError, OSError)

    cut = st.integers(0, len(original)).map(lambda end: (original[:end], True))

    @fuzzed
    @given(case=st.one_of(damaged(original).map(lambda data: (data, False)), cut))
    def run(case):
        data, is_cut = case
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write_end, attempt(data).encode())
            except BaseException as error:
                os.write(write_end, f"! {error!r}".encode()[:200])
            finally:
                os._exit(0)
        os.close(write_end)
        with open(read_end, "rb") as outcome:
            result = outcome.read().decode()
        _, status = os.waitpid(child, 0)
        assert not result.startswith("!"), result
        assert result or not is_cut  # a file that is only truncated must not crash it
        tally[result or f"killed by signal {os.WTERMSIG(status)}"] += 1

    run()
