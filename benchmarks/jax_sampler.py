"""The comparator ``jax``: the cached sampler as one XLA program, as a careful user of JAX writes.

It computes what docs/SPEC.md defines with the complexity of its section 3. One ``jit`` contains the
loops over rows and pixels. A layer of the vertical stack is one convolution per row, the
contributions of the pixels to the left are one batched product per pixel, those of earlier colours
one per sub-pixel, and no product contains a masked weight.

At batch 1, XLA takes longer to start a kernel than to compute a small product, so the chain of a
colour has two kernels per block: one product and one gate. From the input h of a block and its gate
g, the product computes both the next input h' = h + mix·g and the next pre-activations C·h' =
C·h + (C·mix)·g. C·mix is computed in float64 when the weights are packed. NOTES.md lists what else
was tried.

Threads have images of their own, because XLA gains nothing from a second thread in one call. JAX is
optional: ``pip install jax``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.engines.base import Job
from prsr.engines.grouped_weights import Layer, PackedPrior

Array = Any
"""A NumPy array, a ``jax.Array``, or its tracer."""


class Dense(NamedTuple):
    """A matrix ``[inputs, outputs]``, or a kernel ``[rows, columns, inputs, outputs]``; a bias."""

    weight: Array
    bias: Array


class Vertical(NamedTuple):
    """A block's layer of the vertical stack.

    Attributes:
        layer: ``[p + 1, k, C, 2C]``.
        conditional: ``[F, 2C]``.
        link: ``[2C + F, 2C]``.
    """

    layer: Dense
    conditional: Array
    link: Dense


class Colour(NamedTuple):
    """The weights of one colour g, with C_g features of its own and C_<g of earlier colours.

    ``steps``, ``earlier`` and ``bias`` have an entry for each block and one for the head, each with
    4·C_g outputs: the input h of the block, half of its pre-activations, nothing, and the other
    half. The head's step has h only.

    Attributes:
        first: of the first layer, reads the earlier colours' values: ``[g, C_g]``.
        steps: ``(L + 1) × [2·C_g, 4·C_g]``, read the input and the gate of the block before. Before
            the first block, these are the first layer's output and 0.
        earlier: ``[L + 1, 2·C_<g, 4·C_g]``, read the earlier colours' inputs of this block and
            gates of the block before.
        bias: ``[L + 1, 4·C_g]``.
        hidden: ``[C_≤g, M_g]``.
        output: ``[M_≤g, K]``.
    """

    first: Array
    steps: list[Array]
    earlier: Array
    bias: Array
    hidden: Dense
    output: Dense


class Weights(NamedTuple):
    """All weights of the prior.

    Attributes:
        above: of the first vertical layer, ``[p0, k0, D, C]``.
        left: of the first horizontal layer, the pixels to the left, ``[p0·D, C]``.
        vertical: for each block.
        taps: ``[L, p·C, 2C]``, the pixels to the left.
        colours: for each colour.
    """

    above: Dense
    left: Dense
    vertical: list[Vertical]
    taps: Array
    colours: list[Colour]


def problem() -> str:
    """Why the comparator cannot run; empty if it can."""
    return "" if find_spec("jax") else "not installed (pip install jax)"


def dense(layer: Layer) -> Dense:
    """A layer as arrays; a kernel ``[outputs, inputs, rows, columns]`` is permuted."""
    weight = layer.weight.permute(2, 3, 1, 0) if layer.weight.dim() == 4 else layer.weight
    return Dense(weight.contiguous().numpy(), layer.bias.numpy())


def pack(packed: PackedPrior) -> Weights:
    """The weights in the layout of this sampler."""
    config = packed.config
    by_colour = packed.first_left.weight.unflatten(0, (config.channels, config.first_reach))
    left = Layer(by_colour.transpose(0, 1).flatten(0, 1), packed.first_left.bias)
    return Weights(
        above=dense(packed.first_vertical),
        left=dense(left),
        vertical=[
            Vertical(dense(block.vertical), block.conditional.numpy(), dense(block.link))
            for block in packed.blocks
        ],
        taps=packed.taps.numpy(),
        colours=[pack_colour(packed, colour) for colour in range(config.channels)],
    )


def pack_colour(packed: PackedPrior, colour: int) -> Colour:
    """The weights of one colour."""
    group = packed.features.ranges[colour]
    old, own = slice(group.start), slice(group.start, group.stop)
    count = group.stop - group.start
    none = torch.zeros(group.stop, count, dtype=torch.float64)
    same = torch.eye(count, dtype=torch.float64)
    centres = [block.centre[colour].double() for block in packed.blocks]
    centres.append(torch.cat([none, none], dim=1))  # nothing follows the last block
    mixes = [(none, none[0])]  # nothing precedes the first
    for block in packed.blocks:
        mix = block.mix[colour]
        mixes.append((mix.weight.double(), mix.bias.double()))
    steps, earlier, biases = [], [], []
    for centre, (mixing, bias) in zip(centres, mixes, strict=True):
        through = mixing @ centre[own]  # from gates to pre-activations
        steps.append(placed([same, centre[own]], [mixing[own], through[own]]))
        earlier.append(placed([none[old], centre[old]], [mixing[old], through[old]]))
        biases.append(placed([bias[None], bias[None] @ centre[own]])[0])
    steps[-1] = steps[-1][:, :count]
    return Colour(
        first=packed.first_own[colour].numpy(),
        steps=[step.float().numpy() for step in steps],
        earlier=torch.stack(earlier).float().numpy(),
        bias=torch.stack(biases).float().numpy(),
        hidden=dense(packed.hidden[colour]),
        output=dense(packed.output[colour]),
    )


def placed(*rows: list[Tensor]) -> Tensor:
    """Rows ``[weights of h, of pre-activations]`` in the order of outputs of :class:`Colour`."""
    parts = ((h, *gates.chunk(2, dim=1)) for h, gates in rows)
    return torch.cat([torch.cat([h, one, 0 * h, other], dim=1) for h, one, other in parts])


class Inputs(NamedTuple):
    """A job in the order in which it is read.

    Attributes:
        logits: of the conditioning network, ``[H, W, D, N, K]``.
        features: for conditional gates, ``[H, N, W, F]``.
        noise: ``[H, W, D, N]``.
        temperature: ``[N]``, above 0.
    """

    logits: Array
    features: Array
    noise: Array
    temperature: Array


def inputs_of(job: Job, images: slice) -> Inputs:
    """The inputs for some images of a job without known sub-pixels."""
    tensors = (
        job.logits[images].permute(3, 4, 2, 0, 1),
        job.features[images].permute(2, 0, 3, 1),
        job.noise[images].permute(1, 2, 3, 0),
        job.temperature[images],
    )
    return Inputs(*(tensor.contiguous().numpy() for tensor in tensors))


def program(config: PRSRConfig) -> Callable[[Weights, Inputs], Array]:
    """The function to compile. It returns the images, ``uint8 [H, W, D, N]``."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    blocks, features, colours = config.prior_layers, config.prior_channels, config.channels
    p, p0 = config.reach, config.first_reach

    def affine(x: Array, layer: Dense) -> Array:
        return x @ layer.weight + layer.bias

    def network_input(levels: Array) -> Array:
        return levels.astype(jnp.float32) / (config.levels - 1) - 0.5

    def convolution(rows: Array, layer: Dense) -> Array:
        """A row of a convolution: ``[rows, N, W + borders, inputs]`` → ``[N, W, outputs]``."""
        row = lax.conv_general_dilated(
            rows.transpose(1, 0, 2, 3),
            layer.weight,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return row[:, 0] + layer.bias

    def vertical_row(
        weights: Weights, values: Array, caches: list[Array], extra: Array
    ) -> tuple[Array, list[Array]]:
        """The vertical stack's contributions to a row, ``[W, L, N, 2C]``, and the new caches."""
        v = convolution(values, weights.above)
        above, renewed = [], []
        for (layer, conditional, link), cache in zip(weights.vertical, caches, strict=True):
            rows = jnp.concatenate([cache, jnp.pad(v, ((0, 0), (p, p), (0, 0)))[None]])
            a = convolution(rows, layer)
            if config.conditional_gates:
                a = a + extra @ conditional
            above.append(affine(jnp.concatenate([a, extra], axis=-1), link))
            renewed.append(rows[1:])
            first, second = jnp.split(a, 2, axis=-1)
            v = jnp.tanh(first) * jax.nn.sigmoid(second)
        return jnp.stack(above).transpose(2, 0, 1, 3), renewed

    def horizontal(
        colour: Colour, given: Array, h: Array, earlier: Array | None
    ) -> tuple[Array, Array]:
        """The horizontal stack at one sub-pixel.

        Args:
            colour: its weights.
            given: pre-activations without the pixel itself, ``[L, N, 2·C_g]``.
            h: output of the first layer, ``[N, C_g]``.
            earlier: what the weights of that name read, ``[L + 1, N, 2·C_<g]``; None for the first
                colour.

        Returns:
            The inputs of all blocks and the head, ``[L + 1, N, C_g]``, and all gates,
            ``[L, N, C_g]``.
        """
        count = h.shape[1]
        first, second = jnp.split(given, 2, axis=-1)
        none = jnp.zeros_like(first)
        given = jnp.concatenate([none, first, none, second], axis=-1)
        known = colour.bias[:, None] + jnp.pad(given, ((0, 1), (0, 0), (0, 0)))
        if earlier is not None:
            known = known + jnp.einsum("lni,lio->lno", earlier, colour.earlier)
        state = jnp.pad(h, ((0, 0), (0, count)))
        # XLA is faster if the features of a single image are a column, and those of several rows.
        column = h.shape[0] == 1
        steps, axis = colour.steps, -1
        is_h = jnp.arange(2 * count) < count
        if column:
            known, state, is_h, axis = known.swapaxes(1, 2), state.T, is_h[:, None], 0
        states = []
        for block in range(blocks):
            product = steps[block].T @ state if column else state @ steps[block]
            first, second = jnp.split(product + known[block], 2, axis=axis)
            # h, or tanh·σ. The division comes last because XLA computes any other last operation
            # again for each of its readers, in kernels of their own.
            gated = jnp.where(is_h, first, jnp.tanh(first))
            state = gated / (1 + jnp.where(is_h, 0, jnp.exp(-second)))
            states.append(state)
        both = jnp.stack(states)
        if column:
            known, state, both = known.swapaxes(1, 2), state.T, both.swapaxes(1, 2)
        last = state @ steps[blocks] + known[blocks, :, :count]
        return jnp.concatenate([both[..., :count], last[None]]), both[..., count:]

    def draw(logits: Array, noise: Array, temperature: Array) -> Array:
        mass = jnp.exp((logits - logits.max(axis=1, keepdims=True)) / temperature[:, None])
        cdf = jnp.cumsum(mass, axis=1)
        drawn = (cdf <= noise[:, None] * cdf[:, -1:]).sum(axis=1)
        return jnp.minimum(drawn, config.levels - 1)

    def sample(weights: Weights, inputs: Inputs) -> Array:
        _, width, _, n, _ = inputs.logits.shape

        def pixel(carry: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[Any, Array]:
            left, window = carry  # values [N, p0·D] and inputs of blocks [L, N, p·C]
            above, logits, noise = now
            given = above + jnp.einsum("lni,lio->lno", window, weights.taps)
            first = affine(left, weights.left)
            inputs_so_far: list[Array] = []
            gates: list[Array] = []
            hidden: list[Array] = []
            levels: list[Array] = []
            start = 0
            for index, colour in enumerate(weights.colours):
                end = start + colour.first.shape[1]
                h, earlier = first[:, start:end], None
                if index:
                    h = h + network_input(jnp.stack(levels, axis=1)) @ colour.first
                    before = jnp.pad(jnp.concatenate(gates, -1), ((1, 0), (0, 0), (0, 0)))
                    earlier = jnp.concatenate([*inputs_so_far, before], axis=-1)
                own, gated = horizontal(colour, given[..., 2 * start : 2 * end], h, earlier)
                inputs_so_far.append(own)
                gates.append(gated)
                seen = jnp.concatenate([each[-1] for each in inputs_so_far], axis=-1)
                hidden.append(jax.nn.relu(affine(seen, colour.hidden)))
                prior = affine(jnp.concatenate(hidden, axis=-1), colour.output)
                levels.append(draw(prior + logits[index], noise[index], inputs.temperature))
                start = end
            newest = network_input(jnp.stack(levels, axis=1))
            left = jnp.concatenate([left[:, colours:], newest], axis=-1)
            here = jnp.concatenate(inputs_so_far, axis=-1)[:-1]
            window = jnp.concatenate([window[..., features:], here], axis=-1)
            return (left, window), jnp.stack(levels).astype(jnp.uint8)

        def row(carry: tuple[Array, list[Array]], now: tuple[Array, ...]) -> tuple[Any, Array]:
            values, caches = carry  # rows above: [p0, N, W + 2·p0, D] and L × [p, N, W + 2·p, C]
            logits, extra, noise = now
            above, caches = vertical_row(weights, values, caches, extra)
            start = jnp.zeros((n, p0 * colours)), jnp.zeros((blocks, n, p * features))
            _, levels = lax.scan(pixel, start, (above, logits, noise))
            newest = network_input(levels.transpose(2, 0, 1))
            newest = jnp.pad(newest, ((0, 0), (p0, p0), (0, 0)))
            return (jnp.concatenate([values[1:], newest[None]]), caches), levels

        start = (
            jnp.zeros((p0, n, width + 2 * p0, colours)),
            [jnp.zeros((p, n, width + 2 * p, features)) for _ in range(blocks)],
        )
        return lax.scan(row, start, (inputs.logits, inputs.features, inputs.noise))[1]

    return sample


def sampler(packed: PackedPrior, job: Job, threads: int) -> Callable[[], Tensor]:
    """Compile the program for a job.

    Args:
        packed: the prior.
        job: without known sub-pixels, temperatures above 0.
        threads: each samples a part of the images.

    Returns:
        A function that samples the images of the job, ``uint8 [N, D, H, W]``.

    Raises:
        ModuleNotFoundError: JAX is not installed.
    """
    import jax

    weights = jax.device_put(pack(packed))
    parts = np.array_split(np.arange(len(job.noise)), min(threads, len(job.noise)))
    inputs = [jax.device_put(inputs_of(job, slice(each[0], each[-1] + 1))) for each in parts]
    compiled = jax.jit(program(packed.config))
    calls = [compiled.lower(weights, part).compile() for part in inputs]
    pool = ThreadPoolExecutor(len(calls))

    def work() -> Tensor:
        images = pool.map(lambda call, part: np.asarray(call(weights, part)), calls, inputs)
        return torch.from_numpy(np.concatenate(list(images), axis=-1)).permute(3, 2, 0, 1)

    return work
