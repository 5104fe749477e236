"""Contact sheets of samples: input, bicubic, samples and, where it is known, the truth."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.contact_sheet import contact_sheet
from prsr.data.image_arrays import to_pil

SheetRow = tuple[Tensor, Tensor, Tensor | None]
"""Input ``uint8 [D, h, w]``, samples ``[S, D, H, W]``, and truth ``[D, H, W]`` or None."""


def sample_sheet(rows: Sequence[SheetRow], config: PRSRConfig) -> Image.Image:
    """One row for each image.

    Args:
        rows: one or more, all with the same number of samples.
        config: of the model.
    """
    headings = ["input", "bicubic"]
    headings += [f"sample {s + 1}" for s in range(len(rows[0][1]))]
    if any(truth is not None for _, _, truth in rows):
        headings.append("truth")
    cells = []
    for lr, samples, truth in rows:
        image = to_pil(lr.cpu().numpy(), config)
        size = (image.width * config.scale, image.height * config.scale)
        drawn = [to_pil(sample, config) for sample in samples.cpu().numpy()]
        cells.append([image, image.resize(size, Image.Resampling.BICUBIC), *drawn])
        if truth is not None:
            cells[-1].append(to_pil(truth.cpu().numpy(), config))
    return contact_sheet(cells, headings)
