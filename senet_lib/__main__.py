"""`python -m senet_lib` is the command `senet`."""

import sys

from senet_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
