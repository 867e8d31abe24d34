"""The former name of scripts/download.py."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from download import main

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.warning("scripts/data.py is now called scripts/download.py")
    main()
