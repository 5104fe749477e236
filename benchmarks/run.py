"""What the parts of one run of ``benchmarks.cpu`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import machine
from benchmarks.bounds import needed, streamed_bytes
from benchmarks.report import Report
from benchmarks.subject import Subject
from prsr import PRSRConfig
from prsr.engines.packing import pack_prior


@dataclass
class Run:
    """One run; made, it has measured the machine.

    Attributes:
        preset: name of the model's configuration.
        rounds: in which all that is compared is timed in turn.
        quick: go through fewer sizes, and compile nothing.
        report: where the figures go.
        threads: of torch, and so of the engine.
        subject: the model.
        parts: what a pixel needs.
        streamed: bytes of weights that are read for every pixel.
        limits: of the machine, with all threads.
    """

    preset: str
    rounds: int
    quick: bool
    report: Report

    def __post_init__(self) -> None:
        self.threads = torch.get_num_threads()
        self.subject = Subject(PRSRConfig.preset(self.preset))
        self.parts = needed(pack_prior(self.subject.model.prior))
        self.streamed = streamed_bytes(self.parts)
        self.limits = machine.limits(self.streamed, self.threads)

    def choose(self, everything: tuple[int, ...], quick: tuple[int, ...]) -> tuple[int, ...]:
        """What to go through."""
        return quick if self.quick else everything

    def bar(self, what: str, value: float, **bar: Any) -> None:
        """:meth:`Report.bar`, where there is one: all are set for the preset ``paper``."""
        if self.preset == "paper":
            self.report.bar(what, value, **bar)
