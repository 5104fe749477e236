"""Benchmarks; each reports bounds and comparators measured in the same run.

``python -m benchmarks.cpu``: speed and memory of the engine ``cpu``.
``python -m benchmarks.training``: speed of training, against plain PyTorch.
``python -m benchmarks.precision``: the error of sampling distributions in bf16.
"""
