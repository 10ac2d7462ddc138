"""Configuration files, those of the published code and our own, under the options of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from krrdistill.apps.cli.settings import DistillSettings, KipSettings, UsageError, check_together
from krrdistill.common.documents import read_bounded
from krrdistill.common.options import Declared, build, declared_options, read_value, shown_value
from krrdistill.errors import DataError
from krrdistill.options import KERNELS, MapOptions, is_object_name

__all__ = ["read_config", "resolve"]

T = TypeVar("T")
_SECTIONS = ("data", "model", "distill")  # of the published files
_LONGEST_REASON = 200
_LARGEST = 1 << 16  # bytes of a configuration file


def resolve(kind: type[T], given: Mapping[str, Any], config: Path | None = None) -> tuple[T, list[str]]:
    """The settings that the options ``given``, by the names of their fields, and the file under them ask for.

    Returns them and notes for the user. Raises UsageError for a value that cannot be meant: the message names the
    option, or the file and its key; ValueError for options that exclude each other.
    """
    declared = {each.name: each for each in declared_options(kind)}
    values = {name: _read(declared[name].flag, declared[name], value) for name, value in given.items()}
    found, notes = read_config(config, kind) if config is not None else ({}, [])
    check_together(kind, {**found, **values})
    asked = {**found, **values}
    return build(kind, _own_map_options(asked, given)), notes + _scaling_notes(asked, declared)


def _read(label: str, declared: Declared, value: Any) -> Any:
    try:
        return read_value(label, declared, value)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _scaling_notes(values: Mapping[str, Any], declared: Mapping[str, Declared]) -> list[str]:
    """What maps of the user's own are given, which is not what ``UserMap`` gives them by default."""
    if "zca" not in declared or values.get("statistics") or values.get("like"):  # their files say it
        return []
    done = "whitened" if values.get("zca") else "standardised"
    return [
        f"{kernel} gets {done} samples, unless it is a map with a preprocessing of its own; in Python, the function "
        "of a UserMap gets raw ones unless preprocessing= is given"
        for kernel in _kernels(values)
        if is_object_name(kernel)
    ]


def _kernels(values: Mapping[str, Any]) -> Sequence[str]:
    """The maps of a run or of a sweep."""
    return values.get("kernels") or (values.get("kernel", "identity"),)


def _own_map_options(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without the options of other maps, which a file may have and the command line must not."""
    kept, chosen = dict(values), _kernels(values)
    for each in declared_options(MapOptions):
        if each.name == "kernel" or each.name not in values:
            continue
        from krrdistill.maps import kernels_with

        kernels = kernels_with(each.name)
        if set(chosen) & set(kernels):
            continue
        if each.name in given:
            raise UsageError(f"{each.flag} belongs to --kernel {' or '.join(kernels)}, not to {', '.join(chosen)}")
        del kept[each.name]
    return kept


def read_config(path: Path, kind: type) -> tuple[dict[str, Any], list[str]]:
    """Values for the fields of ``kind`` from a YAML file, and what was ignored.

    Raises
    ------
    UsageError
        For malformed YAML (with its line), an alias, an unknown key or a value that cannot be meant (with the key).
    OSError
        When the file cannot be read.
    """
    keys = _keys(kind)
    published = {*_published(DistillSettings), *_published(KipSettings), "data.gpu"}
    values: dict[str, Any] = {}
    notes: list[str] = []
    source: dict[str, str] = {}
    for key, value in _flat(path, _load_yaml(path)):
        if key not in keys and key in published:
            notes.append(f"{path}: {key} is ignored: {_why_ignored(key)}")
            continue
        if key not in keys:
            raise UsageError(f"{path}: unknown key {shown_value(key)}{_suggestion(key, [*keys, *published])}")
        name = keys[key].name
        if name in values:
            raise UsageError(f"{path}: {key} and {source[name]} are the same option: give one of them")
        values[name], source[name] = _value(f"{path}: {key}", key, keys[key], value), key
    return values, notes


def _published(kind: type) -> dict[str, Declared]:
    return {each.option.key: each for each in declared_options(kind) if each.option.key is not None}


def _keys(kind: type) -> dict[str, Declared]:
    """Every key that a file may have for ``kind``: the published ones, and the names of the options at the top."""
    allowed = [each for each in declared_options(kind) if each.option.in_files]
    ours = {name: each for each in allowed for name in (each.name, each.cli_name.replace("-", "_"))}
    return {**ours, **_published(kind)}


def _value(label: str, key: str, declared: Declared, value: Any) -> Any:
    """The value of a key; what the published code switches on and off is a choice here."""
    meanings = declared.option.meanings
    if meanings is not None and key == declared.option.key:
        if not isinstance(value, bool):
            raise UsageError(f"{label} must be true or false, got {shown_value(value)}")
        return (meanings[value],) if declared.several else meanings[value]
    if declared.name in ("kernel", "kernels") and isinstance(value, str) and is_object_name(value):
        known = ", ".join(KERNELS)
        raise UsageError(f"{label} must be one of {known}: an object to import is named on the command line only")
    return _read(label, declared, value)


def _why_ignored(key: str) -> str:
    if key == "data.gpu":
        return "choose a GPU with --backend cuda"
    if key == "distill.reg_s":
        return "KIP trains on the distilled set with 1e-6 of the mean eigenvalue of its kernel"
    return "it belongs to the iterative KIP method"


def _load_yaml(path: Path) -> Any:
    """The document of a file without aliases, by which a small file could stand for a huge document."""
    import yaml

    try:
        content = read_bounded(path, _LARGEST, pipes=True)
    except DataError as error:
        raise UsageError(str(error)) from error
    try:
        named: Any = next((each for each in yaml.parse(content, Loader=yaml.SafeLoader) if _is_named(each)), None)
        if named is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not taken", problem_mark=named.start_mark)
        _refuse_repeated(path, yaml.compose(content, Loader=yaml.SafeLoader))
        return yaml.safe_load(content)
    except UsageError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{path}, line {line}: malformed YAML: {_reason(error.problem or error.context)}") from error
    except yaml.reader.ReaderError as error:
        line = content[: error.position].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: malformed YAML: {_reason(error.reason)}") from error
    except RecursionError:
        raise UsageError(f"{path}: malformed YAML: nested too deeply") from None
    except Exception as error:  # the constructors of YAML's types raise whatever Python does
        raise UsageError(f"{path}: malformed YAML: {_reason(error)}") from error


def _is_named(event: Any) -> bool:
    """Whether a part of a document is an alias, or has an anchor that one could refer to."""
    return getattr(event, "anchor", None) is not None


def _refuse_repeated(path: Path, node: Any) -> None:
    """Raises UsageError where a mapping has a key twice: YAML would take the last one in silence."""
    lines: dict[str, int] = {}
    for key, value in node.value if getattr(node, "id", "") == "mapping" else ():
        line = key.start_mark.line + 1
        if key.id == "scalar" and lines.setdefault(key.value, line) != line:
            raise UsageError(f"{path}: {shown_value(key.value)} is there twice, in lines {lines[key.value]} and {line}")
        _refuse_repeated(path, value)


def _reason(error: object) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON]


def _flat(path: Path, document: Any) -> Iterable[tuple[str, Any]]:
    """``{section: {key: value}}`` -> ("section.key", value); what stands outside of the sections as it is."""
    if not isinstance(document, dict):
        got = "nothing" if document is None else f"a {type(document).__name__}"
        raise UsageError(f"{path}: expected options, or the sections {', '.join(_SECTIONS)}, got {got}")
    for key, body in document.items():
        if key not in _SECTIONS:
            yield _text(path, key), body
        elif isinstance(body, dict):
            yield from ((f"{key}.{_text(path, name)}", value) for name, value in body.items())
        elif body is not None:
            raise UsageError(f"{path}: {key} must hold keys and values, got {shown_value(body)}")


def _text(path: Path, key: Any) -> str:
    if not isinstance(key, str):
        raise UsageError(f"{path}: a key must be text, got {shown_value(key)}")
    return key


def _suggestion(key: str, known: Iterable[str]) -> str:
    spelling = {name.casefold(): name for name in (*known, *_SECTIONS)}
    cutoff = 0.8 if "." in key else 0.6  # whole keys share their section
    close = difflib.get_close_matches(key.casefold(), list(spelling), n=1, cutoff=cutoff)
    return f"; did you mean {spelling[close[0]]!r}?" if close else ""
