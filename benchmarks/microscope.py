"""What the microscope costs, in gradients and in steps: `onelayer bench microscope`, whose options it takes.

    OMP_NUM_THREADS=1 python benchmarks/microscope.py --clock cpu --rounds 9

What is measured, and how, is in src/onelayer/bench/microscope.py.
"""

import sys

from onelayer.cli import run

if __name__ == "__main__":
    sys.exit(run(["bench", "microscope", *sys.argv[1:]]))
