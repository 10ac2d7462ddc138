"""``python -m krrdistill``: the same as the ``krrdistill`` command."""

from krrdistill.apps.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
