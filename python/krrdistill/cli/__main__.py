"""``python -m krrdistill.cli``: the same as the ``krrdistill`` command."""

import sys

from krrdistill.cli import main

if __name__ == "__main__":
    sys.exit(main())
