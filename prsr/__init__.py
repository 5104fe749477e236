"""Pixel recursive super resolution: models trained in PyTorch, sampled by fast cached engines.

    images = prsr.sample(batch, temperature=0.9)

The model is that of Dahl, Norouzi and Shlens, *Pixel Recursive Super Resolution* (arXiv
1702.00783).
"""
# ruff: noqa: E402  (the process must restart before torch is imported)

from prsr.training_environment import restart_with_training_environment

restart_with_training_environment()

from importlib.metadata import version

from prsr import data, testing
from prsr.config import PRESETS, PRSRConfig
from prsr.engines.registry import list_engines
from prsr.models.losses import prsr_loss
from prsr.models.model_files import bundled_models
from prsr.models.networks import PRSROutput
from prsr.models.prsr import PRSR, bits_per_dim
from prsr.sampling.noise import noise
from prsr.sampling.sampler import Sampler, sample

__version__ = version("prsr")

__all__ = [
    "PRESETS",
    "PRSR",
    "PRSRConfig",
    "PRSROutput",
    "Sampler",
    "__version__",
    "bits_per_dim",
    "bundled_models",
    "data",
    "list_engines",
    "noise",
    "prsr_loss",
    "sample",
    "testing",
]
