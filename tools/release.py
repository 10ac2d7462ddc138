"""Cuts a release: python tools/release.py 0.2.0 sets the version and dates the changelog; --check v0.2.0 judges a tag.

Nothing is committed, tagged or pushed: what to say next is printed.
"""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNRELEASED = "## Unreleased\n"
_VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+)"$', re.MULTILINE)


def release(root: Path, version: str, date: str) -> None:
    """Writes ``version`` into _version.py and makes the unreleased part of the changelog that of ``version``.

    Raises ValueError, and changes nothing, unless that is a new version of which the changelog has something to say.
    """
    source, changelog = root / "python" / "krrdistill" / "_version.py", root / "CHANGELOG.md"
    code, log = source.read_text(encoding="utf-8"), changelog.read_text(encoding="utf-8")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"version must be three numbers, as 0.2.0; got {version!r}")
    current = _version_in(code)
    if _numbers(version) < _numbers(current):
        raise ValueError(f"version {version} is older than {current}, which {source.name} has")
    if dated_heading(log, version):
        raise ValueError(f"version {version} is in {changelog.name} already")
    if UNRELEASED not in log:
        raise ValueError(f"{changelog.name} has no heading {UNRELEASED.strip()!r}")
    start = log.index(UNRELEASED) + len(UNRELEASED)
    if not re.split(r"^## ", log[start:], maxsplit=1, flags=re.MULTILINE)[0].strip():
        raise ValueError(f"{changelog.name} says nothing under {UNRELEASED.strip()!r}")
    source.write_text(_VERSION.sub(f'__version__ = "{version}"', code), encoding="utf-8")
    changelog.write_text(f"{log[:start]}\n## {version} - {date}\n{log[start:]}", encoding="utf-8")


def check_tag(root: Path, tag: str) -> None:
    """Raises ValueError unless ``tag`` is "v" and the version, and the changelog has a dated heading of it."""
    version = _version_in((root / "python" / "krrdistill" / "_version.py").read_text(encoding="utf-8"))
    if tag != f"v{version}":
        raise ValueError(f"tag {tag} is not v{version}, the version of the package")
    if not dated_heading((root / "CHANGELOG.md").read_text(encoding="utf-8"), version):
        raise ValueError(f"CHANGELOG.md has no heading '## {version} - YYYY-MM-DD'")


def dated_heading(log: str, version: str) -> bool:
    """Whether the changelog has a heading of ``version`` with its date."""
    return re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", log, re.MULTILINE) is not None


def _version_in(code: str) -> str:
    found = _VERSION.search(code)
    if found is None:
        raise ValueError('_version.py has no line __version__ = "X.Y.Z"')
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("version", nargs="?", help="the new version, X.Y.Z")
    what.add_argument("--check", metavar="TAG", help="only check that TAG is that of the version, and in the changelog")
    given = parser.parse_args(arguments)
    try:
        if given.check is not None:
            check_tag(root, given.check)
            return
        release(root, given.version, datetime.datetime.now(datetime.timezone.utc).date().isoformat())
    except ValueError as error:
        parser.error(str(error))
    print(f"Now look at `git diff`, and then:\n  git commit -am 'Release {given.version}'")
    print(f"  git tag -a v{given.version} -m v{given.version}\n  git push origin main v{given.version}")


if __name__ == "__main__":
    main()
