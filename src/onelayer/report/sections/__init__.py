"""The sections of the page, in its order. This file is the registry.

A section is a module with `applies(run) -> bool`, whether it has anything to say about such a run, and
`build(run) -> Section`, which raises BadInput with a sentence for the reader where the run lacks what it needs.
"""

from onelayer.report.sections import (
    addressing,
    answers,
    attention,
    circuit,
    curvature,
    curves,
    embedding,
    explained,
    flow,
    measures,
    microscope,
    position,
    recipe,
    summary,
    walk,
    walk_back,
    weights,
)

SECTIONS = {
    "summary": summary,
    "answers": answers,
    "curves": curves,
    "circuit": circuit,
    "weights": weights,
    "flow": flow,
    "curvature": curvature,
    "attention": attention,
    "walk": walk,
    "walk_back": walk_back,
    "embedding": embedding,
    "measures": measures,
    "position": position,
    "addressing": addressing,
    "explained": explained,
    "microscope": microscope,
    "recipe": recipe,
}
