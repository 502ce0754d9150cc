"""Training: a config goes in, a run's directory comes out.

from onelayer.training import Run, configure, resume, train

result = train(configure("default", {"task": {"operation": "x * y"}}), "runs/product")
Run("runs/product").metrics
resume("runs/product", {"steps": 10_000})
"""

from .config import RunConfig
from .events import Result
from .loop import resume, train
from .recipes import RECIPES, configure
from .run_directory import Run

__all__ = ["RECIPES", "Result", "Run", "RunConfig", "configure", "resume", "train"]
