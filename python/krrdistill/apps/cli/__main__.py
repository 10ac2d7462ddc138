"""``python -m krrdistill.apps.cli``: the same as the ``krrdistill`` command."""

import sys

from krrdistill.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
