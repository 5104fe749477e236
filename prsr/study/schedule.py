"""Which pairs a rater sees: inputs, methods, sides and order, balanced and reproducible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pair:
    """One trial before it has an answer.

    Attributes:
        input: number of the input that both images show, from 0.
        method: number of the method that made the generated image, from 0; None for a catch trial.
        real_on_left: the side of the real image.
    """

    input: int
    method: int | None
    real_on_left: bool


@dataclass(frozen=True)
class Schedule:
    """The plan of a study: what rater r sees is a function of these numbers and of r.

    Attributes:
        inputs: number of inputs.
        methods: number of methods.
        per_method: pairs of each method that a rater sees.
        catch: catch trials that a rater sees.
        seed: of the random order and sides.

    Raises:
        ValueError: a number is out of range, or a rater would see an input twice.
    """

    inputs: int
    methods: int
    per_method: int
    catch: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("inputs", 1), ("methods", 1), ("per_method", 1), ("catch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.length > self.inputs:
            raise ValueError(
                f"a rater sees each input once, so {self.methods} methods × {self.per_method} "
                f"pairs + {self.catch} catch trials need {self.length} inputs, got {self.inputs}"
            )

    @property
    def length(self) -> int:
        """Trials of one rater."""
        return self.methods * self.per_method + self.catch

    def pairs(self, rater: int) -> list[Pair]:
        """The trials of a rater, in order.

        A rater sees each method equally often, and the real image of each method on the left as
        often as on the right (within one where the number is odd). Raters take successive
        stretches of one random cycle of the inputs. An input changes its role (a method, or a catch
        trial) from cycle to cycle; after ``inputs`` raters, each input has met each method
        ``per_method`` times and has been a catch trial ``catch`` times.

        Args:
            rater: number of the rater, from 0.
        """
        cycle = np.random.default_rng(self.seed).permutation(self.inputs)
        first = rater * self.length
        chosen = cycle[(first + np.arange(self.length)) % self.inputs]
        # After this many trials, raters and cycles begin together again: without a shift, the roles
        # would repeat.
        shift = first // math.lcm(self.inputs, self.length)
        roles = self._roles()
        methods = [roles[(i + shift) % self.length] for i in range(self.length)]
        generator = np.random.default_rng((self.seed, rater))
        sides = np.empty(self.length, bool)
        for method in set(methods):
            places = [i for i, other in enumerate(methods) if other == method]
            sides[places] = balanced_sides(len(places), generator)
        return [
            Pair(int(chosen[i]), methods[i], bool(sides[i]))
            for i in generator.permutation(self.length)
        ]

    def _roles(self) -> list[int | None]:
        """The methods (None: catch trial) of a rater's inputs, in the order of the cycle.

        From one cycle to the next, an input moves by ``inputs`` places, modulo ``length``. Places
        that follow each other in this way get different methods, with the catch trials spread
        evenly among them.
        """
        apart = math.gcd(self.inputs, self.length)
        visited = [
            (start + step * self.inputs) % self.length
            for start in range(apart)
            for step in range(self.length // apart)
        ]
        roles: list[int | None] = [None] * self.length
        compared = 0
        for number, place in enumerate(visited):
            if (number + 1) * self.catch // self.length == number * self.catch // self.length:
                roles[place] = compared % self.methods
                compared += 1
        return roles


def balanced_sides(count: int, generator: np.random.Generator) -> np.ndarray:
    """``bool [count]`` in random order, half of them true; the odd one is either."""
    sides = (np.arange(count) + generator.integers(2)) % 2 == 0
    return generator.permutation(sides)
