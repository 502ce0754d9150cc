"""Every measure where there is nothing to find, beside the real thing: src/onelayer/grokking/controls.json.

    python scripts/controls.py --out /tmp/controls          three seeds of two settings; some minutes

Small networks, of x + y mod 59 and of the parity of 3 bits of 10, each trained for as many steps as the real ones
need to generalise and more. A measure with several values stands here by its parts where these are splits or heads,
Walsh degrees by the one that is right, and others by their largest value.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onelayer.arrays import map_tree
from onelayer.grokking import controls
from onelayer.grokking.measures import MEASURES, why_not
from onelayer.grokking.subject import Subject, open_subject, why_no_characters
from onelayer.training import Run, configure, resume, train


class Setting(NamedTuple):
    config: dict[str, Any]  # of the real network
    null: dict[str, dict[str, Any] | None]  # control -> what it changes of the task; None: it is not trained
    others: dict[str, dict[str, Any]]


SMALL: dict[str, Any] = {
    "model": {"d_model": 64, "d_mlp": 128}, "optimizer": {"lr": 0.003}, "steps": 1000, "stop": {"on": "none"},
}  # fmt: skip
SETTINGS = {
    "sum": Setting(
        {"task": {"p": 59, "train_fraction": 0.5}} | SMALL,
        {"permuted labels": {"permute_labels": True}, "random table": {"operation": "random table"},
         "untrained": None, "commonest answer": None},
        {"noisy labels": {"label_noise": 0.1}, "mirror-closed": {"split": "mirror_closed"}},
    ),
    "parity": Setting(
        {"task": {"name": "parity", "n_bits": 10, "k": 3, "n_train": 128, "n_test": 512}} | SMALL,
        {"random labels": {"label_noise": 0.5}, "untrained": None, "commonest answer": None},
        {"noisy labels": {"label_noise": 0.1}},
    ),
}  # fmt: skip
SEEDS, PARTS = 3, 4
BY_WAVE = "readout_variance_explained"  # whose keys are waves, other ones in each network


def subjects(setting: Setting, out: Path, seed: int) -> dict[str, Subject]:
    found = {}
    for name, task in {"real": {}, **setting.null, **setting.others}.items():
        if task is None:
            continue
        path = out / f"{name.replace(' ', '-')}-{seed}"
        result = resume(path) if path.exists() else train(
            configure("default", setting.config, {"task": task, "seed": seed}), path)  # fmt: skip
        if result.status != "finished":
            raise SystemExit(f"{path} ended early: {result.reason}. Start again, and it goes on")
        found[name] = open_subject(path)
        last = Run(path).metrics[-1]
        print(f"{path.name}: train {last['train_accuracy']:.3f}, test {last['test_accuracy']:.3f}", flush=True)
    if "table" in found["real"].task.facts:
        found = in_their_keys(found)
    return found | {"untrained": found["real"].twin, "commonest answer": constant(found["real"])}


def in_their_keys(found: dict[str, Subject]) -> dict[str, Subject]:
    """Each read as a sum, in as many key frequencies as the real network has: its own strongest."""
    found = {name: as_a_sum(s) for name, s in found.items()}
    count = len(found["real"].key_frequencies)
    for name, s in found.items():
        assert why_no_characters(s) is None
        if name != "real":
            strongest = np.argsort(-s.logit_shares[1:], kind="stable")[:count] + 1
            found[name] = s.moved(s.params, tuple(sorted(strongest.tolist())))
    return found


def as_a_sum(s: Subject) -> Subject:
    """Read in the waves of a + b, whether the task has them or not."""
    return replace(s, task=replace(s.task, facts=s.task.facts | {"basis": "sum"}))


def constant(s: Subject) -> Subject:
    """All weights 0, but for what makes the logit of the commonest training answer 10, whatever is asked."""
    p = map_tree(np.zeros_like, s.params)
    p.pos_embed.W_pos[-1, 0] = 1.0
    p.unembed.W_U[0, s.task.facts["majority_class"]] = 10.0
    return replace(s, params=p, keys=s.twin.keys, run=None, said=None)


def values(name: str, s: Subject) -> dict[str, float]:
    """row -> number"""
    if why_not(name, s):
        return {}
    with np.errstate(invalid="ignore", divide="ignore"):  # a share of nothing, in the network that is constant
        value = MEASURES[name].of(s)
    if not isinstance(value, dict):
        found = {name: float(value)}
    elif name == "walsh_by_degree":
        found = {f"{name}: k": value[s.task.facts["k"]]}
    elif len(value) <= PARTS and all(isinstance(key, str) for key in value) and name != BY_WAVE:
        found = {f"{name}: {key}": float(x) for key, x in value.items()}
    else:
        found = {f"{name}: largest": float(max(value.values(), key=abs))} if value else {}
    return {row: x for row, x in found.items() if np.isfinite(x)}


def measured(setting: Setting, out: Path) -> dict[str, dict[str, Any]]:
    """row -> the mean over the seeds of each network, and the null controls on which it is marked"""
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in range(SEEDS):
        for control, s in subjects(setting, out, seed).items():
            for name in MEASURES:
                for row, value in values(name, s).items():
                    rows.setdefault(row, {}).setdefault(control, []).append(value)
    told = {}
    for row, found in rows.items():
        mean = {c: float(f"{np.mean(found[c]):.4g}") for c in ("real", *setting.null, *setting.others) if c in found}
        high = MEASURES[row].high if row in MEASURES else None
        told[row] = mean | ({} if high is None else {"marked": controls.marked(mean, list(setting.null), high)})
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    out, parts = parser.parse_args().out, []
    for name, setting in SETTINGS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        rows = measured(setting, out / name)
        head = {"config": setting.config, "seeds": SEEDS, "null": list(setting.null), "others": list(setting.others)}
        lines = ",\n".join(f"  {json.dumps(row)}: {json.dumps(x)}" for row, x in rows.items())
        parts.append(f'{json.dumps(name)}: {json.dumps(head)[:-1]}, "measures": {{\n{lines}\n}}}}')
        print(f"{name}: {len(rows)} rows")
    controls.FILE.write_text("{" + ",\n".join(parts) + "}\n", "utf-8")


if __name__ == "__main__":
    main()
