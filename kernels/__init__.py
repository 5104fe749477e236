"""The Triton kernels, which the engine ``triton`` launches on any GPU.

Each row of images takes two launches: ``vertical_row`` computes all layers' GEMMs over images and
columns, and ``horizontal_row`` draws the row pixel by pixel, colour by colour and layer by layer.
``device_functions`` contains the functions that both use. A program processes a *tile* of images,
and programs share nothing. Within a program, a barrier separates every write to memory from the
reads of it by other threads; the comment at the barrier names both.

Letters as in :class:`prsr.PRSRConfig`: N images of D colours and K levels; C features, L layers,
reach p, first reach p0, M hidden units; F conditioning features that gated blocks read, 0 without
conditional gates. Features and units are sorted by colour group.
"""

if __name__ != "prsr.kernels":
    raise ImportError("import these kernels as prsr.kernels, from an installed prsr")
