"""The trainer: a model, its optimiser and weight average, and their checkpoint."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from prsr.config import PRSRConfig
from prsr.models.base import TrainedModel
from prsr.models.model_files import write_tensors
from prsr.models.registry import MODELS
from prsr.training.settings import TrainSettings, make_average, make_optimizer
from prsr.training.sync_batchnorm import synchronise_batch_norm
from prsr.utils import distributed
from prsr.utils.argument_checks import check_integer
from prsr.utils.files import replacing

Loss = Callable[[Tensor, Tensor], Tensor]

CHECKPOINT_FILE = "checkpoint.safetensors"
SHEETS_FOLDER = "sheets"


class Trainer:
    """A model, its optimiser and the number of steps taken; saved to and restored from one file.

    Args:
        settings: of the run.
        data: fingerprint of the training data.
        device: to train on.
        start: a model of the same configuration with the initial weights; None for random ones.
        compiled: use ``torch.compile``; if that fails, warn and train without it.

    Attributes:
        model: the trained model.
        average: its exponential moving average, if ``settings.ema`` is set.
        result: the model to evaluate, sample and save: the average, or without one the model.
        step: number of steps taken.
    """

    def __init__(
        self,
        settings: TrainSettings,
        data: str,
        device: torch.device,
        start: TrainedModel | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        self.settings = settings
        self.data = data
        self.device = device
        self.step = 0
        torch.manual_seed(settings.seed)
        self.model = MODELS[settings.method](settings.config)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        if distributed.count() > 1:
            synchronise_batch_norm(self.model, device)
        self.model.to(device)
        use_channels_last(self.model)
        self.average: AveragedModel | None = None
        self.result = self.model
        if settings.ema is not None:
            self.average = make_average(self.model, settings.ema, lambda: self.step)
            self.result = cast(TrainedModel, self.average.module)
            self.result.eval()
        self.optimiser = make_optimizer(settings, self.model)
        self.parallel: nn.Module = self.model
        if distributed.count() > 1:
            self.parallel = DistributedDataParallel(self.model)
        self.loss = compiled_loss(self.plain_loss) if compiled else self.plain_loss

    def plain_loss(self, lr: Tensor, hr: Tensor) -> Tensor:
        """The loss of a batch."""
        return self.model.loss(self.parallel(lr, hr), hr)

    def train_step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Update the weights with a batch.

        Returns:
            Loss, gradient norm and learning rate, as tensors that may be on the device, so that
            nothing waits for it. The loss is that of this process's part of the batch.
        """
        self.model.train()
        rate = self.settings.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        lr, hr = (part.to(self.device, non_blocking=True) for part in (lr, hr))
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
        ):
            loss = self.loss(lr, hr)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        return {
            "loss": loss.detach(),
            "gradient norm": norm,
            "learning rate": torch.tensor(rate, dtype=torch.float64),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The content of a checkpoint by name: the trainer's own tensors, not copies.

        Before the first step this initialises the optimiser's state, which changes no weight.
        """
        from torch.distributed.checkpoint.state_dict import (  # slow to import
            StateDictOptions,
            get_optimizer_state_dict,
        )

        flat = get_optimizer_state_dict(
            self.model,
            self.optimiser,
            options=StateDictOptions(flatten_optimizer_state_dict=True),
        )
        state = with_prefix(flat, "state.")  # the other values follow from the settings
        parts = {"model": self.model.state_dict(), "optimiser": state}
        if self.average is not None:
            parts["average"] = self.result.state_dict()
        return {
            f"{part}.{name}": tensor
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    def save(self, path: Path) -> None:
        """Replace the checkpoint at ``path`` atomically.

        Raises:
            OSError: the folder is not writable.
        """
        about = {"step": self.step, "settings": asdict(self.settings), "data": self.data}
        about["launch"] = distributed.launch_id()
        with replacing(path) as temporary:
            write_tensors(self.tensors(), temporary, {"prsr": json.dumps(about)})

    def restore(self, path: Path) -> None:
        """Restore the state that :meth:`save` wrote.

        Raises:
            ValueError: the checkpoint is damaged, or of a run with other data or settings.
        """
        with open_checkpoint(path) as (file, about):
            names = file.keys()  # the file itself is not iterable
            tensors = {name: file.get_tensor(name) for name in names}
            config = PRSRConfig.from_dict(about["settings"]["config"])
            # Checkpoints from before a setting existed lack it; its default is what they used.
            found = asdict(TrainSettings(config)) | about["settings"]
            found |= {"config": config.to_dict(), "data": about["data"]}
            step = check_integer(about["step"], "step", 1, 2**63)
        for name, value in {**asdict(self.settings), "data": self.data}.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{path} was trained with {name} = {found.get(name)}, not {value}: "
                    "resume with the same data and settings, or start in another folder"
                )
        own = self.tensors()
        if shapes_and_dtypes(tensors) != shapes_and_dtypes(own):
            raise ValueError(f"{path} is not a readable training checkpoint: tensors do not fit")
        # Copied in place, because fused optimisers require the parameters' memory layout.
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        if self.average is not None:
            self.average.n_averaged.fill_(step)
        self.step = step


def shapes_and_dtypes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """The shape and dtype of each tensor, by name."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def use_channels_last(model: nn.Module) -> None:
    """Store the weights of convolutions in channels-last order, which is faster.

    Activations follow the weights. For 1×1 convolutions both orders are the same in memory;
    changing their strides would make ``DistributedDataParallel`` copy their gradients.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.kernel_size != (1, 1):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs


def with_prefix(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values whose names start with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def compiled_loss(loss: Loss) -> Loss:
    """Compile a loss with ``torch.compile``; if that fails, warn and return the loss itself.

    With one process, the whole function is compiled before anything is computed. With several, the
    communication between them is not compiled.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    try:
        compiled: Loss | None = torch.compile(loss, fullgraph=distributed.count() == 1)
    except RuntimeError as error:
        compiled = None
        warn_uncompiled(error)

    def compiled_or_plain(lr: Tensor, hr: Tensor) -> Tensor:
        nonlocal compiled
        if compiled is not None:
            try:
                return compiled(lr, hr)
            except TorchDynamoException as error:
                compiled = None
                warn_uncompiled(error)
        return loss(lr, hr)

    return compiled_or_plain


def warn_uncompiled(error: Exception) -> None:
    """Warn that the training is not compiled."""
    paragraph = " ".join(str(error).partition("\n\n")[0].split())
    reason = paragraph or type(error).__name__
    warnings.warn(f"torch.compile failed, training without it: {reason}", stacklevel=2)


@contextmanager
def open_checkpoint(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a training checkpoint; yields the file and its metadata.

    Raises:
        ValueError: the checkpoint is damaged, also if that is found while it is open.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["prsr"])
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable training checkpoint: {error}") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder contains the checkpoint of a run."""
    return (folder / CHECKPOINT_FILE).is_file()


def has_no_report(folder: Path) -> bool:
    """Whether a folder contains a run that ended before its first checkpoint."""
    return (folder / SHEETS_FOLDER).is_dir() and not has_checkpoint(folder)


def is_of_this_launch(folder: Path) -> bool:
    """Whether a folder contains a run that this launch of torchrun began before a restart."""
    if not has_checkpoint(folder):
        return False
    with open_checkpoint(folder / CHECKPOINT_FILE) as (_, about):
        return about.get("launch") == distributed.launch_id()


def should_resume(folder: Path, *, requested: bool) -> bool:
    """Whether a run in ``folder`` resumes from a checkpoint rather than starts.

    If a resume is requested but the run ended before its first report, it starts. If torchrun
    restarted this process, it resumes a run of the same launch without a request.
    """
    if requested and not has_no_report(folder):
        return True
    return distributed.is_restart() and is_of_this_launch(folder)


def existing_checkpoint(folder: Path) -> Path:
    """The path of the checkpoint of a run.

    Raises:
        FileNotFoundError: it does not exist.
    """
    if not has_checkpoint(folder):
        raise FileNotFoundError(
            f"nothing to resume: no run in {folder}, which would contain {CHECKPOINT_FILE}"
        )
    return folder / CHECKPOINT_FILE


def checkpoint_config(folder: Path) -> PRSRConfig:
    """The configuration of the model that a run trains.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: its checkpoint is damaged.
    """
    with open_checkpoint(existing_checkpoint(folder)) as (_, about):
        return PRSRConfig.from_dict(about["settings"]["config"])
