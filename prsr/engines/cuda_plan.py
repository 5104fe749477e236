"""How the CUDA kernels divide a job: a function of the model, the number of images and the GPU.

The GPU enters as plain data (:class:`Card`), so that ``prsr info`` and tests compute what a launch
computes. Results are bit-identical for every plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from prsr.engines.cuda_formats import STEP, steps_of
from prsr.engines.cuda_layout import LOOK_AHEAD, Variant, group_features

CLUSTERS = (16, 8, 4, 2)
"""Cluster sizes in blocks, largest first; if none fits, there are no clusters."""

ALONE = 16
"""Clusters of this size serve one tile each: they minimise latency."""

WARPS = 8  # per block

OPERANDS = {
    "tf32": "fp32 as two tf32 numbers",
    "split": "fp32 as two fp16 numbers (tf32 if weights do not prove the range)",
    "fp16": "fp16",
    "bf16": "bf16",
}
"""Descriptions of formats."""

NARROW = 2
"""The most steps of a colour's features whose chain one warp computes in its registers."""


@dataclass(frozen=True)
class Plan:
    """How the images of a job are divided.

    Attributes:
        cluster: blocks per cluster of ``horizontal_row``.
        tiles: tiles of 16 images that a cluster draws.
        images_per_block: images per block of ``vertical_row``.
        shared_loads: whether a warp of ``vertical_row`` computes two tiles at a time.
    """

    cluster: int
    tiles: int
    images_per_block: int
    shared_loads: bool


@dataclass(frozen=True)
class SharedMemory:
    """The shared memory of a block of ``horizontal_row``.

    Attributes:
        size: bytes per block.
        given_offset: where the sums of the chain are, in bytes; -1 if in global memory.
        chain_offset: the same of the weights of the chain.
        hidden_offset: the same of the weights of hidden units, in blocks that lead no tile.
        output_colour: the first colour whose weights from hidden units to a block's logits are in
            shared memory; D if none.
        output_offset: where these are, in bytes.
    """

    size: int
    given_offset: int
    chain_offset: int
    hidden_offset: int
    output_colour: int
    output_offset: int


@dataclass(frozen=True)
class Card:
    """The properties of a GPU that a plan depends on.

    Attributes:
        multiprocessors: their number.
        shared_limit: the most bytes of shared memory per block.
        active_clusters: how many clusters run concurrently, by precision, blocks per cluster and
            bytes of shared memory per block; 0 if that size is not supported.
    """

    multiprocessors: int
    shared_limit: int
    active_clusters: Callable[[str, int, int], int]

    @classmethod
    def current(cls, extension: ModuleType) -> Card:
        """The current device of the extension ``prsr._cuda``."""
        multiprocessors = extension.active_clusters("bf16", 1, 0)
        return cls(multiprocessors, extension.shared_limit(), extension.active_clusters)


@dataclass(frozen=True)
class Planner:
    """Chooses launch parameters.

    Attributes:
        extension: ``prsr._cuda``, whose function ``plan_shared_memory`` needs no GPU.
        card: the GPU.
        variant: the kernels.
    """

    extension: ModuleType
    card: Card
    variant: Variant

    def shared_memory(self, cluster: int, tiles: int) -> SharedMemory | None:
        """The shared memory of blocks of such clusters; None if it exceeds the GPU's limit."""
        config, sizes = self.variant.config, self.variant.sizes
        row = self.extension.HorizontalRow(**dict.fromkeys(self.extension.HorizontalRow.fields, 0))
        row.channels, row.layers, row.tiles = config.channels, config.prior_layers, tiles
        row.group_steps, row.unit_steps = sizes.group, sizes.units
        row.level_pairs = sizes.level_pairs
        row.look_ahead = self.variant.look_ahead
        limit = self.card.shared_limit
        size = self.extension.plan_shared_memory(self.variant.horizontal, row, cluster, limit)
        if size > limit:
            return None
        return SharedMemory(
            size,
            row.given_offset,
            row.chain_offset,
            row.hidden_offset,
            row.output_colour,
            row.output_offset,
        )

    def active_clusters(self, cluster: int, tiles: int) -> int:
        """The number of such clusters that run concurrently; 0 if the GPU does not support them."""
        if cluster > self.variant.sizes.level_pairs:
            return 0
        shared = self.shared_memory(cluster, tiles)
        if shared is None:
            return 0
        return self.card.active_clusters(self.variant.horizontal, cluster, shared.size)

    def plan(self, images: int, width: int) -> Plan:
        """The division that occupies the GPU: as many blocks per image as are available."""
        # With fewer images than multiprocessors, the warps of one block share each image.
        per_block, shared_loads = 1, images > self.card.multiprocessors
        features = self.variant.sizes.features
        if shared_loads:
            while per_block * 32 < images and steps_of(per_block * width) * features < 2 * WARPS:
                per_block += 1
        tiles = steps_of(images)
        for cluster in CLUSTERS:
            clusters = self.active_clusters(cluster, 1)
            most = 1 if cluster == ALONE else cluster
            while most > 1 and not self.active_clusters(cluster, most):
                most -= 1
            if clusters and (cluster != ALONE or tiles <= clusters):
                return Plan(cluster, min(most, -(-tiles // clusters)), per_block, shared_loads)
        return Plan(1, 1, per_block, shared_loads)

    def describe(self, images: int, width: int) -> str:
        """The kernels and the plan for a job of such images, with reasons, in one sentence."""
        plan = self.plan(images, width)
        shared = self.shared_memory(plan.cluster, plan.tiles)
        if shared is None:
            return f"a block's shared memory exceeds the {self.card.shared_limit // 1024} KiB here"
        return "; ".join(
            [
                self._describe_cluster(plan, images),
                self._describe_memory(plan, shared),
                self._describe_chain(),
                self._describe_operands(),
            ]
        )

    def _describe_cluster(self, plan: Plan, images: int) -> str:
        tiles = steps_of(images)
        if plan.cluster > 1:
            running = self.active_clusters(plan.cluster, plan.tiles)
            text = f"{tiles} tile(s) of {STEP} images, {plan.tiles} per cluster of {plan.cluster} "
            text += f"blocks, {running} clusters at a time"
            larger = [c for c in CLUSTERS if c > plan.cluster and self.active_clusters(c, 1)]
            if larger:
                fit = self.active_clusters(larger[0], 1)
                text += f" (of {larger[0]} blocks, {fit} would run, one tile each)"
            return text
        at_a_time = f"{tiles} tile(s) of {STEP} images, a block each"
        if self.variant.sizes.level_pairs < min(CLUSTERS):
            return f"{at_a_time}: {self.variant.config.levels} levels are too few for a cluster"
        supported = self.card.active_clusters(self.variant.horizontal, min(CLUSTERS), 0)
        why = "no cluster fits its shared memory" if supported else "it runs no clusters"
        return f"{at_a_time}: {why}"

    def _describe_memory(self, plan: Plan, shared: SharedMemory) -> str:
        colours = self.variant.config.channels
        kept_colours = colours - shared.output_colour
        some = f" of {kept_colours} of {colours} colours" if 0 < kept_colours < colours else ""
        parts = {f"the weights of logits{some}": kept_colours > 0}
        if self.variant.sizes.group <= NARROW:
            parts["the chain's sums"] = shared.given_offset >= 0
            parts["the chain's weights"] = shared.chain_offset >= 0
        if plan.tiles < plan.cluster:
            name = "the weights of hidden units (in blocks that lead no tile)"
            parts[name] = shared.hidden_offset >= 0
        text = f"{shared.size / 1024:.0f} of {self.card.shared_limit // 1024} KiB shared memory"
        for word, wanted in (("with", True), ("without", False)):
            if names := [name for name, is_kept in parts.items() if is_kept == wanted]:
                text += f"; {word} {', '.join(names)}"
        return text

    def _describe_chain(self) -> str:
        features = f"{group_features(self.variant.config)} features per colour"
        if self.variant.look_ahead:
            most = LOOK_AHEAD[self.variant.horizontal]
            return f"chain in one warp's registers, with look-ahead ({features}, at most {most})"
        if self.variant.sizes.group <= NARROW:
            return f"chain in one warp's registers ({features}, at most {STEP * NARROW})"
        return f"chain by the whole block ({features} exceed the registers of a warp)"

    def _describe_operands(self) -> str:
        vertical, horizontal = OPERANDS[self.variant.vertical], OPERANDS[self.variant.horizontal]
        if vertical == horizontal:
            return f"operands {horizontal}"
        return f"operands {horizontal}; {vertical} in the vertical stack, for conditional gates"
