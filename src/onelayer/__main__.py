"""`python -m onelayer` is the command `onelayer`."""

from .cli import main

main()
