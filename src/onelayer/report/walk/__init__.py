"""The illustrated walk: one example of a run through an encoder-decoder, step by step, forward and then backward.

`scene.choose(run)` picks an example and traces it; `forward.steps(scene)` and `backward.steps(scene)` tell what
happens, in the order of Alammar, The Illustrated Transformer (2018), and then the way back, which that tour leaves out.
Every number and every matrix is read from the trace (microscope.trace); `parts.py` has what both stacks share.
"""
