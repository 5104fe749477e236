"""The vertical stack of one row, and its contribution to the horizontal stack.

v' = gate(a), a = v ∗ kernel over rows y − p … y of the layer's input v; above = a @ link. Row y of
every layer depends only on image rows above y, so all columns are one GEMM: its rows are the
columns of a tile of images, POSITIONS of them at a time. A layer reads neighbouring columns of the
layer below, so a program has whole rows. With conditional gates, the F conditioning features of the
pixel are additional inputs of both GEMMs.

Shapes (state): ``values`` fp32 ``[N, p0 + H, p0 + W + p0, D]``, the image as the network sees it,
zero where not yet drawn; ``vertical`` ``[N, L, p + 1, p + W + p, C]``, each layer's input,
row y in slot y % (p + 1); ``gates`` ``[N, 2, W, 2C]``, pre-activations of the even and the odd
layers; ``above`` fp32 ``[N, L, W, 2C]``. Read only: ``features`` ``[N, H, W, F]``, zero beyond F up
to a multiple of IN.

Shapes (weights, zero-padded, inputs to a multiple of IN and outputs to a multiple of HALF):
``first`` ``[p0, (2·p0 + 1)·D, C]``, ``weight`` ``[L, p + 1, (2p + 1)·C, 2, C]``, ``link``
``[L, 2C, 2C]``, and their biases, fp32. In each layer the inputs of ``weight`` and of ``link`` are
followed by the conditioning features, F up to a multiple of IN.
"""

import triton
import triton.language as tl
from prsr.kernels.autotune import tuned
from prsr.kernels.device_functions import gate, gemm


@triton.jit
def places(q, n, width, IMAGES: tl.constexpr, POSITIONS: tl.constexpr):
    """Image and column of the program's POSITIONS positions from q on, and which exist."""
    place = q + tl.arange(0, POSITIONS)
    image = (tl.program_id(0) * IMAGES + place // width).to(tl.int64)
    return image, place % width, (place < IMAGES * width) & (image < n)


@triton.jit
def or_features(at, exists, features, step, IN: tl.constexpr):
    """A step's inputs and which exist: ``at``, or from step 0 on the conditioning features."""
    k = step * IN + tl.arange(0, IN)
    return tl.where(step >= 0, features[:, None] + k[None, :], at), exists | (step >= 0)


@tuned
@triton.jit(do_not_specialize=["n", "y"])
def vertical_row(
    values,
    vertical,
    gates,
    above,
    features,
    first,
    first_bias,
    weight,
    bias,
    link,
    link_bias,
    n,
    y,
    height,
    width,
    D: tl.constexpr,
    C: tl.constexpr,
    L: tl.constexpr,
    P: tl.constexpr,
    P0: tl.constexpr,
    F: tl.constexpr,
    IMAGES: tl.constexpr,
    POSITIONS: tl.constexpr,
    HALF: tl.constexpr,
    IN: tl.constexpr,
):
    """Compute row y of ``vertical`` and ``above`` for the program's IMAGES images of n."""
    OUTPUTS: tl.constexpr = (C + HALF - 1) // HALF * HALF
    FIRST: tl.constexpr = (2 * P0 + 1) * D  # inputs in one row of the image
    FIRST_STEPS: tl.constexpr = (FIRST + IN - 1) // IN
    WINDOW: tl.constexpr = (2 * P + 1) * C  # inputs in one row of a layer
    STEPS: tl.constexpr = (WINDOW + IN - 1) // IN
    LINK_STEPS: tl.constexpr = (2 * C + IN - 1) // IN
    GATE_STEPS: tl.constexpr = (F + IN - 1) // IN
    LAYER_STEPS: tl.constexpr = (P + 1) * STEPS + GATE_STEPS
    half = tl.arange(0, HALF)
    both = tl.arange(0, 2 * HALF)
    step_input = tl.arange(0, IN)
    row_size = (width + 2 * P) * C
    slot = y % (P + 1)

    for q in range(0, IMAGES * width, POSITIONS):
        image, column, live = places(q, n, width, IMAGES, POSITIONS)
        value_row = (width + 2 * P0) * D
        seen = values + image * (P0 + height) * value_row + y * value_row + column * D
        kept = vertical + (image * L * (P + 1) + slot) * row_size + (P + column) * C
        for o in range(0, C, HALF):
            total = (
                tl.zeros([POSITIONS, HALF], tl.float32) + tl.load(first_bias + o + half)[None, :]
            )
            for step in range(P0 * FIRST_STEPS):
                k = step % FIRST_STEPS * IN + step_input
                at = seen[:, None] + step // FIRST_STEPS * value_row + k[None, :]
                x = tl.load(at, mask=live[:, None] & (k < FIRST)[None, :], other=0.0)
                w = (step * IN + step_input)[:, None] * OUTPUTS + (o + half)[None, :]
                total = gemm(total, x, tl.load(first + w))
            place = live[:, None] & (o + half < C)[None, :]
            tl.store(kept[:, None] + (o + half)[None, :], total, mask=place)
    # Orders the writes of layer 0's row before the reads by neighbouring columns.
    tl.debug_barrier()

    for layer in tl.range(L, disable_licm=True):
        for q in range(0, IMAGES * width, POSITIONS):
            image, column, live = places(q, n, width, IMAGES, POSITIONS)
            rows = vertical + (image * L + layer) * (P + 1) * row_size + column * C
            scratch = gates + ((image * 2 + layer % 2) * width + column) * 2 * C
            given = features + ((image * height + y) * width + column) * GATE_STEPS * IN
            for o in range(0, C, HALF):
                biases = bias + layer * 2 * OUTPUTS + o + half
                one = tl.zeros([POSITIONS, HALF], tl.float32) + tl.load(biases)[None, :]
                two = tl.zeros([POSITIONS, HALF], tl.float32) + tl.load(biases + OUTPUTS)[None, :]
                for step in range(LAYER_STEPS):
                    # Row y − P + r is in the slot of y + 1 + r.
                    kept_row = (y + 1 + step // STEPS) % (P + 1)
                    k = step % STEPS * IN + step_input
                    at = rows[:, None] + kept_row * row_size + k[None, :]
                    exists = k < WINDOW
                    if F:
                        at, exists = or_features(at, exists, given, step - (P + 1) * STEPS, IN)
                    x = tl.load(at, mask=live[:, None] & exists[None, :], other=0.0)
                    inputs = (layer * LAYER_STEPS + step) * IN + step_input
                    w = weight + inputs[:, None] * 2 * OUTPUTS + (o + half)[None, :]
                    one = gemm(one, x, tl.load(w))
                    two = gemm(two, x, tl.load(w + OUTPUTS))
                place = live[:, None] & (o + half < C)[None, :]
                at = scratch[:, None] + (o + half)[None, :]
                tl.store(at, one, mask=place)
                tl.store(at + C, two, mask=place)
                at = rows[:, None] + ((P + 1) * row_size + slot * row_size) + P * C
                at += (o + half)[None, :]
                tl.store(at, gate(one, two), mask=place & (layer + 1 < L))
        # Orders the writes of the next layer's row before the reads by neighbouring columns, and
        # those of this layer's pre-activations before the link reads them. The next layer but one
        # overwrites these pre-activations, after the next barrier, when they have been read.
        tl.debug_barrier()
        for q in range(0, IMAGES * width, POSITIONS):
            image, column, live = places(q, n, width, IMAGES, POSITIONS)
            scratch = gates + ((image * 2 + layer % 2) * width + column) * 2 * C
            given = features + ((image * height + y) * width + column) * GATE_STEPS * IN
            out = above + ((image * L + layer) * width + column) * 2 * C
            for o in range(0, 2 * C, 2 * HALF):
                biases = tl.load(link_bias + layer * 2 * OUTPUTS + o + both)
                total = tl.zeros([POSITIONS, 2 * HALF], tl.float32) + biases[None, :]
                for step in range(LINK_STEPS + GATE_STEPS):
                    k = step * IN + step_input
                    at = scratch[:, None] + k[None, :]
                    exists = k < 2 * C
                    if F:
                        at, exists = or_features(at, exists, given, step - LINK_STEPS, IN)
                    x = tl.load(at, mask=live[:, None] & exists[None, :], other=0.0)
                    inputs = (layer * (LINK_STEPS + GATE_STEPS) + step) * IN + step_input
                    w = link + inputs[:, None] * 2 * OUTPUTS + (o + both)[None, :]
                    total = gemm(total, x, tl.load(w))
                place = live[:, None] & (o + both < 2 * C)[None, :]
                tl.store(out[:, None] + (o + both)[None, :], total, mask=place)
