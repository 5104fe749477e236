"""Argument checks: each error names the argument, the given value and the accepted ones."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.utils.memory import memory_limit


def check_images(images: Tensor, name: str, config: PRSRConfig) -> None:
    """Check that images are dense ``uint8 [N, D, ·, ·]`` and have pixels.

    Raises:
        TypeError: they are not a dense ``uint8`` tensor.
        ValueError: they have another shape.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise TypeError(f"{name} must be a uint8 tensor, got {describe(images)}")
    if images.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got one of {images.layout}")
    if images.dim() != 4 or images.shape[1] != config.channels or 0 in images.shape[1:]:
        raise ValueError(
            f"{name} must be [N, {config.channels}, height, width], got {list(images.shape)}"
        )


def check_values(tensor: Tensor, name: str) -> None:
    """Check that a tensor is dense and has values; tensors on the device ``meta`` have none.

    Raises:
        TypeError: it is not dense.
        ValueError: it is on the device ``meta``.
    """
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got one of {tensor.layout}")
    if tensor.is_meta:
        raise ValueError(f"{name} must have values, but it is on the device meta")


def check_device(tensor: Tensor, name: str, device: torch.device) -> None:
    """Check that a tensor is on the model's device.

    Raises:
        ValueError: it is on another.
    """
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device} like the model, it is on {tensor.device}")


def check_pair(
    lr: Tensor, hr: Tensor, config: PRSRConfig, device: torch.device, name_of_hr: str = "hr"
) -> None:
    """Check low- and high-resolution images: ``uint8 [N, D, h, w]`` and ``uint8 [N, D, s·h, s·w]``.

    Raises:
        TypeError: one is not a dense ``uint8`` tensor.
        ValueError: the shapes do not match each other or the model's configuration, or one is not
            on the model's device.
    """
    for name, images in (("lr", lr), (name_of_hr, hr)):
        check_images(images, name, config)
        if not torch.compiler.is_compiling():  # the comparison would break the graph
            check_device(images, name, device)
    expected = (*lr.shape[:2], config.scale * lr.shape[2], config.scale * lr.shape[3])
    if tuple(hr.shape) != expected:
        raise ValueError(
            f"{name_of_hr} must be {list(expected)}, {config.scale} times lr {list(lr.shape)}, "
            f"got {list(hr.shape)}"
        )


def check_targets(hr: Tensor, logits: Tensor) -> None:
    """Check that images ``uint8 [N, D, H, W]`` match logits ``[N, K, D, H, W]``.

    Values are read on a CPU only: a training step would wait for a GPU.

    Raises:
        TypeError: they are not a ``uint8`` tensor.
        ValueError: they have another shape, or, on a CPU, a value is not below K.
    """
    if not isinstance(hr, Tensor) or hr.dtype != torch.uint8:
        raise TypeError(f"hr must be a uint8 tensor, got {describe(hr)}")
    expected = [len(logits), *logits.shape[2:]]
    if list(hr.shape) != expected:
        raise ValueError(f"hr must be {expected}, like the logits, got {list(hr.shape)}")
    if not torch.compiler.is_compiling() and hr.device.type == "cpu":  # would break the graph
        check_below(hr, "hr", logits.shape[1])


def check_levels(images: Tensor, name: str, config: PRSRConfig) -> None:
    """Check that all values of ``uint8`` images are below K.

    Raises:
        ValueError: one is not.
    """
    check_below(images, name, config.levels)


def check_below(images: Tensor, name: str, levels: int) -> None:
    """:func:`check_levels` for a number of levels."""
    if levels < 256 and images.numel() and int(images.max()) >= levels:
        raise ValueError(
            f"{name} must hold values below {levels} (the model's levels), got {int(images.max())}"
        )


def check_model(model: object) -> None:
    """Check that a model is a :class:`prsr.PRSR` or has ``config``, ``conditioning`` and ``prior``.

    Raises:
        TypeError: it is not.
    """
    missing = [part for part in ("config", "conditioning", "prior") if not hasattr(model, part)]
    if missing:
        raise TypeError(
            f"model must be a prsr.PRSR or have its parts, got {type(model).__name__} "
            f"without {', '.join(missing)}"
        )
    for part in ("conditioning", "prior"):
        if not isinstance(getattr(model, part), torch.nn.Module):
            raise TypeError(
                f"model.{part} must be a torch.nn.Module, got {describe(getattr(model, part))}"
            )


def check_integer(value: object, name: str, least: int, below: int) -> int:
    """Check an integer, Python's or NumPy's, against ``least`` … ``below`` − 1; returns an ``int``.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if not least <= number < below:
        # Python refuses to print integers of many digits.
        given = number if number.bit_length() <= 256 else f"one of {number.bit_length()} bits"
        raise ValueError(f"{name} must be from {least} to {below - 1}, got {given}")
    return number


def check_number(value: object, name: str) -> float:
    """Check a real number, Python's or NumPy's; returns a ``float``.

    Raises:
        TypeError: it is not a real number.
        ValueError: it is too large for a ``float``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be at most 1.8e308, got a larger number") from None


def set_checked(frozen: object, name: str, value: object) -> None:
    """Replace a field of a frozen dataclass by its checked value, in ``__post_init__``."""
    object.__setattr__(frozen, name, value)


def check_sample_numbers(
    seed: object, num_samples: object, first_index: object, n: int
) -> tuple[int, ...]:
    """Check the numbers that select samples of ``n`` images; returns them with defaults applied.

    Args:
        seed: None takes one from torch's generator.
        num_samples: samples per image; None is 1.
        first_index: index of the first image.
        n: number of images.

    Raises:
        TypeError: one is not an integer.
        ValueError: one is out of range.
    """
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    return (
        check_integer(seed, "seed", 0, 2**64),
        1 if num_samples is None else check_integer(num_samples, "num_samples", 1, 2**32),
        check_integer(first_index, "first_index", 0, 2**63 - n),
    )


def check_temperature(temperature: object, n: int) -> Tensor:
    """Check a temperature, or one for each of ``n`` images; returns ``float32 [n]``.

    Raises:
        TypeError: it is neither a number nor a tensor.
        ValueError: it is negative or NaN, or infinite in ``float32``, or has another shape.
    """
    if isinstance(temperature, Real) and not isinstance(temperature, bool):
        number = check_one_temperature(temperature)
        return torch.as_tensor(number, dtype=torch.float32).expand(n)
    if (
        not isinstance(temperature, Tensor)
        or temperature.is_complex()
        or temperature.dtype == torch.bool
    ):
        raise TypeError(
            f"temperature must be a number or a tensor [{n}], got {describe(temperature)}"
        )
    check_values(temperature, "temperature")
    values = temperature.float()
    if values.dim() and tuple(values.shape) != (n,):
        raise ValueError(f"temperature must be a number or [{n}], got {list(values.shape)}")
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ValueError(f"temperature must be from 0 to 3.4e38, got {temperature}")
    return values.expand(n)


def check_one_temperature(temperature: object) -> float:
    """Check a temperature that must be a number; returns a ``float``.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or NaN, or infinite in ``float32``.
    """
    number = check_number(temperature, "temperature")
    if not 0 <= number < math.inf:
        raise ValueError(f"temperature must be finite and not negative, got {number}")
    if number > torch.finfo(torch.float32).max:
        raise ValueError(f"temperature must be at most 3.4e38, got {number}")
    return number


def check_known(
    known: object, mask: object, shape: tuple[int, ...], config: PRSRConfig
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Check known sub-pixels and their mask; returns both, the mask broadcast to ``shape``.

    Raises:
        TypeError: ``known`` is not ``uint8``, or ``mask`` is not ``bool``.
        ValueError: one is given without the other, or has the wrong shape or values.
    """
    if known is None and mask is None:
        return None, None
    if known is None or mask is None:
        raise ValueError("known and mask go together: give both or neither")
    if not isinstance(known, Tensor) or known.dtype != torch.uint8:
        raise TypeError(f"known must be a uint8 tensor, got {describe(known)}")
    check_values(known, "known")
    mask = check_mask(mask, shape)
    if tuple(known.shape) != shape:
        raise ValueError(f"known must be {list(shape)}, got {list(known.shape)}")
    check_levels(known, "known", config)
    return known, mask


def check_mask(mask: object, shape: tuple[int, ...]) -> Tensor:
    """Check a mask of sub-pixels; returns it broadcast to ``shape``.

    Raises:
        TypeError: it is not a dense ``bool`` tensor.
        ValueError: it has the wrong shape, or no values.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a bool tensor, got {describe(mask)}")
    check_values(mask, "mask")
    try:
        return mask.broadcast_to(shape)
    except RuntimeError:
        raise ValueError(
            f"mask must be {list(shape)} or broadcast to it, got {list(mask.shape)}"
        ) from None


SMALL = 64 * 2**20
"""Bytes that fit in the memory of any device: reading its limit would take longer than the rest of
the checks of a call."""


def check_fits(size: int, what: str, device: torch.device) -> None:
    """Check that ``size`` bytes fit in the total memory of the device or container.

    Raises:
        ValueError: they do not.
    """
    if size <= SMALL:
        return
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = memory_limit()
    if size > memory:
        raise ValueError(
            f"{what} would take {size / 2**30:,.0f} GiB, and {device} has {memory / 2**30:,.0f} GiB"
        )


def check_finite(values: Tensor, name: str) -> None:
    """Check that no value is NaN or infinite.

    Raises:
        ValueError: one is.
    """
    # The extremes suffice, and reading in memory order makes this 20 times faster.
    in_memory = values.permute(sorted(range(values.dim()), key=values.stride().__getitem__)[::-1])
    if not all(bool(end.isfinite()) for end in in_memory.aminmax()):
        raise ValueError(f"{name} must be finite, but some values are NaN or infinite")


def describe(value: object) -> str:
    """A short description of an argument: the dtype of a tensor, or the type."""
    return f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
