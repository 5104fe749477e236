"""The Triton kernels, one source for every GPU; the engine ``triton`` launches them.

A row of images takes two launches: ``vertical_row``, all layers' products over images and
columns, and ``horizontal_row``, which walks the row pixel by pixel, colour by colour and layer by
layer and draws. ``arithmetic`` is what both are made of. The kernels are programs of a *tile* of
images each, and programs share nothing; within one, a barrier stands between every write to
memory and the reads of it by other threads, and says which they are.

Letters as in :class:`prsr.PRSRConfig`: N images of D colours and K levels; C features, L layers,
reach p, first reach p0, M hidden units; F conditioning features that gated blocks read, 0 without
conditional gates. Features and units stand in order of their colour group.
"""

if __name__ != "prsr.kernels":
    raise ImportError("these kernels are the package prsr.kernels: install prsr, import them there")
