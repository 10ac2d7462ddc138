"""Cuts a release: python tools/release.py 0.2.0 sets version and date in its three places; --check v0.2.0 judges a tag.

They are _version.py, CHANGELOG.md, whose unreleased part becomes that of the version, and CITATION.cff.
Nothing is committed, tagged or pushed: what to say next is printed.
"""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SOURCE = Path("python", "krrdistill", "_version.py")
UNRELEASED = "## Unreleased\n"
_SOFTWARE = "type: software\n"
_VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+)"$', re.MULTILINE)


def release(root: Path, version: str, date: str) -> None:
    """Writes ``version`` into _version.py and CITATION.cff, and makes the unreleased part of the changelog its own.

    Raises ValueError, and changes nothing, unless that is a new version of which the changelog has something to say.
    """
    source, changelog, citation = (root / name for name in (_SOURCE, "CHANGELOG.md", "CITATION.cff"))
    code, log, cited = (path.read_text(encoding="utf-8") for path in (source, changelog, citation))
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
    if _SOFTWARE not in cited:
        raise ValueError(f"{citation.name} has no line {_SOFTWARE.strip()!r}")
    before = re.sub(r"^(version|date-released): .*\n", "", cited, flags=re.MULTILINE)
    dated = f'{_SOFTWARE}version: {version}\ndate-released: "{date}"\n'
    citation.write_text(before.replace(_SOFTWARE, dated, 1), encoding="utf-8")
    source.write_text(_VERSION.sub(f'__version__ = "{version}"', code), encoding="utf-8")
    changelog.write_text(f"{log[:start]}\n## {version} - {date}\n{log[start:]}", encoding="utf-8")


def check_tag(root: Path, tag: str) -> None:
    """Raises ValueError unless ``tag`` is "v" and the version, and changelog and citation have it, too."""
    version = _version_in((root / _SOURCE).read_text(encoding="utf-8"))
    if tag != f"v{version}":
        raise ValueError(f"tag {tag} is not v{version}, the version of the package")
    if not dated_heading((root / "CHANGELOG.md").read_text(encoding="utf-8"), version):
        raise ValueError(f"CHANGELOG.md has no heading '## {version} - YYYY-MM-DD'")
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text(encoding="utf-8"):
        raise ValueError(f"CITATION.cff has no line 'version: {version}'")


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
