"""A model in training: its settings, its optimiser, and the checkpoint that holds both.

The optimiser's numbers are those of the public re-implementations of Dahl et al. (2017): decay
0.95, momentum 0.9, ε 1e-8, learning rate 4e-4 halved every 500,000 steps, batch 32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prsr import processes
from prsr.baselines import MODELS
from prsr.checkpoint import write_tensors
from prsr.checks import check_integer
from prsr.config import PRSRConfig
from prsr.files import replacing
from prsr.model import PRSR, TrainedModel
from prsr.synchronous import synchronise

CHECKPOINT_FILE = "checkpoint.safetensors"
SHEETS_FOLDER = "sheets"


@dataclass(frozen=True)
class TrainSettings:
    """What decides the weights that a run ends with, apart from its data and its length.

    Attributes:
        config: of the model.
        batch_size: pictures of a step, over all processes.
        learning_rate: at the start.
        halve_every: steps after which the learning rate is halved, again and again.
        clip: largest norm of a step's gradient; a larger one is scaled down to it. Without it a
            rare step can undo the training.
        seed: of the initial weights and of the data's order.
        precision: "fp32", or "bf16" for mixed precision (autocast).
        method: which of ``prsr.baselines.MODELS`` is trained.
        augment: crop and mirror training images at random (:mod:`prsr.augmentation`).
    """

    config: PRSRConfig
    batch_size: int = 32
    learning_rate: float = 4e-4
    halve_every: int = 500_000
    clip: float = 1.0
    seed: int = 0
    precision: str = "fp32"
    method: str = PRSR.method
    augment: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "halve_every"):
            check_integer(getattr(self, name), name, 1, 2**31)
        check_integer(self.seed, "seed", 0, 2**63)
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision!r}")
        if self.method not in MODELS:
            raise ValueError(f"method must be of {', '.join(MODELS)}, got {self.method!r}")


class Trainer:
    """A model, its optimiser and the step it stands at; written to and read from one file.

    Args:
        settings: of the run.
        data: what it is trained on, in words that tell it from other data.
        device: to train on.
        start: a model of the same configuration whose weights to begin with, rather than with
            random ones.
    """

    def __init__(
        self,
        settings: TrainSettings,
        data: str,
        device: torch.device,
        start: TrainedModel | None = None,
    ) -> None:
        self.settings = settings
        self.data = data
        self.device = device
        self.step = 0
        torch.manual_seed(settings.seed)
        self.model = MODELS[settings.method](settings.config)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        if processes.count() > 1:
            synchronise(self.model)
        self.model.to(device)
        self.optimiser = torch.optim.RMSprop(
            self.model.parameters(),
            lr=settings.learning_rate,
            alpha=0.95,
            momentum=0.9,
            eps=1e-8,
        )
        self.parallel: nn.Module = self.model
        if processes.count() > 1:
            self.parallel = DistributedDataParallel(self.model)

    def train_step(self, lr: Tensor, hr: Tensor) -> dict[str, float]:
        """One update from a batch; returns the scalars worth watching."""
        self.model.train()
        rate = self.settings.learning_rate * 0.5 ** (self.step // self.settings.halve_every)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        lr, hr = lr.to(self.device), hr.to(self.device)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
        ):
            output = self.parallel(lr, hr)
            loss = self.model.loss(output, hr)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        self.step += 1
        with torch.no_grad():
            whole = processes.mean(loss).item()
        return {"loss": whole, "gradient norm": norm.item(), "learning rate": rate}

    def save(self, path: Path) -> None:
        """Replace the checkpoint at ``path`` in one step.

        Raises:
            OSError: the folder cannot be written.
        """
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{name}.{key}"] = value
        about = {"step": self.step, "settings": asdict(self.settings), "data": self.data}
        about["launch"] = processes.launch()
        with replacing(path) as temporary:
            write_tensors(tensors, temporary, {"prsr": json.dumps(about)})

    def checkpoint_kinds(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of the tensors of a checkpoint, by name."""
        state = self.model.state_dict().items()
        kinds = {f"model.{name}": (tuple(value.shape), value.dtype) for name, value in state}
        for name, _ in self.model.named_parameters():
            kinds[f"optimiser.{name}.step"] = (), torch.get_default_dtype()
            for key in ("square_avg", "momentum_buffer"):
                kinds[f"optimiser.{name}.{key}"] = kinds[f"model.{name}"]
        return kinds

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint that :meth:`save` wrote.

        Raises:
            ValueError: it is damaged, or of a run with other data or settings.
        """
        with readable(path) as (file, about):
            names = file.keys()  # the file itself cannot be iterated over
            tensors = {name: file.get_tensor(name).to(self.device) for name in names}
            # Older runs name neither a method nor augmentation.
            older = {"method": PRSR.method, "augment": False}
            found = {**older, **about["settings"], "data": about["data"]}
            step = check_integer(about["step"], "step", 1, 2**63)
        for name, value in {**asdict(self.settings), "data": self.data}.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{path} was trained with {name} = {found.get(name)}, not {value}: "
                    "resume with the same data and settings, or start in another folder"
                )
        kinds = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
        if kinds != self.checkpoint_kinds():
            raise ValueError(f"{path} is not a readable training checkpoint: tensors do not fit")
        self.model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        for name, parameter in self.model.named_parameters():
            prefix = f"optimiser.{name}."
            self.optimiser.state[parameter] = {
                k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
            }
        self.step = step


@contextmanager
def readable(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An open training checkpoint, and what it says of itself.

    Whatever is wrong with what is read of it is a ValueError.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["prsr"])
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable training checkpoint: {error}") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a run to go on with."""
    return (folder / CHECKPOINT_FILE).is_file()


def unreported(folder: Path) -> bool:
    """Whether a folder holds a run that ended before its first report, so has nothing to resume."""
    return (folder / SHEETS_FOLDER).is_dir() and not has_checkpoint(folder)


def of_this_launch(folder: Path) -> bool:
    """Whether a folder holds a run that this launch of torchrun began, before it restarted."""
    if not has_checkpoint(folder):
        return False
    with readable(folder / CHECKPOINT_FILE) as (_, about):
        return about.get("launch") == processes.launch()


def existing_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run.

    Raises:
        FileNotFoundError: there is none.
    """
    if not has_checkpoint(folder):
        raise FileNotFoundError(
            f"nothing to resume: no run in {folder}, which would hold a {CHECKPOINT_FILE}"
        )
    return folder / CHECKPOINT_FILE


def checkpoint_config(folder: Path) -> PRSRConfig:
    """The numbers of the model that a run trains.

    Raises:
        FileNotFoundError: there is no run to go on with.
        ValueError: its checkpoint is damaged.
    """
    with readable(existing_checkpoint(folder)) as (_, about):
        return PRSRConfig.from_dict(about["settings"]["config"])
