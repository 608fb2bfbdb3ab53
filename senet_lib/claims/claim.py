"""A claim of a source document, and the protocol it was made for.

The tolerance comes from the printed digits: 0.63 stands for [0.625, 0.635), "~11" for
[10.5, 11.5), and zeros are digits, though the print does not say so. A range such as 82-88 stands
as it is, both ends included; "> 0" for everything above 0.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from senet_lib.errors import SenetError, unknown
from senet_lib.recipe import Recipe, Study

CLAIMS = Path(__file__).with_name("claims.yaml")
Book = Mapping[str, "Claim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One figure of a source document."""

    id: str
    source: str  # file name of the document
    where: str  # section of it
    subject: str  # the model, pair or block it is about
    quantity: str  # what is claimed, in words
    value: str  # as printed
    unit: str  # M (million), %, pp (percentage points), nats, M/pp or none
    measure: str  # which quantity of ours answers it, a key of `MEASURES`
    note: str = ""  # what is odd about it
    printed: str = ""  # the value as printed, where `value` lost a digit or holds two numbers
    # registry names; of a pair, the variant first; of a count, the first is the network of the row
    models: Sequence[str] = ()
    protocol: str = ""  # how the networks must have been trained, if they must
    arithmetic: str = ""  # key of `senet_lib.claims.arithmetic.ARITHMETIC`, if a check applies
    epoch: int = 0  # epoch of the history that is meant, counted from 1; 0 for the last
    column: str = ""  # which figure of that epoch
    reconstructed: bool = False  # the networks' widths are ours, chosen to come near the source's
    reply: str = ""  # what is to be said of it in place of the note

    @property
    def figure(self) -> str:
        """The value as it was printed."""
        return self.printed or self.value

    @property
    def claimed(self) -> str:
        """The figure with its unit."""
        return f"{self.figure} {self.unit}".strip()

    @property
    def is_range(self) -> bool:
        """Whether the figure is a range such as 82-88."""
        return _RANGE.fullmatch(self.figure) is not None

    @property
    def low(self) -> float:
        """Lower end of the tolerance, in the claim's unit."""
        return tolerance(self.figure)[0]

    @property
    def high(self) -> float:
        """Upper end of the tolerance, likewise; infinite where none is claimed."""
        return tolerance(self.figure)[1]

    @property
    def middle(self) -> float:
        """Halfway between them."""
        return (self.low + self.high) / 2

    @property
    def loose(self) -> tuple[float, float]:
        """The tolerance if a last zero is no digit; the tolerance itself where there is none."""
        half = 10 * (self.high - self.low) / 2
        if self.is_range or not self.figure.endswith("0"):
            return self.low, self.high
        return self.middle - half, self.middle + half

    def nearly_holds(self, number: float) -> bool:
        """Whether a number is within the looser tolerance."""
        return self.loose[0] <= number < self.loose[1]

    def holds(self, number: float) -> bool:
        """Whether a number is within the tolerance."""
        return self.meets(number, number)

    def meets(self, low: float, high: float) -> bool:
        """Whether an interval, ends included, and the tolerance have a point in common."""
        return high >= self.low and (low <= self.high if self.is_range else low < self.high)


_RANGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


def tolerance(text: str) -> tuple[float, float]:
    """What the printed digits stand for: the ends of an interval. The text is a number with or
    without "~" or a sign, a range such as 82-88, or "> 0 ..."."""
    if found := _RANGE.fullmatch(text):
        return float(found[1]), float(found[2])
    if text.startswith("> 0"):
        return 0.0, math.inf
    number = Decimal(text.removeprefix("~"))
    half = Decimal(1).scaleb(int(number.as_tuple().exponent)) / 2
    return float(number - half), float(number + half)


@cache
def content() -> Mapping[str, Any]:
    """All that stands in the file of the claims."""
    return yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))


def say(key: str, **numbers: Any) -> str:
    """A text of that file with the numbers that it asks for by name."""
    return content()["texts"][key].format(**numbers)


def load_claims(pattern: str = "*") -> list[Claim]:
    """The claims whose id matches a shell-style pattern, in the order of the documents; SenetError
    if there is none."""
    claims = [Claim(**row) for row in content()["claims"]]
    found = [claim for claim in claims if fnmatchcase(claim.id, pattern)]
    if not found and re.search(r"[*?[]", pattern):
        raise SenetError(f"no claim matches {pattern!r}; `senet claims` lists all")
    if not found:
        raise unknown("claim", pattern, [claim.id for claim in claims])
    return found


def load_protocol(name: str) -> Study:
    """A protocol as a study of no networks: its seeds, data and recipe."""
    spec = content()["protocols"][name]
    seeds, recipe = tuple(spec["seeds"]), Recipe.from_dict(spec["recipe"])
    return Study(study=name, protocol=name, data="cifar10", models=(), seeds=seeds, recipe=recipe)
