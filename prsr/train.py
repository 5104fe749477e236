"""Training as the paper does it: both networks together, RMSProp, two cross-entropies.

A run lives in a folder: ``checkpoint.safetensors`` to go on from, ``model/`` to sample from (what
``PRSR.from_pretrained`` reads), ``sheets/`` with samples, and TensorBoard's event files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from prsr import processes
from prsr.augmentation import augmented_batches
from prsr.baselines import method_of
from prsr.checks import check_integer
from prsr.data import EndlessBatches, SuperResolutionPictures
from prsr.evaluate import evaluate
from prsr.files import sweep
from prsr.images import save_picture
from prsr.model import TrainedModel
from prsr.sheets import sample_sheet
from prsr.trainer import (
    CHECKPOINT_FILE,
    SHEETS_FOLDER,
    Trainer,
    TrainSettings,
    existing_checkpoint,
    has_checkpoint,
)


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

    Processes that have joined (:func:`prsr.processes.join`) share every batch, and end with the
    weights that one process would have, to rounding: gradients are averaged, and statistics of
    batch normalisation are those of the whole batch. (Biases before a batch normalisation have no
    gradient but rounding, which RMSProp makes large: they differ, and change nothing.) With
    ``start``, the run begins with that model's weights rather than with random ones.

    Raises:
        FileExistsError: the folder holds a run already and ``resume`` is false.
        FileNotFoundError: ``resume`` is true and there is nothing to go on from.
        ValueError: the checkpoint is damaged, of a run with other data or settings, or beyond
            ``plan.steps``; ``start`` has another configuration; or batches cannot be shared evenly
            by the processes.
        OSError: the folder cannot be written.
    """
    rank, world_size = processes.rank(), processes.count()
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
    if not resume and has_checkpoint(plan.folder):
        raise FileExistsError(f"{plan.folder} holds a run already: resume it, or choose another")
    checkpoint = existing_checkpoint(plan.folder) if resume else None
    trainer = Trainer(settings, training.fingerprint(), device, start)
    if checkpoint:
        trainer.restore(checkpoint)
        if trainer.step > plan.steps:
            raise ValueError(
                f"steps must be {trainer.step} at least, for {plan.folder} has been trained so far "
                f"already, got {plan.steps}"
            )
    reporter = Reporter(plan, validation, trainer)
    order = EndlessBatches(
        len(training), settings.batch_size, settings.seed, trainer.step, rank, world_size
    )
    batches: Iterator[tuple[Tensor, Tensor]] = (
        augmented_batches(training, order, settings.seed, device if device.type == "cuda" else None)
        if settings.augment
        else iter(DataLoader(training, batch_sampler=order))
    )
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
            reporter.scalars(scalars)
            if trainer.step % plan.report_every == 0 or trainer.step == plan.steps:
                reporter.report(progress)
    return trainer.model


class Reporter:
    """Writes what a run has come to: scalars, sample sheets, the checkpoint and the model.

    All processes validate and sample, each a part; the first one writes.
    """

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
        self.writer: Any = None
        if processes.rank() == 0:
            (plan.folder / SHEETS_FOLDER).mkdir(parents=True, exist_ok=True)
            for place in (plan.folder, plan.folder / SHEETS_FOLDER, plan.folder / "model"):
                sweep(place)
            self.writer = SummaryWriter(str(plan.folder), purge_step=trainer.step + 1)

    def scalars(self, values: dict[str, float]) -> None:
        """Note the scalars of one step."""
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(f"training/{name}", value, self.trainer.step)

    def report(self, progress: Progress) -> None:
        """Validate, sample, and replace the model and the checkpoint.

        The checkpoint comes last: whatever a kill leaves undone is done again after a resume.
        """
        step, model = self.trainer.step, self.trainer.model
        results = validate(model, self.validation)
        sheet = sample_sheet(self.sampler, *self.shown.batch(slice(None)), shared=True)
        if not self.writer:
            return
        for name, value in results.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        self.writer.flush()
        described = ", ".join(f"{name} {value:.4f}" for name, value in results.items())
        progress.console.print(f"step {step}: {described}", markup=False)
        save_picture(sheet, self.plan.folder / SHEETS_FOLDER / f"step-{step:07d}.png")
        model.save_pretrained(self.plan.folder / "model")
        self.trainer.save(self.plan.folder / CHECKPOINT_FILE)


def validate(model: TrainedModel, pictures: SuperResolutionPictures) -> dict[str, float]:
    """What :func:`prsr.evaluate.evaluate` gives, each process seeing its share of the pictures."""
    part = processes.share(len(pictures))
    results: dict[str, float] = {}
    if part:
        own = type(pictures)(pictures.pixels[part.start : part.stop], pictures.config)
        results = evaluate(model, own)
    parts = processes.gathered((len(part), results))
    names = parts[0][1]
    return {name: sum(n * one[name] for n, one in parts if n) / len(pictures) for name in names}
