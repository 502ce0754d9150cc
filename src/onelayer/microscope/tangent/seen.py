"""What the plain pass left, seen from inside a part: values and gradients by the names that the part itself uses."""

from typing import NamedTuple

from ...arrays import Array

__all__ = ["Seen"]


class Seen(NamedTuple):
    values: dict[str, Array]
    gradients: dict[str, Array]
    bends: dict[str, Array | None]  # f″ of each activation's input; None where it is zero
    scope: str = ""

    def at(self, scope: str) -> "Seen":
        return self._replace(scope=f"{self.scope}{scope}.")

    def value(self, name: str) -> Array:
        return self.values[self.scope + name]

    def gradient(self, name: str) -> Array:
        return self.gradients[self.scope + name]

    def bend(self, name: str) -> Array | None:
        return self.bends[self.scope + name]
