"""Training as the paper does it: both networks together, two cross-entropies.

A run lives in a folder: ``checkpoint.safetensors`` to go on from, ``model/`` to sample from (what
``PRSR.from_pretrained`` reads), ``sheets/`` with samples, and TensorBoard's event files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.data.image_files import save_image
from prsr.evaluation.likelihood import mean_metrics
from prsr.models.base import TrainedModel
from prsr.sampling.baselines import method_for
from prsr.sampling.sample_sheet import sample_sheet
from prsr.training.augmentation import augmented_batches
from prsr.training.batches import batches_of
from prsr.training.recipe import TrainSettings
from prsr.training.trainer import (
    CHECKPOINT_FILE,
    SHEETS_FOLDER,
    Trainer,
    existing_checkpoint,
    has_checkpoint,
)
from prsr.utils import distributed
from prsr.utils.argument_checks import check_integer
from prsr.utils.files import check_utf8, remove_unfinished

SHEET_SAMPLES = 4
"""Samples of each image on a sheet."""

READ_EVERY = 50
"""Steps on a GPU between readings of its scalars."""


@dataclass(frozen=True)
class RunPlan:
    """Where a run lives, how long it is and how often it reports; none of it changes the weights.

    Attributes:
        folder: of the run.
        steps: to end at, counted from the beginning of the run.
        report_every: steps between validations, sample sheets and checkpoints.
        sheet_images: rows of a sample sheet.
    """

    folder: Path
    steps: int
    report_every: int = 1000
    sheet_images: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "report_every", "sheet_images"):
            check_integer(getattr(self, name), name, 1, 2**63)
        check_utf8(self.folder)


def train(
    settings: TrainSettings,
    plan: RunPlan,
    training: SuperResolutionImages,
    validation: SuperResolutionImages,
    device: torch.device,
    *,
    start: TrainedModel | None = None,
    resume: bool = False,
    compiled: bool = False,
) -> TrainedModel:
    """Train a model to ``plan.steps``, reporting on the way.

    Processes that have joined (:func:`prsr.utils.distributed.join`) share every batch, and end
    with the weights that one process would have, to rounding: gradients are averaged, and
    statistics of batch normalisation are those of the whole batch. (Biases before a batch
    normalisation have no gradient but rounding, which RMSProp makes large: they differ, and change
    nothing.) With ``start``, the run begins with that model's weights rather than with random ones;
    ``compiled`` is for ``torch.compile``.

    Returns:
        The model that the run is for: the average, where the settings want one.

    Raises:
        FileExistsError: the folder holds a run already and ``resume`` is false.
        FileNotFoundError: ``resume`` is true and there is nothing to go on from.
        ValueError: the checkpoint is damaged, of a run with other data or settings, or beyond
            ``plan.steps``; ``plan.steps`` is beyond the end of the settings' schedule; ``start``
            has another configuration; or batches cannot be shared evenly by the processes.
        OSError: the folder cannot be written.
    """
    rank, world_size = distributed.rank(), distributed.count()
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
    if settings.schedule_steps is not None and plan.steps > settings.schedule_steps:
        raise ValueError(
            f"steps must be at most {settings.schedule_steps}, where the schedule "
            f"{settings.schedule} ends, got {plan.steps}"
        )
    if not resume and has_checkpoint(plan.folder):
        raise FileExistsError(f"{plan.folder} holds a run already: resume it, or choose another")
    checkpoint = existing_checkpoint(plan.folder) if resume else None
    trainer = Trainer(settings, training.fingerprint(), device, start, compiled=compiled)
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
    resident = device if device.type == "cuda" else None
    batches = iter(
        augmented_batches(training, order, settings.seed, resident)
        if settings.augment
        else batches_of(training, order, device)
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
            reporter.scalars(trainer.train_step(*next(batches)), progress, task)
            if trainer.step % plan.report_every == 0 or trainer.step == plan.steps:
                reporter.report(progress, task)
    # As it lies in memory when it is loaded: sums in another order would differ in the last bits.
    return trainer.result.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in stubs


class Reporter:
    """Writes what a run has come to: scalars, sample sheets, the checkpoint and the model.

    All processes validate and sample, each a part; the first one writes.
    """

    def __init__(self, plan: RunPlan, validation: SuperResolutionImages, trainer: Trainer) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("training needs tensorboard: pip install 'prsr[train]'") from error
        self.plan, self.validation, self.trainer = plan, validation, trainer
        self.shown = validation.first(plan.sheet_images)
        self.sampler = method_for(trainer.result)
        self.writer: Any = None
        self.unread: list[dict[str, Tensor]] = []
        # To read what a GPU has computed is to wait for it.
        self.read_every = 1 if trainer.device.type == "cpu" else READ_EVERY
        if distributed.rank() == 0:
            (plan.folder / SHEETS_FOLDER).mkdir(parents=True, exist_ok=True)
            for place in (plan.folder, plan.folder / SHEETS_FOLDER, plan.folder / "model"):
                remove_unfinished(place)
            self.writer = SummaryWriter(str(plan.folder), purge_step=trainer.step + 1)

    def scalars(self, values: dict[str, Tensor], progress: Progress, task: TaskID) -> None:
        """Note the scalars of the step that was just taken, all of which are read now and then."""
        self.unread.append(values)
        progress.update(task, completed=self.trainer.step)
        if len(self.unread) >= self.read_every:
            self.read(progress, task)

    def read(self, progress: Progress, task: TaskID) -> None:
        """Read the scalars that have been noted, and write them.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        first = self.trainer.step - len(self.unread) + 1
        columns = {name: torch.stack([one[name] for one in self.unread]) for name in self.unread[0]}
        columns["loss"] = distributed.mean(columns["loss"])
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        self.unread = []
        for step, row in enumerate(rows, first):
            values = dict(zip(columns, row, strict=True))
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(
                    f"the loss is {values['loss']} at step {step}: {self.advice()}"
                )
            if self.writer:
                for name, value in values.items():
                    self.writer.add_scalar(f"training/{name}", value, step)
            progress.update(task, state=f"loss {values['loss']:.3f}")

    def advice(self) -> str:
        """What to do about a training that has diverged; a resumed one would diverge again."""
        if not has_checkpoint(self.plan.folder):
            return "begin anew with a lower learning rate or clip"
        return (
            f"{self.plan.folder} holds the run as it last was finite. To go on from there with a "
            f"lower learning rate or clip, begin another run: --from {self.plan.folder / 'model'}"
        )

    def check_finite(self, results: dict[str, float]) -> None:
        """Nothing that a report would write is NaN or infinite.

        Raises:
            FloatingPointError: a weight, a value of the optimiser's or a result is.
        """
        bad = [name for name, value in results.items() if not math.isfinite(value)]
        bad += [name for name, t in self.trainer.tensors().items() if not bool(t.isfinite().all())]
        if bad:
            step = self.trainer.step
            raise FloatingPointError(f"{bad[0]} is not finite at step {step}: {self.advice()}")

    def report(self, progress: Progress, task: TaskID) -> None:
        """Validate, sample, and replace the model and the checkpoint, if all is finite.

        The checkpoint comes last: whatever a kill leaves undone is done again after a resume.

        Raises:
            FloatingPointError: the training has diverged; nothing is written.
        """
        if self.unread:
            self.read(progress, task)
        step, model = self.trainer.step, self.trainer.result
        results = validate(model, self.validation)
        if self.trainer.average is not None:
            raw = validate(self.trainer.model, self.validation)
            results |= {f"{name}, raw weights": value for name, value in raw.items()}
        self.check_finite(results)
        sheet = self.sheet()
        if not self.writer:
            return
        for name, value in results.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        self.writer.flush()
        described = ", ".join(f"{name} {value:.4f}" for name, value in results.items())
        progress.console.print(f"step {step}: {described}", markup=False)
        save_image(sheet, self.plan.folder / SHEETS_FOLDER / f"step-{step:07d}.png")
        model.save_pretrained(self.plan.folder / "model")
        self.trainer.save(self.plan.folder / CHECKPOINT_FILE)

    def sheet(self) -> Image.Image:
        """Samples of the first validation images; every process draws its share."""
        lr, hr = self.shown.batch(slice(None))

        def draw(part: range) -> Tensor:
            inputs = lr[part.start : part.stop]
            first = part.start
            return self.sampler.sample(inputs, seed=0, num_samples=SHEET_SAMPLES, first_index=first)

        samples = torch.cat(distributed.map_shares(len(lr), draw))
        return sample_sheet(list(zip(lr, samples, hr, strict=True)), self.sampler.config)


def validate(model: TrainedModel, images: SuperResolutionImages) -> dict[str, float]:
    """What :func:`prsr.evaluation.likelihood.mean_metrics` gives, from all processes' shares."""

    def of(part: range) -> tuple[int, dict[str, float]]:
        own = type(images)(images.pixels[part.start : part.stop], images.config)
        return len(part), mean_metrics(model, own) if part else {}

    parts = distributed.map_shares(len(images), of)
    names = parts[0][1]
    return {name: sum(n * one[name] for n, one in parts if n) / len(images) for name in names}
