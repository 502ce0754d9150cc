"""docs/experiments/*.md and their figures, from the raw files of scripts/experiments.py and scripts/replication.py.

python scripts/experiment_pages.py                  # all of them
python scripts/experiment_pages.py operations       # one
"""

import argparse
from collections.abc import Callable

from pages import (
    addition,
    causal,
    critical_data,
    decay_law,
    fraction,
    learn_or_memorise,
    logit_scale,
    operations,
    optimizers,
    replication,
)
from pages.common import HERE, so_far, wrapped

PAGES: dict[str, Callable[[], str]] = {
    "replication": replication.page,
    "operations": operations.page,
    "fraction": fraction.page,
    "decay-law": decay_law.page,
    "logit-scale": logit_scale.page,
    "optimizers": optimizers.page,
    "addition": addition.page,
    "critical-data": critical_data.page,
    "causal": causal.page,
    "learn-or-memorise": learn_or_memorise.page,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="The pages of the experiments, from their raw files.")
    parser.add_argument("pages", nargs="*", choices=[*PAGES, []], help="these alone")
    for name in parser.parse_args().pages or PAGES:
        title, rest = PAGES[name]().split("\n", 1)
        (HERE / f"{name}.md").write_text(wrapped(f"{title}\n{so_far(name)}{rest}"), encoding="utf-8")
        print(HERE / f"{name}.md")


if __name__ == "__main__":
    main()
