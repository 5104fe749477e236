"""Measurements, each with bounds and comparators from the same run.

``python -m benchmarks.cpu``: speed and memory of the engine ``cpu``.
``python -m benchmarks.training``: speed of training, against plain PyTorch.
``python -m benchmarks.precision``: what bf16 in the head does to the distributions drawn from.
"""
