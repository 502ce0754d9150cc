"""Words: what a trained model of strings says, how good it is, and where it looked. Strings in, strings out."""
