"""The models: the residual wiring of the decoder-only and of the encoder-decoder Transformer, written out in full."""
