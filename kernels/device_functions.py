"""Functions of both kernels: GEMMs, gates, colour groups, and the draw."""

import triton
import triton.language as tl

# The interpreter computes with NumPy, which has no bfloat16. Products of two bfloat16 are exact in
# float32, so widening both operands changes only the order of the sums.
WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def gemm(total, inputs, weights):
    """``total [A, B] + inputs [A, I] @ weights [I, B]``.

    Inputs are rounded to the dtype of the weights: fp16 and bf16 use tensor cores, fp32 is IEEE.
    Sums are fp32. An output in fp32 is one chain of fused multiply-adds in the order of the inputs,
    for any tile size.
    """
    inputs = inputs.to(weights.dtype)
    if WIDEN:
        inputs = inputs.to(tl.float32)
        weights = weights.to(tl.float32)
    return tl.dot(inputs, weights, total, input_precision="ieee")


@triton.jit
def gate(one, two):
    """``tanh(one) · σ(two)``; tanh is computed from σ, with an error below 2⁻²²."""
    return (2.0 * tl.sigmoid(2.0 * one) - 1.0) * tl.sigmoid(two)


@triton.jit
def group_start(group, features: tl.constexpr, D: tl.constexpr):
    """The first position of a colour group, where feature ``c`` belongs to group ``c % D``."""
    return group * (features // D) + tl.minimum(group, features % D)


@triton.jit
def draw(logits, noise, temperature, K: tl.constexpr, LEVELS: tl.constexpr):
    """The smallest level v with Σ_{j≤v} p_j > u, p = softmax(logits / temperature).

    Temperature 0 (greedy) is the same with u = 0 and all mass on the largest logits. A level
    without mass is never drawn, neither by rounding nor because a parallel prefix sum may vary over
    levels without mass.

    Args:
        logits: fp32 ``[A, LEVELS]``; those from K on are ignored.
        noise: u, fp32 ``[A]`` in [0, 1).
        temperature: fp32 ``[A]``, ≥ 0.

    Returns:
        int32 ``[A]``.
    """
    level = tl.arange(0, LEVELS)[None, :]
    logits = tl.where(level < K, logits, -float("inf"))
    below = logits - tl.max(logits, axis=1)[:, None]
    stochastic = temperature > 0
    scaled = below / tl.where(stochastic, temperature, 1.0)[:, None]
    # Not 0 / temperature: a GPU may flush a denormal temperature to 0.
    mass = tl.where(below == 0, 1.0, tl.where(stochastic[:, None], tl.exp(scaled), 0.0))
    cdf = tl.cumsum(mass, axis=1)
    mark = tl.where(stochastic, noise, 0.0) * tl.max(cdf, axis=1)
    reached = (mass > 0) & (cdf > mark[:, None])
    first = tl.min(tl.where(reached, level, LEVELS), axis=1)
    last = tl.max(tl.where(mass > 0, level, 0), axis=1)
    return tl.minimum(first, last)
