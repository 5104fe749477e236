"""prsr: pixel-recursive super resolution, trained in PyTorch and sampled by fast cached engines.

    pictures = prsr.sample(batch, temperature=0.9)

The model is that of Dahl, Norouzi and Shlens, *Pixel Recursive Super Resolution* (arXiv
1702.00783).
"""
# ruff: noqa: E402  (torch must not be loaded before the process is as training needs it)

from prsr.startup import start_anew_to_train

start_anew_to_train()

from importlib.metadata import version

from prsr import data, testing
from prsr.checkpoint import bundled_models
from prsr.config import PRESETS, PRSRConfig
from prsr.engines import engines
from prsr.loss import bits_per_dim, prsr_loss
from prsr.model import PRSR, PRSROutput
from prsr.philox import noise
from prsr.sampling import Sampler, sample

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
    "engines",
    "noise",
    "prsr_loss",
    "sample",
    "testing",
]
