"""Engines: each computes the sub-pixels of images from conditioning logits and a prior network.

One file is one engine, listed in :mod:`prsr.engines.registry`; :mod:`prsr.engines.base` is the
interface.
"""
