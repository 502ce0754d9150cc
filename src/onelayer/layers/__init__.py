"""The layers: one file each, the maths, the forward pass and the hand-derived backward pass side by side."""
