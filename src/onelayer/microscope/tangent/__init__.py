"""The R-operator: forward-over-reverse by hand, one small file a layer.

R{a}      the derivative of a along a direction v in parameter space: R{a} = ∂a(θ + εv)/∂ε at ε = 0, written Ra.
          R{θ} = v.  R obeys the product and the chain rule, so it passes through a forward and through a backward
          line by line; what comes out of R{backward} is R{∂loss/∂θ} = H v, exact, with no step size.

A file    forward(rp, rx, …) -> Ry                         what y feels of the direction
          backward(R∂y, ∂y, rp, …) -> R∂x, R∂params        what the gradients feel of it
          The caches and the gradients ∂a of the plain pass are read from a trace; only R-values are computed.

Cost      each product y = xW of the forward becomes two (Rx W + x RW), each of the backward's two becomes two: a
          Hessian product costs two gradients' worth of products, and the trace it stands on is made once.

Source    Pearlmutter 1994, Fast exact multiplication by the Hessian, Neural Computation 6; Schraudolph 2002, Fast
          curvature matrix-vector products (Gauss-Newton). Every step: docs/microscope/curvature.md
"""

from .linearise import Linearised, linearise

__all__ = ["Linearised", "linearise"]
