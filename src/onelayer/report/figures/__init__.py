"""Pictures: arrays in, a Plotly figure out, in one look (`theme`)."""
