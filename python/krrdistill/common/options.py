"""Options declared once: a field of a dataclass states type, default, choices, bounds and help of an option.

The check of an instance, the command line, the keys of configuration files and the recorded command of a run are all
derived from these fields. A field whose type is such a dataclass itself is a group of options.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
import string
import types
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from operator import ge, gt, le, lt
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "Declared",
    "Option",
    "as_word",
    "as_words",
    "build",
    "check_options",
    "common_values",
    "declared_options",
    "described",
    "did_you_mean",
    "differing",
    "group",
    "keep_once",
    "option",
    "option_of",
    "option_values",
    "read_value",
    "short_word",
    "shown_value",
]

T = TypeVar("T")
_KEY, _AXES, _WITHOUT = "option", "axes", "without"
_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_MANY = {int: "integers", float: "numbers", str: "names"}
_BOUNDS = (("above", ">", gt), ("minimum", ">=", ge), ("maximum", "<=", le), ("below", "<", lt))
_LONGEST_INTEGER = 128  # bits that a message shows
_LONGEST_WORD = 24  # of a value in the name of a run
_FIT = frozenset(string.ascii_letters + string.digits + "_.,+-")
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 1, 60, 60


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field declares beyond its name, type and default.

    text : the help; "{choices}" in it becomes the list of choices
    choices : allowed strings; numeric options accept numbers too
    accepts : predicate for strings outside choices; what stands behind | in ``metavar`` says which
    minimum, maximum : inclusive bounds; above, below : exclusive ones
    reason : why there are no other choices or values, or what to do instead, where a message should say it
    cli : name on the command line, by default the field's
    metavar, default_text, panel : how the help of the command line shows the value, the default None, and where
    key : key of the published code's configuration files; meanings : what its values mean, where they are not ours
    in_files : whether a configuration file may give it
    decides_model : whether it decides how the original model is trained
    recorded : whether a distilled file records it
    names_run : whether it tells one run from another, and belongs in the name of a folder where it is not the default
    """

    text: str
    choices: tuple[str, ...] = ()
    accepts: Callable[[str], bool] | None = None
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    reason: str | None = None
    cli: str | None = None
    metavar: str | None = None
    default_text: str | None = None
    panel: str = "Options"
    key: str | None = None
    meanings: Mapping[Any, Any] | None = None
    in_files: bool = True
    decides_model: bool = False
    recorded: bool = True
    names_run: bool = True


@dataclass(frozen=True)
class Declared:
    """An option with what its field says: ``base`` is the type of one value, Any for what is not checked here.

    several : several values, one of them alone too (``single``: kept as it is), or a mapping to them (``keyed``)
    """

    name: str
    default: Any
    option: Option
    base: Any
    optional: bool
    several: bool
    single: bool = False
    keyed: bool = False

    @property
    def cli_name(self) -> str:
        """The name on the command line, without dashes before it."""
        return self.option.cli or self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """The word that gives the option on the command line."""
        return f"--{self.cli_name}"


def option(default: Any, text: str, **declaration: Any) -> Any:
    """A field of an options dataclass; ``declaration`` has further fields of ``Option``."""
    return field(default=default, metadata={_KEY: _option(text=text, **declaration)})


def option_of(kind: type, name: str, **changes: Any) -> Any:
    """The field ``name`` of another options dataclass, with ``changes`` of its default or of what it declares."""
    source = next(found for found in fields(kind) if found.name == name)
    default = changes.pop("default", source.default)
    return field(default=default, metadata={_KEY: _option(**{**vars(source.metadata[_KEY]), **changes})})


def _option(*, text: str, **declaration: Any) -> Option:
    return Option(text=text.replace("{choices}", ", ".join(declaration.get("choices", ()))), **declaration)


def group(kind: type, *, axes: Mapping[str, str] | None = None, without: Container[str] = ()) -> Any:
    """A field for options of ``kind``, of which some are not declared here.

    axes : name of an option of ``kind`` -> option of this class that has several values of it; the group has the first
    without : names of options that keep their default
    """
    return field(default_factory=kind, metadata={_AXES: axes or {}, _WITHOUT: without})


def _undeclared(of_group: Any) -> set[str]:
    """Names of the options of a group that its class does not declare."""
    return {*of_group.metadata.get(_AXES, ()), *of_group.metadata.get(_WITHOUT, ())}


def declared_options(kind: Any) -> tuple[Declared, ...]:
    """Every option of a dataclass, those of its groups in their place."""
    return _declared_options(kind)


@cache  # behind a function that takes Any: mypy takes the class of a dataclass with eq for unhashable
def _declared_options(kind: Any) -> tuple[Declared, ...]:
    hints = get_type_hints(kind)
    found: list[Declared] = []
    for each in fields(kind):
        if is_dataclass(hints[each.name]):
            hidden = _undeclared(each)
            found += (option for option in declared_options(hints[each.name]) if option.name not in hidden)
        elif _KEY in each.metadata:
            found.append(_declared(each.name, each.default, each.metadata[_KEY], hints[each.name]))
    return tuple(found)


def _declared(name: str, default: Any, declaration: Option, hint: Any) -> Declared:
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not types.NoneType]
    many = [kind for kind in kinds if get_origin(kind) in (Sequence, tuple)]
    base = get_args(many[0])[0] if many else kinds[0]
    base = get_args(base)[0] if isinstance(base, types.UnionType) else base
    keyed = any(get_origin(kind) is Mapping for kind in kinds)
    return Declared(
        name, default, declaration, base, len(kinds) < len(parts), bool(many), bool(many) and base in kinds, keyed
    )


def described(kind: type[T]) -> type[T]:
    """The dataclass with a section "Parameters" in its docstring, made of what its options declare."""
    lines = [str(kind.__doc__).rstrip(), "", "    Parameters", "    ----------"]
    for each in declared_options(kind):
        default = each.option.default_text if each.default is None and each.option.default_text else each.default
        choices = f"{{{', '.join(each.option.choices)}}}, " if each.option.choices else ""
        lines += [f"    {each.name} : {choices}default {default}", f"        {each.option.text}"]
    kind.__doc__ = "\n".join(lines) + "\n"
    return kind


def check_options(where: str, instance: Any) -> None:
    """Check every option of ``instance`` itself, and keep it as a plain Python value that JSON knows.

    Raises
    ------
    TypeError, ValueError
        Naming ``where``, the field and what came.
    """
    own = {each.name for each in fields(instance)}
    for each in declared_options(type(instance)):
        if each.name in own:
            value = _check(f"{where}: {each.name}", each, getattr(instance, each.name))
            object.__setattr__(instance, each.name, value)


def read_value(label: str, declared: Declared, value: Any) -> Any:
    """The checked value that a word of the command line, or a value of a configuration file, stands for.

    Raises TypeError or ValueError; ``label`` names where the value comes from.
    """
    if isinstance(value, Mapping) and declared.keyed:
        raise TypeError(f"{label} must be {_wanted(declared)}, got {shown_value(value)}: only Python takes a mapping")
    if isinstance(value, str):
        many = declared.several and not (declared.single and "," not in value)
        value = _read_many(label, declared, value) if many else _read_one(declared, value)
    elif declared.several and isinstance(value, list):
        value = [_read_one(declared, item) if isinstance(item, str) else item for item in value]
    return _check(label, declared, value)


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """An instance of an options dataclass, its groups included, from values by the names of the fields."""
    hints, chosen = get_type_hints(kind), {}
    for each in fields(kind):  # type: ignore[arg-type]
        if is_dataclass(hints[each.name]):
            kept = {name: value for name, value in values.items() if name not in _undeclared(each)}
            axes = each.metadata.get(_AXES, {})
            first = {name: values[several][0] for name, several in axes.items() if values.get(several)}
            chosen[each.name] = build(hints[each.name], {**kept, **first})
        elif each.name in values:
            chosen[each.name] = values[each.name]
    return kind(**chosen)


def as_words(instance: Any, *, always: Container[str] = (), never: Container[str] = ()) -> list[str]:
    """Command-line arguments that reproduce ``instance``: non-default options and those in ``always``."""
    words: list[str] = []
    for each, value in _values(instance):
        if each.name not in never and (value != each.default or each.name in always):
            words += _words(each, value)
    return words


def differing(instance: Any, *, never: Container[str] = ()) -> dict[str, str]:
    """What tells ``instance`` from one of defaults: the names of such options and their values, "" for a switch.

    >>> from krrdistill.options import DistillOptions
    >>> differing(DistillOptions(realism=0.5, refit=True, stratify=False, threads=2))
    {'realism': '0.5', 'refit': '', 'no-stratify': ''}
    """
    found = {}
    for each, value in _values(instance):
        if each.option.names_run and each.name not in never and value != each.default:
            name = f"no-{each.cli_name}" if value is False else each.cli_name
            found[name] = "" if isinstance(value, bool) else as_word(value)
    return found


def short_word(word: str) -> str:
    """``word`` as a name of a run has it: as it is, or the start of its digest where it is long or of odd characters.

    >>> short_word("0.1,1"), short_word("/data/validation.npz")
    ('0.1,1', '39c9cc32')
    """
    fit = len(word) <= _LONGEST_WORD and word.isascii() and not set(word) - _FIT
    return word if fit else hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _values(instance: Any) -> Iterator[tuple[Declared, Any]]:
    """Every option of an instance, those of its groups in their place, with its value."""
    declared = {each.name: each for each in declared_options(type(instance))}
    for each in fields(instance):
        value = getattr(instance, each.name)
        if is_dataclass(value):
            hidden = _undeclared(each)
            yield from (item for item in _values(value) if item[0].name not in hidden)
        elif each.name in declared:
            yield declared[each.name], value


def keep_once(where: str, instance: Any, *names: str) -> None:
    """Keeps every value of options that have several once. Raises ValueError, in the name of ``where``, for none."""
    for name in names:
        values = getattr(instance, name)
        if values is not None and not values:
            raise ValueError(f"{where}: {name} must name at least one")
        if values is not None:
            object.__setattr__(instance, name, tuple(dict.fromkeys(values)))


def option_values(instance: Any) -> dict[str, Any]:
    """The value of every option of ``instance``, those of its groups included, by the names of the fields."""
    return {each.name: value for each, value in _values(instance)}


def _words(declared: Declared, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [declared.flag if value else f"--no-{declared.cli_name}"]
    return [declared.flag, as_word(value)]


def as_word(value: Any) -> str:
    """A value, or several with commas between, as the command line takes it: 1.0 is "1"."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(as_word, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def common_values(instance: Any, kind: type) -> dict[str, Any]:
    """The values of ``instance`` for the options that ``kind`` has too."""
    names = {each.name for each in fields(kind)}
    return {each.name: getattr(instance, each.name) for each in fields(instance) if each.name in names}


def shown_value(value: Any) -> str:
    """``value`` for a message: never long, whatever it is."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        return f"an integer of {value.bit_length()} bits"
    return _REPR.repr(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is not known: the nearest of those that are; nothing if none is near."""
    spelling = {each.casefold(): each for each in known}
    close = get_close_matches(word.casefold(), spelling, n=1)
    return f"; did you mean {spelling[close[0]]!r}?" if close else ""


def _read_many(label: str, declared: Declared, text: str) -> list[Any]:
    """``"1,10"`` -> [1, 10]."""
    values = [_read_one(declared, part.strip()) for part in text.split(",")]
    for value in values:
        named = isinstance(value, str) and value not in declared.option.choices
        if value == "" or (named and declared.base is not str):
            raise ValueError(f"{label} must be {_MANY[declared.base]} with commas between, got {value!r}")
    return values


def _read_one(declared: Declared, text: str) -> Any:
    """Convert text to a number or a known choice if possible, else return it."""
    if declared.base in (int, float):
        try:
            return declared.base(text)
        except ValueError:
            pass
    spelling = {choice.casefold(): choice for choice in declared.option.choices}
    return spelling.get(text.casefold(), text)


def _plain(value: Any) -> Any:
    """An array without dimensions, of any framework, as the number that it holds."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _check(label: str, declared: Declared, value: Any) -> Any:
    value = _plain(value)
    if value is None and declared.optional:
        return None
    if not declared.several or (declared.single and not isinstance(value, Iterable)):
        return _check_one(label, declared, value)
    if declared.keyed and hasattr(value, "keys"):  # of a series of pandas, too: its labels, not its order
        items = [(_plain(key), _plain(value[key])) for key in value.keys()]  # noqa: SIM118
        return {key: _check_one(f"{label} of {shown_value(key)}", declared, item) for key, item in items}
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,)
    unordered = declared.keyed and isinstance(value, Set)
    if unordered or isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{label} must be {_wanted(declared)}, got {shown_value(value)}")
    return tuple(_check_one(label, declared, _plain(item)) for item in value)


def _wanted(declared: Declared) -> str:
    """What several values may be, in words."""
    many = _MANY[declared.base]
    return f"{_NAMES[declared.base]} or a list of {many}" if declared.single else many


def _check_one(label: str, declared: Declared, value: Any) -> Any:
    choices, accepts = declared.option.choices, declared.option.accepts
    named = isinstance(value, str)
    if choices and (named or declared.base is str):
        if named and (value in choices or (accepts is not None and accepts(value))):
            return value
        numbers = "" if declared.base is str else "a number, or "
        others = f" or {str(declared.option.metavar).partition('|')[2]}" if accepts is not None else ""
        allowed = f"{numbers}one of {', '.join(choices)}{others}"
        hint = did_you_mean(value, choices) if named else ""
        raise ValueError(f"{label} must be {allowed}; got {shown_value(value)}{hint}{_because(declared.option)}")
    if declared.base is Any:
        return value
    value = _typed(label, declared.base, value)
    if declared.base in (int, float):
        _check_bounds(label, declared.option, value)
    return value


def _typed(label: str, kind: Any, value: Any) -> Any:
    """``value`` as ``kind``, which NumPy's scalars become; TypeError for another kind of thing."""
    name = type(value).__name__ if type(value).__module__ == "numpy" else ""
    truth = isinstance(value, bool) or name in ("bool", "bool_")
    if kind is int and isinstance(value, Integral) and not truth:
        return int(value)
    if kind is float and isinstance(value, Real) and not truth:
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if kind is bool and truth:
        return bool(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and value == "":
        raise ValueError(f"{label} must be {_NAMES[kind]}, got ''; '.' is the current folder")
    if kind is Path and isinstance(value, (str, PathLike)):
        return Path(value)
    raise TypeError(f"{label} must be {_NAMES[kind]}, got {shown_value(value)}")


def _check_bounds(label: str, declaration: Option, value: float) -> None:
    """Raises ValueError unless ``value`` is finite and within the bounds."""
    limits = [(sign, holds, getattr(declaration, name)) for name, sign, holds in _BOUNDS]
    bounds = [(sign, holds, limit) for sign, holds, limit in limits if limit is not None]
    finite = isinstance(value, int) or math.isfinite(value)
    if not finite or not all(holds(value, limit) for _, holds, limit in bounds):
        words = [] if isinstance(value, int) else ["finite"]
        words += [f"{sign} {_limit(limit)}" for sign, _, limit in bounds]
        raise ValueError(f"{label} must be {' and '.join(words)}, got {shown_value(value)}{_because(declaration)}")


def _because(declaration: Option) -> str:
    return "" if declaration.reason is None else f"; {declaration.reason}"


def _limit(limit: float) -> str:
    """A bound for a message; large integers are powers of 2."""
    return f"2^{math.log2(limit):g}" if isinstance(limit, int) and limit >= 1 << 20 else f"{limit:g}"
