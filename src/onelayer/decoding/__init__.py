"""Decoding: from a trained model to the tokens that it says."""
