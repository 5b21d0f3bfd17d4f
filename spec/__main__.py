"""`python -m spec`, or `python -m loopspec` where the suite is installed: the command (`_kit/cli.py`)."""

from __future__ import annotations

import sys

from ._kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
