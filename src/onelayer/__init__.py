"""A one-layer Transformer from scratch, every gradient derived by hand."""
