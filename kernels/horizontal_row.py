"""The horizontal stack, the head and the draws of one row: one launch draws all its pixels.

A program processes a tile of IMAGES images. At each pixel it first sums, for all layers, the
contributions of the vertical stack and of the pixels to the left. Then, colour by colour, it goes
through the chain of layers with the colour's own features in registers, and adds their
contributions to the sums of later colours. Therefore only the colour's own centre tap, gate and own
mix depend on the previous layer.

Shapes (state): ``image`` uint8 ``[N, D, H, W]``, ``known`` bool ``[N, D, H, W]``; ``values`` fp32
``[N, p0 + H, p0 + W + p0, D]``; ``above`` fp32 ``[N, L, W, 2C]``; ``horizontal``
``[N, L + 1, p + W, C]``, each layer's input and the head's; ``given`` fp32 ``[N, L, 3C]``, partial
sums of a layer's pre-activations (2C, group by group, both halves of the gate) and of its mix (C);
``gated`` ``[N, L, C_g]``; ``hidden`` ``[N, M]``; ``conditioning`` fp32 ``[N, H, W, D, K]``;
``noise`` fp32 ``[N, H, W, D]``; ``temperature`` fp32 ``[N]``.

Shapes (weights; zero-padded, C_g to a multiple of GROUP, other inputs to a multiple of IN, other
outputs to a multiple of HALF, UNITS or LEVELS): ``first`` ``[D, (p0 + 1)·D, C_g]``, ``taps``
``[L, p·C, 2C]``, ``centre`` ``[L, D, 2, C_g, C_g]``, ``mix`` ``[L, D, C_g, C_g]``, ``later_centre``
``[L, D, C_g, 2C]`` and ``later_mix`` ``[L, D, C_g, C]`` (to the colours after g), ``hidden_weight``
``[D, C, M_g]``, ``output`` ``[D, M, K]``, and biases, fp32: ``mix_bias`` ``[L, C]``, the others by
colour.
"""

import triton
import triton.language as tl
from prsr.kernels.autotune import tuned
from prsr.kernels.device_functions import draw, gate, gemm, group_start

# An array of the state is passed as the address of the program's first image and the `stride`
# between images. The address of an element is then a uniform address plus a short offset; a pointer
# per element would fill the registers.


@triton.jit
def read(first, stride, column, seen, IMAGES: tl.constexpr):
    """``[IMAGES, B]``: the elements of each image at B columns, 0 where not ``seen``."""
    image = tl.arange(0, IMAGES)[:, None]
    return tl.load(first + (image * stride + column[None, :]), mask=seen, other=0.0)


@triton.jit
def write(first, stride, column, values, seen, IMAGES: tl.constexpr):
    """The inverse of :func:`read`."""
    image = tl.arange(0, IMAGES)[:, None]
    tl.store(first + (image * stride + column[None, :]), values, mask=seen)


@triton.jit
def biased(bias, IMAGES: tl.constexpr):
    """The bias at addresses ``[B]``, repeated for each image: fp32 ``[IMAGES, B]``."""
    return tl.zeros([IMAGES, bias.shape[0]], tl.float32) + tl.load(bias)[None, :]


@triton.jit
def accumulate(total, source, stride, count, weight, row, live, IMAGES: tl.constexpr,
               IN: tl.constexpr):  # fmt: skip
    """``total [IMAGES, B] + source [IMAGES, count] @ weight [count, B]``, IN inputs at a time.

    Args:
        source: address of the first input of the first image; images are ``stride`` apart.
        weight: addresses ``[B]`` of the first input's weights; inputs are ``row`` apart, and padded
            with zeros to a multiple of IN.
    """
    for i in range(0, count, IN):
        k = i + tl.arange(0, IN)
        seen = live[:, None] & (k < count)[None, :]
        inputs = read(source, stride, k, seen, IMAGES)
        total = gemm(total, inputs, tl.load(weight[None, :] + k[:, None] * row))
    return total


@triton.jit
def add_left(sums, above, above_stride, above_size, left, left_stride, left_size, taps, mix_bias,
             live, C: tl.constexpr, L: tl.constexpr, P: tl.constexpr, IMAGES: tl.constexpr,
             HALF: tl.constexpr, IN: tl.constexpr):  # fmt: skip
    """Initialise the sums of all layers at a pixel: vertical stack, pixels to the left, biases.

    Args:
        sums: ``[L, 3C]``.
        above: ``[L, 2C]`` at this pixel; layers are ``above_size`` apart.
        left: ``[L, p·C]`` to the left of it; layers are ``left_size`` apart.
    """
    OUTPUTS: tl.constexpr = (C + HALF - 1) // HALF * HALF
    ROWS: tl.constexpr = (P * C + IN - 1) // IN * IN
    for layer in range(L):
        for o in range(0, 2 * C, 2 * HALF):
            out = o + tl.arange(0, 2 * HALF)
            exists = live[:, None] & (out < 2 * C)[None, :]
            total = read(above + layer * above_size, above_stride, out, exists, IMAGES)
            total = accumulate(total, left + layer * left_size, left_stride, P * C,
                               taps + layer * ROWS * 2 * OUTPUTS + out, 2 * OUTPUTS, live, IMAGES,
                               IN)  # fmt: skip
            write(sums + layer * 3 * C, L * 3 * C, out, total, exists, IMAGES)
        for o in range(0, C, HALF):
            out = o + tl.arange(0, HALF)
            exists = live[:, None] & (out < C)[None, :]
            bias = biased(mix_bias + layer * OUTPUTS + out, IMAGES)
            write(sums + layer * 3 * C + 2 * C, L * 3 * C, out, bias, exists, IMAGES)


@triton.jit
def first_layer(inputs, stride, weight, bias, g, out, live, D: tl.constexpr, P0: tl.constexpr,
                IMAGES: tl.constexpr, GROUP: tl.constexpr, WHOLE: tl.constexpr,
                IN: tl.constexpr):  # fmt: skip
    """The features ``out`` ``[GROUP]`` of colour g in the first layer.

    Args:
        inputs: ``[(p0 + 1)·D]``, the values to the left and those of this pixel.
    """
    ROWS: tl.constexpr = ((P0 + 1) * D + IN - 1) // IN * IN
    return accumulate(biased(bias + g * WHOLE + out, IMAGES), inputs, stride, P0 * D + g,
                      weight + g * ROWS * WHOLE + out, WHOLE, live, IMAGES, IN)  # fmt: skip


@triton.jit
def chain(own, kept, kept_stride, kept_size, sums, gates, centre, mix, g, live, D: tl.constexpr,
          C: tl.constexpr, L: tl.constexpr, IMAGES: tl.constexpr,
          GROUP: tl.constexpr):  # fmt: skip
    """Propagate colour g's features of the first layer, ``own`` ``[IMAGES, GROUP]``, to the head.

    Args:
        kept: destination of the inputs of all layers and of the head, ``[L + 1, C]`` at this pixel;
            layers are ``kept_size`` apart.
        sums: ``[L, 3C]``, complete for this colour except for its own contribution.
        gates: destination of the gates' outputs, ``[L, GROUP]``.
    """
    start = group_start(g, C, D)
    size = group_start(g + 1, C, D) - start
    feature = tl.arange(0, GROUP)
    mine = live[:, None] & (feature < size)[None, :]
    for layer in range(L):
        write(kept + layer * kept_size + start, kept_stride, feature, own, mine, IMAGES)
        given = sums + layer * 3 * C
        one = read(given + 2 * start, L * 3 * C, feature, mine, IMAGES)
        two = read(given + 2 * start + size, L * 3 * C, feature, mine, IMAGES)
        mixed = read(given + 2 * C + start, L * 3 * C, feature, mine, IMAGES)
        square = feature[:, None] * GROUP + feature[None, :]
        taps = centre + (layer * D + g) * 2 * GROUP * GROUP + square
        gated = gate(gemm(one, own, tl.load(taps)), gemm(two, own, tl.load(taps + GROUP * GROUP)))
        write(gates + layer * GROUP, L * GROUP, feature, gated, mine, IMAGES)
        weights = tl.load(mix + (layer * D + g) * GROUP * GROUP + square)
        own += gemm(mixed, gated, weights)
    write(kept + L * kept_size + start, kept_stride, feature, own, mine, IMAGES)


@triton.jit
def wide_chain(values, value_stride, first, first_bias, kept, kept_stride, kept_size, sums, gates,
               centre, mix, g, live, D: tl.constexpr, C: tl.constexpr, L: tl.constexpr,
               P0: tl.constexpr, IMAGES: tl.constexpr, GROUP: tl.constexpr, WHOLE: tl.constexpr,
               IN: tl.constexpr):  # fmt: skip
    """:func:`first_layer` and :func:`chain` for more features than fit the registers.

    Features go through memory, GROUP at a time. The residual input of a layer is added to the sum
    of its mix.
    """
    start = group_start(g, C, D)
    size = group_start(g + 1, C, D) - start
    for layer in range(L + 1):
        given = sums + layer * 3 * C
        for o in range(0, size, GROUP):
            out = o + tl.arange(0, GROUP)
            mine = live[:, None] & (out < size)[None, :]
            if layer == 0:
                own = first_layer(values, value_stride, first, first_bias, g, out, live, D, P0,
                                  IMAGES, GROUP, WHOLE, IN)  # fmt: skip
            else:
                own = read(given - C + start, L * 3 * C, out, mine, IMAGES)
                own = accumulate(own, gates + (layer - 1) * WHOLE, L * WHOLE, size,
                                 mix + ((layer - 1) * D + g) * WHOLE * WHOLE + out, WHOLE, live,
                                 IMAGES, GROUP)  # fmt: skip
            write(kept + layer * kept_size + start, kept_stride, out, own, mine, IMAGES)
            if layer < L:
                own += read(given + 2 * C + start, L * 3 * C, out, mine, IMAGES)
                write(given + 2 * C + start, L * 3 * C, out, own, mine, IMAGES)
        if layer < L:
            # Orders the writes of the layer's input before the reads by other groups.
            tl.debug_barrier()
            for o in range(0, size, GROUP):
                out = o + tl.arange(0, GROUP)
                mine = live[:, None] & (out < size)[None, :]
                inputs = kept + layer * kept_size + start
                taps = centre + (layer * D + g) * 2 * WHOLE * WHOLE + out
                one = read(given + 2 * start, L * 3 * C, out, mine, IMAGES)
                one = accumulate(one, inputs, kept_stride, size, taps, WHOLE, live, IMAGES, GROUP)
                two = read(given + 2 * start + size, L * 3 * C, out, mine, IMAGES)
                two = accumulate(two, inputs, kept_stride, size, taps + WHOLE * WHOLE, WHOLE, live,
                                 IMAGES, GROUP)  # fmt: skip
                write(gates + layer * WHOLE, L * WHOLE, out, gate(one, two), mine, IMAGES)
            # Orders the writes of the gates before the reads by other groups.
            tl.debug_barrier()


@triton.jit
def propagate(source, source_stride, source_size, sums, weight, g, first, end, live,
              D: tl.constexpr, C: tl.constexpr, L: tl.constexpr, IMAGES: tl.constexpr,
              WHOLE: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
              PADDED: tl.constexpr):  # fmt: skip
    """Add the contribution of colour g to the sums of all layers, outputs ``first`` to ``end``.

    Args:
        source: ``[L, C_g]``; layers are ``source_size`` apart.
        sums: ``[L, 3C]``, starting at the first output of ``weight``.
        weight: ``[L, D, WHOLE, PADDED]``, read OUT outputs at a time.
    """
    size = group_start(g + 1, C, D) - group_start(g, C, D)
    for layer in range(L):
        for o in range(0, PADDED, OUT):
            out = o + tl.arange(0, OUT)
            later = live[:, None] & ((out >= first) & (out < end))[None, :]
            total = read(sums + layer * 3 * C, L * 3 * C, out, later, IMAGES)
            total = accumulate(total, source + layer * source_size, source_stride, size,
                               weight + (layer * D + g) * WHOLE * PADDED + out, PADDED, live,
                               IMAGES, IN)  # fmt: skip
            write(sums + layer * 3 * C, L * 3 * C, out, total, later, IMAGES)


@triton.jit
def head_units(units, features, feature_stride, weight, bias, g, live, D: tl.constexpr,
               C: tl.constexpr, M: tl.constexpr, IMAGES: tl.constexpr, UNITS: tl.constexpr,
               IN: tl.constexpr):  # fmt: skip
    """Compute colour g's hidden units from the features of the colours up to and including g.

    Args:
        units: destination, ``[M]``.
        features: the head's input, ``[C]``.
    """
    ROWS: tl.constexpr = (C + IN - 1) // IN * IN
    PADDED: tl.constexpr = ((M + D - 1) // D + UNITS - 1) // UNITS * UNITS
    start = group_start(g, M, D)
    size = group_start(g + 1, M, D) - start
    for u in range(0, size, UNITS):
        unit = u + tl.arange(0, UNITS)
        total = accumulate(biased(bias + g * PADDED + unit, IMAGES), features, feature_stride,
                           group_start(g + 1, C, D), weight + g * ROWS * PADDED + unit, PADDED,
                           live, IMAGES, IN)  # fmt: skip
        exists = live[:, None] & (unit < size)[None, :]
        write(units + start, M, unit, tl.maximum(total, 0.0), exists, IMAGES)


@tuned
@triton.jit(do_not_specialize=["n", "y"])
def horizontal_row(
    image,
    known,
    values,
    above,
    horizontal,
    given,
    gated,
    hidden,
    conditioning,
    noise,
    temperature,
    first,
    first_bias,
    taps,
    centre,
    mix,
    mix_bias,
    later_centre,
    later_mix,
    hidden_weight,
    hidden_bias,
    output,
    output_bias,
    n,
    y,
    height,
    width,
    D: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    L: tl.constexpr,
    M: tl.constexpr,
    P: tl.constexpr,
    P0: tl.constexpr,
    IMAGES: tl.constexpr,
    HALF: tl.constexpr,
    GROUP: tl.constexpr,
    UNITS: tl.constexpr,
    LEVELS: tl.constexpr,
    IN: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Draw row y of the program's IMAGES images, starting at IMAGES · program, of n images."""
    OUTPUTS: tl.constexpr = (C + HALF - 1) // HALF * HALF
    UNIT_ROWS: tl.constexpr = (M + IN - 1) // IN * IN
    WHOLE: tl.constexpr = ((C + D - 1) // D + GROUP - 1) // GROUP * GROUP
    OWN_IN: tl.constexpr = IN if IN < GROUP else GROUP
    first_image = (tl.program_id(0) * IMAGES).to(tl.int64)
    index = tl.arange(0, IMAGES)
    live = first_image + index < n
    level = tl.arange(0, LEVELS)
    feature = tl.arange(0, GROUP)
    temperatures = tl.load(temperature + first_image + index, mask=live, other=1.0)
    value_row = (width + 2 * P0) * D
    value_stride = (P0 + height) * value_row
    kept_size = (P + width) * C
    kept_stride = (L + 1) * kept_size
    sums = given + first_image * L * 3 * C
    gates = gated + first_image * L * WHOLE
    units = hidden + first_image * M
    # Loop-invariant values are cheap to recompute and many: hoisted, they would fill the registers.
    for x in tl.range(width, disable_licm=True):
        value = values + (first_image * (P0 + height) + P0 + y) * value_row + x * D
        left = horizontal + first_image * kept_stride + x * C
        kept = left + P * C
        link = above + (first_image * L * width + x) * 2 * C
        add_left(sums, link, L * width * 2 * C, width * 2 * C, left, kept_stride, kept_size, taps,
                 mix_bias, live, C, L, P, IMAGES, HALF, IN)  # fmt: skip
        # Orders the writes of the sums before the chain reads them.
        tl.debug_barrier()
        for g in tl.range(D, disable_licm=True):
            if WHOLE == GROUP:
                own = first_layer(value, value_stride, first, first_bias, g, feature, live, D, P0,
                                  IMAGES, GROUP, WHOLE, IN)  # fmt: skip
                chain(own, kept, kept_stride, kept_size, sums, gates, centre, mix, g, live, D, C, L,
                      IMAGES, GROUP)  # fmt: skip
            else:
                wide_chain(value, value_stride, first, first_bias, kept, kept_stride, kept_size,
                           sums, gates, centre, mix, g, live, D, C, L, P0, IMAGES, GROUP, WHOLE,
                           IN)  # fmt: skip
            # Orders the writes of the colour's features and gates before the reads below, and the
            # reads of its sums before the next pixel overwrites them.
            tl.debug_barrier()
            start = group_start(g, C, D)
            stop = group_start(g + 1, C, D)
            if g + 1 < D:
                propagate(kept + start, kept_stride, kept_size, sums, later_centre, g, 2 * stop,
                          2 * C, live, D, C, L, IMAGES, WHOLE, OWN_IN, 2 * HALF,
                          2 * OUTPUTS)  # fmt: skip
                propagate(gates, L * WHOLE, WHOLE, sums + 2 * C, later_mix, g, stop, C, live, D, C,
                          L, IMAGES, WHOLE, OWN_IN, HALF, OUTPUTS)  # fmt: skip
            head_units(units, kept + L * kept_size, kept_stride, hidden_weight, hidden_bias, g,
                       live, D, C, M, IMAGES, UNITS, IN)  # fmt: skip
            # Orders the writes of the hidden units before the logits read them, and those of the
            # sums before the next colour's chain reads them.
            tl.debug_barrier()
            sub_pixel = ((first_image * height + y) * width + x) * D + g
            sub_pixels = height * width * D
            exists = live[:, None] & (level < K)[None, :]
            logits = read(conditioning + sub_pixel * K, sub_pixels * K, level, exists, IMAGES)
            logits += tl.load(output_bias + g * LEVELS + level)[None, :]
            logits = accumulate(logits, units, M, group_start(g + 1, M, D),
                                output + g * UNIT_ROWS * LEVELS + level, LEVELS, live, IMAGES,
                                IN)  # fmt: skip
            uniform = tl.load(noise + sub_pixel + index * sub_pixels, mask=live, other=0.0)
            drawn = draw(logits, uniform, temperatures, K, LEVELS)
            place = ((first_image * D + g) * height + y) * width + x
            if MASKED:
                taken = tl.load(image + place + index * sub_pixels, mask=live, other=0)
                given_here = tl.load(known + place + index * sub_pixels, mask=live, other=0) != 0
                drawn = tl.where(given_here, taken.to(tl.int32), drawn)
            tl.store(image + place + index * sub_pixels, drawn.to(tl.uint8), mask=live)
            network = tl.div_rn(drawn.to(tl.float32), K - 1.0) - 0.5
            tl.store(value + P0 * D + g + index * value_stride, network, mask=live)
            # Orders the write of the value before the next colour and the next pixel read it, the
            # reads of hidden units before the next pixel overwrites them, and the reads of features
            # and gates before the next colour overwrites them.
            tl.debug_barrier()
