"""What both kernels are made of: products, gates, colour groups, and the draw."""

import triton
import triton.language as tl

# The interpreter computes with NumPy, which has no bfloat16; products of two bfloat16 are exact in
# float32, so widening both changes nothing but the order of the sums.
WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def product(total, inputs, weights):
    """``total [A, B] + inputs [A, I] @ weights [I, B]``.

    In IEEE fp32, or on tensor cores in fp16 or bf16.

    The inputs are rounded to the type of the weights; sums are fp32. An output of an fp32 product
    is one chain of fused multiply-adds in the order of the inputs, whatever the tile.
    """
    inputs = inputs.to(weights.dtype)
    if WIDEN:
        inputs = inputs.to(tl.float32)
        weights = weights.to(tl.float32)
    return tl.dot(inputs, weights, total, input_precision="ieee")


@triton.jit
def gate(one, two):
    """``tanh(one) · σ(two)``; tanh by way of σ, within 2⁻²² of it."""
    return (2.0 * tl.sigmoid(2.0 * one) - 1.0) * tl.sigmoid(two)


@triton.jit
def group_start(group, features: tl.constexpr, D: tl.constexpr):
    """Where a colour group begins among features of which ``c`` belongs to group ``c % D``."""
    return group * (features // D) + tl.minimum(group, features % D)


@triton.jit
def draw(logits, noise, temperature, K: tl.constexpr, LEVELS: tl.constexpr):
    """The smallest level v with Σ_{j≤v} p_j > u, p = softmax(logits / temperature).

    Greedy (temperature 0) is the same with u = 0 and mass on the largest logits alone. A level
    without mass is never drawn: neither for rounding, nor because a parallel sum of nothing but
    zeros may not be constant.

    Args:
        logits: fp32 ``[A, LEVELS]``, those from K on are not looked at.
        noise: u, fp32 ``[A]`` in [0, 1).
        temperature: fp32 ``[A]``, ≥ 0.

    Returns:
        int32 ``[A]``.
    """
    level = tl.arange(0, LEVELS)[None, :]
    logits = tl.where(level < K, logits, -float("inf"))
    below = logits - tl.max(logits, axis=1)[:, None]
    warm = temperature > 0
    scaled = below / tl.where(warm, temperature, 1.0)[:, None]
    # Not 0 / temperature: where the temperature is denormal, a GPU may take it for 0.
    mass = tl.where(below == 0, 1.0, tl.where(warm[:, None], tl.exp(scaled), 0.0))
    cdf = tl.cumsum(mass, axis=1)
    mark = tl.where(warm, noise, 0.0) * tl.max(cdf, axis=1)
    reached = (mass > 0) & (cdf > mark[:, None])
    first = tl.min(tl.where(reached, level, LEVELS), axis=1)
    last = tl.max(tl.where(mass > 0, level, 0), axis=1)
    return tl.minimum(first, last)
