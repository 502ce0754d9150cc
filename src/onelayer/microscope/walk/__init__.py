"""The walk behind `explain`: covectors pulled back through the model, step by step.

terms.py        what a step gives: summands that can be taken apart further
ground.py       where things stand
values.py       through the forward pass: u · row of a named array
gradients.py    through the backward pass: u · ∂row
walk.py         where it begins
"""

from .terms import Term
from .walk import Walk

__all__ = ["Term", "Walk"]
