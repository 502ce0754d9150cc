"""From each example's score to the figures of an evaluation, the same for every engine."""

import numpy as np

from ...tasks import Task


def summarise(task: Task, split: str, losses: np.ndarray, counts: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    """losses, counts, correct [N], of a split's examples -> the split's loss and accuracy, and its groups' accuracy."""
    total = float(np.sum(counts, dtype=np.float64))
    figures = {
        f"{split}_loss": float(np.sum(losses, dtype=np.float64) / total) if total else float("nan"),
        f"{split}_accuracy": float(np.mean(correct)) if len(correct) else float("nan"),
    }
    if split == "test":
        for name, members in task.groups.items():
            if len(members):
                figures[f"{name}_accuracy"] = float(np.mean(correct[members]))
    return figures
