"""The training loop and its reports.

As in the paper, both networks are trained together with two cross-entropies. The folder of a run
contains ``checkpoint.safetensors`` for resuming, ``model/`` for sampling (which
``PRSR.from_pretrained`` reads), ``sheets/`` with samples, and TensorBoard's event files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.data.write_images import save_image
from prsr.evaluation.model_metrics import mean_metrics
from prsr.models.base import TrainedModel
from prsr.sampling.method_for import method_for
from prsr.sampling.sample_sheet import sample_sheet
from prsr.training.augmentation import augmented_batches
from prsr.training.batches import batches_of
from prsr.training.progress import ProgressBars, Status
from prsr.training.settings import TrainSettings
from prsr.training.trainer import (
    CHECKPOINT_FILE,
    SHEETS_FOLDER,
    Trainer,
    existing_checkpoint,
    has_checkpoint,
)
from prsr.utils import distributed
from prsr.utils.argument_checks import check_integer, set_checked
from prsr.utils.files import check_utf8, remove_unfinished

SAMPLES_PER_IMAGE = 4
"""Number of samples of each image on a sample sheet."""

SCALARS_INTERVAL = 50
"""Steps between reads of the scalars from a GPU."""


@dataclass(frozen=True)
class RunPlan:
    """Folder, length and reports of a run; none of these affects the weights.

    Attributes:
        folder: of the run.
        steps: total number of steps, including those before a resume.
        report_every: steps between validations, sample sheets and checkpoints.
        sheet_images: number of images on a sample sheet.
    """

    folder: Path
    steps: int
    report_every: int = 1000
    sheet_images: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "report_every", "sheet_images"):
            set_checked(self, name, check_integer(getattr(self, name), name, 1, 2**63))
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
    show: Callable[[Status], None] | None = None,
) -> TrainedModel:
    """Train a model to ``plan.steps`` and report regularly.

    Processes that have joined (:func:`prsr.utils.distributed.join`) share every batch. Except for
    rounding, the weights are those of a single process: gradients are averaged, and batch
    normalisation uses the statistics of the whole batch. (Biases before a batch normalisation are
    an exception: their gradients are only rounding errors, which RMSProp scales up. These biases
    differ, but do not affect the output.)

    Args:
        settings: that determine the weights.
        plan: folder, length and reports.
        training: images to train on.
        validation: images to validate on.
        device: to train on.
        start: a model with the initial weights; None for random ones.
        resume: continue the run in the folder.
        compiled: use ``torch.compile``.
        show: shows the progress; None shows a bar in the terminal.

    Returns:
        The average of the weights if ``settings.ema`` is set, otherwise the trained model.

    Raises:
        FileExistsError: the folder contains a run and ``resume`` is false.
        FileNotFoundError: ``resume`` is true and there is no checkpoint.
        ValueError: the checkpoint is damaged, of a run with other data or settings, or beyond
            ``plan.steps``; ``plan.steps`` is beyond the end of the learning-rate schedule;
            ``start`` has another configuration; or the batch size is not a multiple of the number
            of processes.
        OSError: the folder is not writable.
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
                f"steps must be at least {trainer.step}, the step of the run in {plan.folder}, "
                f"got {plan.steps}"
            )
    bars = ProgressBars(visible=rank == 0 and show is None)
    reporter = Reporter(plan, validation, trainer, show or partial(bars.show, "training"))
    order = EndlessBatches(
        len(training), settings.batch_size, settings.seed, trainer.step, rank, world_size
    )
    resident = device if device.type == "cuda" else None
    batches = iter(
        augmented_batches(training, order, settings.seed, resident)
        if settings.augment
        else batches_of(training, order, device)
    )
    with closing(reporter), bars:
        reporter.show_progress()
        while trainer.step < plan.steps:
            reporter.add_scalars(trainer.train_step(*next(batches)))
            if trainer.step % plan.report_every == 0 or trainer.step == plan.steps:
                reporter.report()
    # The memory layout of a loaded model: another order of summation would change the last bits.
    return trainer.result.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in stubs


class Reporter:
    """Writes scalars, sample sheets, checkpoints and models of a run.

    All processes share validation and sampling; the process of rank 0 writes.
    """

    def __init__(
        self,
        plan: RunPlan,
        validation: SuperResolutionImages,
        trainer: Trainer,
        show: Callable[[Status], None],
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("training needs tensorboard: pip install 'prsr[train]'") from error
        self.plan, self.validation, self.trainer = plan, validation, trainer
        self.show = show
        self.sheet_images = validation.first(plan.sheet_images)
        self.sampler = method_for(trainer.result)
        self.writer: Any = None
        self.pending: list[dict[str, Tensor]] = []
        # Reading a scalar waits for the GPU.
        self.read_every = 1 if trainer.device.type == "cpu" else SCALARS_INTERVAL
        if distributed.rank() == 0:
            (plan.folder / SHEETS_FOLDER).mkdir(parents=True, exist_ok=True)
            for subfolder in (plan.folder, plan.folder / SHEETS_FOLDER, plan.folder / "model"):
                remove_unfinished(subfolder)
            self.writer = SummaryWriter(str(plan.folder), purge_step=trainer.step + 1)

    def close(self) -> None:
        """Write the event file to the end and close it."""
        if self.writer:
            self.writer.close()

    def show_progress(self, loss: float | None = None, report: str = "") -> None:
        """Show the number of steps taken, and what else there is."""
        self.show(Status(self.trainer.step, self.plan.steps, loss, report))

    def add_scalars(self, values: dict[str, Tensor]) -> None:
        """Collect the scalars of the last step; they are written at intervals."""
        self.pending.append(values)
        if len(self.pending) >= self.read_every:
            self.write_scalars()
        else:
            self.show_progress()

    def write_scalars(self) -> None:
        """Write the collected scalars.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        first = self.trainer.step - len(self.pending) + 1
        names = self.pending[0]
        columns = {name: torch.stack([each[name] for each in self.pending]) for name in names}
        columns["loss"] = distributed.mean(columns["loss"])
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        self.pending = []
        for step, row in enumerate(rows, first):
            values = dict(zip(columns, row, strict=True))
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(
                    f"the loss is {values['loss']} at step {step}: {self.advice()}"
                )
            if self.writer:
                for name, value in values.items():
                    self.writer.add_scalar(f"training/{name}", value, step)
        self.show_progress(values["loss"])

    def advice(self) -> str:
        """Advice after divergence; resuming would diverge again."""
        if not has_checkpoint(self.plan.folder):
            return "start again with a lower learning rate or clip"
        return (
            f"{self.plan.folder} holds the last finite state. To continue from it with a lower "
            f"learning rate or clip, start another run with --from {self.plan.folder / 'model'}"
        )

    def check_finite(self, results: dict[str, float]) -> None:
        """Check that results, weights and optimiser state are finite.

        Raises:
            FloatingPointError: one is NaN or infinite.
        """
        bad = [name for name, value in results.items() if not math.isfinite(value)]
        bad += [name for name, t in self.trainer.tensors().items() if not bool(t.isfinite().all())]
        if bad:
            step = self.trainer.step
            raise FloatingPointError(f"{bad[0]} is not finite at step {step}: {self.advice()}")

    def report(self) -> None:
        """Validate, sample, and replace the model and the checkpoint, if everything is finite.

        The checkpoint is written last, so that a resumed run repeats a report that was interrupted.

        Raises:
            FloatingPointError: the training has diverged; nothing is written.
        """
        if self.pending:
            self.write_scalars()
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
        self.show_progress(report=described)
        save_image(sheet, self.plan.folder / SHEETS_FOLDER / f"step-{step:07d}.png")
        model.save_pretrained(self.plan.folder / "model")
        self.trainer.save(self.plan.folder / CHECKPOINT_FILE)

    def sheet(self) -> Image.Image:
        """A sheet with samples of the first validation images; every process samples its share."""
        lr, hr = self.sheet_images.batch(slice(None))

        def sample_share(part: range) -> Tensor:
            return self.sampler.sample(
                lr[part.start : part.stop],
                seed=0,
                num_samples=SAMPLES_PER_IMAGE,
                first_index=part.start,
            )

        samples = torch.cat(distributed.map_shares(len(lr), sample_share))
        return sample_sheet(list(zip(lr, samples, hr, strict=True)), self.sampler.config)


def validate(model: TrainedModel, images: SuperResolutionImages) -> dict[str, float]:
    """Means of :func:`prsr.evaluation.model_metrics.mean_metrics`, computed by all processes."""

    def evaluate_share(part: range) -> tuple[int, dict[str, float]]:
        if not part:
            return 0, {}
        return len(part), mean_metrics(model, images.of(images.pixels[part.start : part.stop]))

    parts = distributed.map_shares(len(images), evaluate_share)
    names = parts[0][1]
    return {name: sum(n * one[name] for n, one in parts if n) / len(images) for name in names}
