"""Studies: many small trainings, and what they say together."""
