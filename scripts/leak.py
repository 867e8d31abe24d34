"""The former name of python -m experiments.leak."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from experiments.leak.__main__ import main

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.warning("scripts/leak.py is now called python -m experiments.leak")
    main()
