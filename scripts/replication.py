#!/usr/bin/env python
"""The published network on several seeds, trained past its clean-up: what was found in it, measured in ours.

onelayer grok --recipe nanda-2023 --seed 0 --out runs/nanda-0 --set stop.on=none …     # one for each seed
python scripts/replication.py runs/nanda-*            # docs/experiments/replication.json
python scripts/experiment_pages.py replication        # the page and its figure
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.arrays import unflatten
from onelayer.grokking import analysis, losses, progress, spectra
from onelayer.grokking.subject import Subject, open_subject
from onelayer.studies.grid import first_below, rounded
from onelayer.training.run_directory import Run

STORED = Path(__file__).parent.parent / "docs" / "experiments" / "replication.json"
MEASURES = (
    "cosine_variance_explained", "neuron_specialisation", "neuron_variance_explained", "neurons_by_frequency",
    "attention_periodicity", "attention_frequencies", "self_attention", "restricted_loss", "excluded_loss",
    "excluded_by_frequency", "excluded_quotient_loss", "full_loss", "cosine_residual_loss", "embedding_gini",
    "logit_map_gini", "logit_map_key_share", "readout_variance_explained", "logit_families", "sum_share",
    "effective_frequencies", "weight_norm", "logit_scale", "gradient_symmetricity", "distance_irrelevance",
    "embedding_key_share", "accuracy", "mirror_free_accuracy",
)  # fmt: skip


def study(path: Path) -> dict[str, Any]:
    """One run: its crossings, its measures and controls at the last step, its progress over the checkpoints."""
    run, started = Run(path), time.perf_counter()
    config, result = (json.loads((path / f"{name}.json").read_text("utf-8")) for name in ("config", "result"))
    records = [r for r in run.metrics if "test_loss" in r]
    found = analysis.analyse(path, names=MEASURES)
    last = open_subject(path)
    curve = progress.over_checkpoints(path, last)
    steps, losses = [r["step"] for r in records], np.array([r["test_loss"] for r in records])
    norms = {r["step"]: r["weight_norm"] for r in records}
    return {
        "seed": config["seed"],
        "last_step": records[-1]["step"],
        "memorised": result["figures"]["step_memorised"],
        "train_loss_0.01": first_below(records, 0.01, "train_loss"),
        "test_loss_0.1": first_below(records, 0.1),
        "test_loss_0.01": first_below(records, 0.01),
        "sustained": result["figures"]["step_sustained"],
        "lowest_after": result["figures"]["minimum_after"],
        "largest_test_loss": float(losses.max()),
        "norm": {"first": norms[0], "largest": max(norms.values()), "last": norms[steps[-1]]},
        "seconds": round(result["seconds"]),
        "key_frequencies": found.key_frequencies,
        "embedding_frequencies": above_noise(analysis.analyse(path, names=("embedding_spectrum",)).measures),
        "attention_by_keys": attention_by_keys(last),
        "next_frequency": next_frequency(last),
        "phases": progress.phases(curve["step"], curve["excluded_loss"], steps, losses)._asdict(),
        "measures": {name: {side: m[side] for side in ("value", "control")} for name, m in found.measures.items()},
        "specialised": specialised(run, last),
        "progress": {name: column.tolist() for name, column in curve.items()},
        "analysis_seconds": round(time.perf_counter() - started),
    }


EVERY = 2000  # steps from one count of the neurons to the next


def specialised(run: Run, last: Subject) -> dict[int, float]:
    """step -> the share of neurons with more than .85 of their variance at one frequency."""
    found = {}
    for step in (step for step in run.snapshots if step and step % EVERY == 0):
        s = last.moved(unflatten(run.parameters(step), last.params), last.key_frequencies)
        found[step] = spectra.neuron_specialisation(s)
    return found


def above_noise(measures: dict[str, Any]) -> list[int]:
    """Frequencies with more than a tenth of the embedding's largest."""
    spectrum = {int(k): share for k, share in measures["embedding_spectrum"]["value"].items() if int(k) > 0}
    return [k for k, share in spectrum.items() if share > 0.1 * max(spectrum.values())]


def next_frequency(s: Subject) -> dict[str, float]:
    """The strongest frequency that the rule for key ones leaves out, its share, and the restricted loss with it."""
    others = [k for k in s.characters.frequencies if k not in s.key_frequencies]
    k = max(others, key=lambda k: s.logit_shares[k])
    with_it = s.moved(s.params, tuple(sorted((*s.key_frequencies, k))), s.logits)
    return {"k": k, "share": float(s.logit_shares[k]), "restricted_loss": losses.restricted_loss(with_it)}


def attention_by_keys(s: Subject) -> dict[str, float]:
    """Per head, R² as in spectra.periodicity, but by the waves of all key frequencies together."""
    pattern, found = s.seen["attn.hook_pattern"][..., 0], {}
    for h in range(pattern.shape[2]):
        varying = pattern[:, :, h] - pattern[:, :, h].mean()
        rows = s.characters.rows(s.key_frequencies)
        along = rows @ varying.sum(axis=1) - rows @ varying.sum(axis=0)
        found[f"head {h}"] = float(np.sum(along**2) / (2 * len(varying)) / np.sum(varying**2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    rows = {row["seed"]: row for row in json.loads(STORED.read_text("utf-8"))} if STORED.exists() else {}
    for path in parser.parse_args().runs:
        row = rounded(study(path))
        rows[row["seed"]] = row
        STORED.write_text(json.dumps([rows[seed] for seed in sorted(rows)]) + "\n", encoding="utf-8")
        print(f"{path}: {row['key_frequencies']}, {row['analysis_seconds']} s", flush=True)


if __name__ == "__main__":
    main()
