"""Training as the paper does it: both networks together, RMSProp, two cross-entropies.

The optimiser's numbers are those of the public re-implementations of Dahl et al. (2017): decay
0.95, momentum 0.9, ε 1e-8, learning rate 4e-4 halved every 500,000 steps, batch 32. A run lives in
a folder: ``checkpoint.safetensors`` to go on from, ``model/`` to sample from (what
``PRSR.from_pretrained`` reads), ``sheets/`` with samples, and TensorBoard's event files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from prsr.baselines import MODELS, method_of
from prsr.checks import check_integer
from prsr.config import PRSRConfig
from prsr.data import EndlessBatches, SuperResolutionPictures
from prsr.evaluate import evaluate
from prsr.files import replacing
from prsr.images import save_picture
from prsr.model import PRSR, TrainedModel
from prsr.sheets import sample_sheet

CHECKPOINT_FILE = "checkpoint.safetensors"


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
    """

    config: PRSRConfig
    batch_size: int = 32
    learning_rate: float = 4e-4
    halve_every: int = 500_000
    clip: float = 1.0
    seed: int = 0
    precision: str = "fp32"
    method: str = PRSR.method

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
        self.model.to(device)
        self.optimiser = torch.optim.RMSprop(
            self.model.parameters(),
            lr=settings.learning_rate,
            alpha=0.95,
            momentum=0.9,
            eps=1e-8,
        )
        self.parallel: nn.Module = self.model
        if dist.is_initialized():
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
        return {"loss": loss.item(), "gradient norm": norm.item(), "learning rate": rate}

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
        with replacing(path) as temporary:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()},
                temporary,
                metadata={"prsr": json.dumps(about)},
            )

    def checkpoint_shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors of a checkpoint by name."""
        state = self.model.state_dict().items()
        shapes = {f"model.{name}": tuple(value.shape) for name, value in state}
        for name, parameter in self.model.named_parameters():
            shapes[f"optimiser.{name}.step"] = ()
            for key in ("square_avg", "momentum_buffer"):
                shapes[f"optimiser.{name}.{key}"] = tuple(parameter.shape)
        return shapes

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint that :meth:`save` wrote.

        Raises:
            ValueError: it is damaged, or of a run with other data or settings.
        """
        with readable(path) as file:
            about = json.loads((file.metadata() or {})["prsr"])
            tensors = {name: file.get_tensor(name).to(self.device) for name in file.keys()}  # noqa: SIM118
            # Runs older than the baselines name no method.
            found = {"method": PRSR.method, **about["settings"], "data": about["data"]}
            step = check_integer(about["step"], "step", 1, 2**63)
        for name, value in {**asdict(self.settings), "data": self.data}.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{path} was trained with {name} = {found.get(name)}, not {value}: "
                    "resume with the same data and settings, or start in another folder"
                )
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        if shapes != self.checkpoint_shapes():
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
def readable(path: Path) -> Iterator[Any]:
    """An open training checkpoint; whatever is wrong with what is read of it is a ValueError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable training checkpoint: {error}") from error


def checkpoint_config(folder: Path) -> PRSRConfig:
    """The numbers of the model that a run trains.

    Raises:
        FileNotFoundError: there is no run to go on with.
        ValueError: its checkpoint is damaged.
    """
    checkpoint = folder / CHECKPOINT_FILE
    if not checkpoint.is_file():
        raise FileNotFoundError(f"nothing to resume: no {CHECKPOINT_FILE} in {folder}")
    with readable(checkpoint) as file:
        about = json.loads((file.metadata() or {})["prsr"])
        return PRSRConfig.from_dict(about["settings"]["config"])


@dataclass(frozen=True)
class RunPlan:
    """Where a run lives, how long it is and how often it reports; none of it changes the weights.

    Attributes:
        folder: of the run.
        steps: to end at, counted from the beginning of the run.
        report_every: steps between validations, sample sheets and checkpoints.
        sheet_pictures: rows of a sample sheet.
    """

    folder: Path
    steps: int
    report_every: int = 1000
    sheet_pictures: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "report_every", "sheet_pictures"):
            check_integer(getattr(self, name), name, 1, 2**63)


def train(
    settings: TrainSettings,
    plan: RunPlan,
    training: SuperResolutionPictures,
    validation: SuperResolutionPictures,
    device: torch.device,
    *,
    start: TrainedModel | None = None,
    resume: bool = False,
) -> TrainedModel:
    """Train a model to ``plan.steps``, reporting on the way.

    Under ``torchrun`` each process takes its share of every batch (:func:`distributed`). With
    ``start``, the run begins with that model's weights rather than with random ones.

    Raises:
        FileExistsError: the folder holds a run already and ``resume`` is false.
        FileNotFoundError: ``resume`` is true and there is nothing to go on from.
        ValueError: the checkpoint is damaged, or of a run with other data or settings; ``start``
            has another configuration; or batches cannot be shared evenly by the processes.
        OSError: the folder cannot be written.
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if settings.batch_size % world_size:
        raise ValueError(
            f"batch_size must be a multiple of the {world_size} processes, "
            f"got {settings.batch_size}"
        )
    if start is not None and (start.method, start.config) != (settings.method, settings.config):
        raise ValueError(
            f"start must be a model of {settings.method}, {settings.config}, "
            f"got one of {start.method}, {start.config}"
        )
    checkpoint = plan.folder / CHECKPOINT_FILE
    if resume and not checkpoint.is_file():
        raise FileNotFoundError(f"nothing to resume: no {CHECKPOINT_FILE} in {plan.folder}")
    if not resume and checkpoint.is_file():
        raise FileExistsError(f"{plan.folder} holds a run already: resume it, or choose another")
    trainer = Trainer(settings, training.fingerprint(), device, start)
    if resume:
        trainer.restore(checkpoint)
    reporter = Reporter(plan, validation, trainer) if rank == 0 else None
    order = EndlessBatches(
        len(training), settings.batch_size, settings.seed, trainer.step, rank, world_size
    )
    batches: Iterator[tuple[Tensor, Tensor]] = iter(DataLoader(training, batch_sampler=order))
    with Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
        disable=rank != 0,
    ) as progress:
        task = progress.add_task("", total=plan.steps, completed=trainer.step, state="")
        while trainer.step < plan.steps:
            scalars = trainer.train_step(*next(batches))
            if not math.isfinite(scalars["loss"]):
                raise FloatingPointError(
                    f"the loss is {scalars['loss']} at step {trainer.step}: "
                    "resume from the last checkpoint with a lower learning rate or clip"
                )
            progress.update(task, completed=trainer.step, state=f"loss {scalars['loss']:.3f}")
            if reporter:
                reporter.scalars(scalars)
                if trainer.step % plan.report_every == 0 or trainer.step == plan.steps:
                    reporter.report(progress)
    return trainer.model


class Reporter:
    """Writes what a run has come to: scalars, sample sheets, the checkpoint and the model."""

    def __init__(
        self, plan: RunPlan, validation: SuperResolutionPictures, trainer: Trainer
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("training needs tensorboard: pip install 'prsr[train]'") from error
        self.plan, self.validation, self.trainer = plan, validation, trainer
        self.shown = validation.first(plan.sheet_pictures)
        self.sampler = method_of(trainer.model)
        (plan.folder / "sheets").mkdir(parents=True, exist_ok=True)
        self.writer: Any = SummaryWriter(str(plan.folder), purge_step=trainer.step + 1)

    def scalars(self, values: dict[str, float]) -> None:
        """Note the scalars of one step."""
        for name, value in values.items():
            self.writer.add_scalar(f"training/{name}", value, self.trainer.step)

    def report(self, progress: Progress) -> None:
        """Validate, sample, and replace the model and the checkpoint.

        The checkpoint comes last: whatever a kill leaves undone is done again after a resume.
        """
        step, model = self.trainer.step, self.trainer.model
        results = evaluate(model, self.validation)
        for name, value in results.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        self.writer.flush()
        described = ", ".join(f"{name} {value:.4f}" for name, value in results.items())
        progress.console.print(f"step {step}: {described}", markup=False)
        sheet = sample_sheet(self.sampler, self.shown)
        save_picture(sheet, self.plan.folder / "sheets" / f"step-{step:07d}.png")
        model.save_pretrained(self.plan.folder / "model")
        self.trainer.save(self.plan.folder / CHECKPOINT_FILE)


def distributed() -> torch.device | None:
    """Join the processes that ``torchrun`` started; the device of this one, or None without it."""
    if "LOCAL_RANK" not in os.environ:
        return None
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
        dist.init_process_group("nccl")
        return torch.device("cuda", local)
    dist.init_process_group("gloo")
    return torch.device("cpu")


def leave() -> None:
    """Leave the other processes again, if :func:`distributed` joined any."""
    if dist.is_initialized():
        dist.destroy_process_group()
