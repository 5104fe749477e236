"""What happens when a GPU runs out of memory: slices are halved, or an error says what would fit.

The slice size (:mod:`prsr.sampling.slice_size`) assumes that nothing else uses the GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
"""torch's allocator raises the first, the CUDA extension the second."""

Rows = Callable[[int, int], Iterator[int]]
"""Draws the samples from a start to before a stop; yields the number of finished rows."""


def draw_slices(count: int, size: int, rows: Rows, advance: Callable[[int], None]) -> None:
    """Draw ``count`` samples in slices of ``size``, halved whenever one does not fit in memory.

    A slice that failed is drawn again from its first row, so ``rows`` must not depend on what its
    samples contain already.

    Args:
        count: the number of samples.
        size: the largest number of samples of a slice.
        rows: draws a slice.
        advance: is called with the number of finished rows of samples, which is negative for those
            that have to be drawn again.

    Raises:
        torch.OutOfMemoryError: a single sample does not fit.
    """
    start = 0
    while start < count:
        stop = min(start + size, count)
        failure = try_slice(start, stop, rows, advance)
        if failure is None:
            start = stop
            continue
        torch.cuda.empty_cache()
        if stop - start == 1:
            raise torch.OutOfMemoryError(
                f"a single sample does not fit in the free memory: {failure}"
            )
        size = -(-(stop - start) // 2)


def try_slice(start: int, stop: int, rows: Rows, advance: Callable[[int], None]) -> str | None:
    """Draw one slice; returns the error's message if it does not fit, otherwise None.

    The exception itself is not returned, because its traceback keeps the slice's memory alive.
    """
    finished = 0
    try:
        for row in rows(start, stop):
            advance((row - finished) * (stop - start))
            finished = row
    except OUT_OF_MEMORY as error:
        advance(-finished * (stop - start))
        return str(error)
    return None


def explain(rows: Iterator[int], count: int, what_would_fit: Callable[[], int]) -> Iterator[int]:
    """Iterate over the rows of a batch that cannot be sliced.

    Args:
        rows: draws the batch.
        count: the number of samples of the batch.
        what_would_fit: estimates how many samples fit in the free memory.

    Raises:
        torch.OutOfMemoryError: the batch does not fit; the message says how many samples would.
    """
    try:
        yield from rows
    except OUT_OF_MEMORY as error:
        failure = str(error)
    else:
        return
    torch.cuda.empty_cache()
    raise torch.OutOfMemoryError(
        f"{count} samples at a time do not fit in the free memory; about {what_would_fit():,} "
        f"would. Stream fewer at a time, or use sample(), which draws in slices: {failure}"
    )
