"""Every measure where there is nothing to find, beside the real thing: src/onelayer/grokking/controls.json.

    python scripts/controls.py --out /tmp/controls          three seeds of six tasks; some minutes

Small networks, mod 59, each trained for as many steps as the real ones need to generalise and more. A measure with
several values stands here by its parts where these are splits or heads, and by its largest value otherwise. The costly
ones are taken of seed 0 alone.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.arrays import map_tree
from onelayer.grokking import controls
from onelayer.grokking.measures import MEASURES, why_not
from onelayer.grokking.subject import Subject, open_subject, why_no_characters
from onelayer.training import Run, configure, resume, train

SETTING: dict[str, Any] = {
    "task": {"p": 59, "train_fraction": 0.5},
    "model": {"d_model": 64, "d_mlp": 128},
    "optimizer": {"lr": 0.003},
    "steps": 1000,
    "stop": {"on": "none"},
}
TRAINED = {
    "real": {},
    "permuted labels": {"permute_labels": True},
    "random table": {"operation": "random table"},
    "noisy labels": {"label_noise": 0.1},
    "mirror-closed": {"split": "mirror_closed"},
}
SEEDS, PARTS = 3, 4
BY_WAVE = "readout_variance_explained"  # whose keys are waves, other ones in each network


def subjects(out: Path, seed: int) -> dict[str, Subject]:
    found = {}
    for name, task in TRAINED.items():
        path = out / f"{name.replace(' ', '-')}-{seed}"
        result = resume(path) if path.exists() else train(
            configure("default", SETTING, {"task": task, "seed": seed}), path)  # fmt: skip
        if result.status != "finished":
            raise SystemExit(f"{path} ended early: {result.reason}. Start again, and it goes on")
        found[name] = as_a_sum(open_subject(path))
        last = Run(path).metrics[-1]
        print(f"{path.name}: train {last['train_accuracy']:.3f}, test {last['test_accuracy']:.3f}", flush=True)
    real = found["real"]
    count = len(real.key_frequencies)
    for name, s in found.items():
        if name != "real":
            strongest = np.argsort(-s.logit_shares[1:], kind="stable")[:count] + 1
            found[name] = s.moved(s.params, tuple(sorted(strongest.tolist())))
    return found | {"untrained": real.twin, "commonest answer": constant(real)}


def as_a_sum(s: Subject) -> Subject:
    """Read in the waves of a + b, whether the task has them or not."""
    return replace(s, task=replace(s.task, facts=s.task.facts | {"basis": "sum"}))


def constant(s: Subject) -> Subject:
    """All weights 0, but for what makes the logit of the commonest training answer 10 at every pair."""
    p = map_tree(np.zeros_like, s.params)
    p.pos_embed.W_pos[2, 0] = 1.0
    p.unembed.W_U[0, s.task.facts["majority_class"]] = 10.0
    return replace(s, params=p, keys=s.key_frequencies, run=None, said=None)


def values(name: str, s: Subject) -> dict[str, float]:
    """row -> number"""
    if why_not(name, s):
        return {}
    with np.errstate(invalid="ignore", divide="ignore"):  # a share of nothing, in the network that is constant
        value = MEASURES[name].of(s)
    if not isinstance(value, dict):
        found = {name: float(value)}
    elif len(value) <= PARTS and all(isinstance(key, str) for key in value) and name != BY_WAVE:
        found = {f"{name}: {key}": float(x) for key, x in value.items()}
    else:
        found = {f"{name}: largest": float(max(value.values(), key=abs))} if value else {}
    return {row: x for row, x in found.items() if np.isfinite(x)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in range(SEEDS):
        for control, s in subjects(out, seed).items():
            assert why_no_characters(s) is None
            for name in (name for name, m in MEASURES.items() if not (m.costly and seed)):
                for row, value in values(name, s).items():
                    rows.setdefault(row, {}).setdefault(control, []).append(value)
    order = ("real", *controls.NULL, *controls.OTHERS)
    measured = {}
    for row, found in rows.items():
        mean = {c: float(f"{np.mean(found[c]):.4g}") for c in order if c in found}
        high = MEASURES[row].high if row in MEASURES else None
        marked = [c for c in controls.NULL if high is not None and c in mean and "real" in mean
                  and not controls.stands_out(mean["real"], mean[c], high)]  # fmt: skip
        measured[row] = mean | ({"marked": marked} if high is not None else {})
    text = ",\n".join(f"  {json.dumps(row)}: {json.dumps(x)}" for row, x in measured.items())
    head = json.dumps({"setting": SETTING, "seeds": SEEDS})[:-1]
    controls.FILE.write_text(f'{head}, "measures": {{\n{text}\n}}}}\n', "utf-8")
    print(f"{controls.FILE}: {len(measured)} rows")


if __name__ == "__main__":
    main()
