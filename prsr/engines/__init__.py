"""Engines: each computes the sub-pixels of images from conditioning logits and a prior network.

Each engine is one module, listed in :mod:`prsr.engines.registry`; :mod:`prsr.engines.base` defines
the interface.
"""
