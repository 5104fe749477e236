"""Training as the paper does it: both networks together, RMSProp, two cross-entropies.

The optimiser's numbers are those of the public re-implementations of Dahl et al. (2017): decay
0.95, momentum 0.9, ε 1e-8, learning rate 4e-4 halved every 500,000 steps, batch 32. A run lives in
a folder: ``checkpoint.safetensors`` to go on from, ``model/`` to sample from (what
``PRSR.from_pretrained`` reads), ``sheets/`` with samples, and TensorBoard's event files.
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from prsr import processes
from prsr.baselines import MODELS, method_of
from prsr.checkpoint import write_tensors
from prsr.checks import check_integer
from prsr.config import PRSRConfig
from prsr.data import EndlessBatches, SuperResolutionPictures
from prsr.evaluate import evaluate
from prsr.files import replacing, sweep
from prsr.images import save_picture
from prsr.model import PRSR, TrainedModel
from prsr.sheets import sample_sheet
from prsr.synchronous import synchronise

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
        with readable(path) as file:
            about = json.loads((file.metadata() or {})["prsr"])
            names = file.keys()  # the file itself cannot be iterated over
            tensors = {name: file.get_tensor(name).to(self.device) for name in names}
            # Runs older than the baselines name no method.
            found = {"method": PRSR.method, **about["settings"], "data": about["data"]}
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
def readable(path: Path) -> Iterator[Any]:
    """An open training checkpoint; whatever is wrong with what is read of it is a ValueError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable training checkpoint: {error}") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a run to go on with."""
    return (folder / CHECKPOINT_FILE).is_file()


def of_this_launch(folder: Path) -> bool:
    """Whether a folder holds a run that this launch of torchrun began, before it restarted."""
    if not has_checkpoint(folder):
        return False
    with readable(folder / CHECKPOINT_FILE) as file:
        about = json.loads((file.metadata() or {})["prsr"])
        return about.get("launch") == processes.launch()


def existing_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run.

    Raises:
        FileNotFoundError: there is none.
    """
    if not has_checkpoint(folder):
        raise FileNotFoundError(
            f"nothing to resume: no {CHECKPOINT_FILE} in {folder}; a run that was killed before "
            "its first report begins anew, without --resume"
        )
    return folder / CHECKPOINT_FILE


def checkpoint_config(folder: Path) -> PRSRConfig:
    """The numbers of the model that a run trains.

    Raises:
        FileNotFoundError: there is no run to go on with.
        ValueError: its checkpoint is damaged.
    """
    with readable(existing_checkpoint(folder)) as file:
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
            (plan.folder / "sheets").mkdir(parents=True, exist_ok=True)
            for place in (plan.folder, plan.folder / "sheets", plan.folder / "model"):
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
        sheet = sample_sheet(self.sampler, self.shown, shared=True)
        if not self.writer:
            return
        for name, value in results.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        self.writer.flush()
        described = ", ".join(f"{name} {value:.4f}" for name, value in results.items())
        progress.console.print(f"step {step}: {described}", markup=False)
        save_picture(sheet, self.plan.folder / "sheets" / f"step-{step:07d}.png")
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
