"""`python -m asym_lightning` is the same program as `lightning`."""

import sys

from asym_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
