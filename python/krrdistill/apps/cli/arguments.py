"""Arguments of the commands, made from the fields that declare their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from krrdistill.common.options import Declared, as_word, declared_options

__all__ = ["Config", "Json", "RegS", "Session", "with_options"]

Command = Callable[..., Any]
_METAVARS = {int: "N", float: "V", str: "NAME", Path: "PATH"}


@dataclass
class Session:
    """What one invocation has to remember beyond its command."""

    traceback: bool = False


def _remember_traceback(context: typer.Context, value: bool) -> None:
    if value and isinstance(context.obj, Session):
        context.obj.traceback = True


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with options, of this package or of the published code. The command line takes precedence.",
        metavar="FILE.yaml",
        show_default=False,
        rich_help_panel="Files",
    ),
]
RegS = Annotated[
    bool | None,
    typer.Option(
        "--reg-s/--no-reg-s",
        help="Published names: --reg-s means --lambda-s auto, --no-reg-s means --lambda-s 0.",
        show_default=False,
        rich_help_panel="Distilled set",
    ),
]
_Traceback = Annotated[
    bool,
    typer.Option(
        "--traceback",
        callback=_remember_traceback,
        is_eager=True,
        help="Print the Python traceback of an error (also with KRRDISTILL_TRACEBACK=1).",
    ),
]


def with_options(*kinds: type) -> Callable[[Command], Command]:
    """Give a command an option for everything that ``kinds`` declare, and --traceback.

    What several of them declare is one option, that of the first. The command gets what was given in its argument
    ``given``, by the names of the fields.
    """

    def decorate(command: Command) -> Command:
        named = {each.name: each for kind in reversed(kinds) for each in declared_options(kind)}
        order = dict.fromkeys(each.name for kind in kinds for each in declared_options(kind))
        declared = [named[name] for name in order]

        def run(**values: Any) -> Any:
            del values["show_traceback"]
            if kinds:
                chosen = {each.name: values.pop(each.name) for each in declared}
                values["given"] = {name: value for name, value in chosen.items() if value is not None}
            return command(**values)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            parameters += map(_parameter, declared) if own.name == "given" else [own.replace(kind=own.KEYWORD_ONLY)]
        parameters.append(_keyword("show_traceback", _Traceback, False))
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(declared: Declared) -> inspect.Parameter:
    """An option that is None where it is not given; all but switches are text, read as the declaration says."""
    switch = declared.base is bool
    word = typer.Option(
        f"{declared.flag}/--no-{declared.cli_name}" if switch else declared.flag,
        help=declared.option.text,
        metavar=None if switch else declared.option.metavar or _METAVARS[declared.base],
        show_default=_default_text(declared),
        rich_help_panel=declared.option.panel,
    )
    return _keyword(declared.name, Annotated[bool | None if switch else str | None, word], None)


def _default_text(declared: Declared) -> str | bool:
    """How the help shows the default; False for a switch that is off, and where there is none."""
    if declared.option.default_text is not None:
        return declared.option.default_text
    if declared.default is None or declared.base is bool:
        return False
    return as_word(declared.default)
