"""The microscope: any number in a gradient, taken apart into terms that sum to it.

trace.py        every value and gradient of one forward and backward, by name
gates.py        run the backward again with routes cut; train with a route cut
provenance.py   a gradient as a sum over loss tokens, sources, heads, examples, classes, frequencies, routes
explain.py      one number as a tree (walk/: step by step back through the model)
per_example.py  norms, cosines, signal to noise, who pulls
ledger.py       why a weight moved, and which group of the gradient bought the change in the loss
curvature.py    exact Hessian products (tangent/: the R-operator), eigenvalues, trace, spectrum
flow.py         norms, ranks, dead units, saturation, alignment over training, into the run's own journal
gradcheck.py    the backward against the complex step
"""

from .explain import explain
from .gates import cut, replay
from .provenance import split, splits
from .trace import Trace, load, names, trace

__all__ = ["Trace", "cut", "explain", "load", "names", "replay", "split", "splits", "trace"]
