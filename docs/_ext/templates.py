"""Two pages are Jinja templates, filled with what the code declares: the commands, and the keys of YAML files."""

from __future__ import annotations

import re
from typing import Any

import typer
from jinja2 import Environment, StrictUndefined
from sphinx.application import Sphinx

from krrdistill.apps.cli.app import app as command_line
from krrdistill.apps.cli.settings import DistillSettings, KipSettings, StatisticsSettings, SweepSettings
from krrdistill.common.options import as_word, declared_options

PAGES = ("reference/cli", "reference/configuration")
CONFIGURED = {"distill": DistillSettings, "statistics": StatisticsSettings, "kip": KipSettings, "sweep": SweepSettings}


def text(words: Any) -> str:
    """``words`` as plain text in a cell of a Markdown table."""
    escaped = re.sub(r"([\\|<>*_`\[\]$])", r"\\\1", " ".join(str(words).split()))
    return re.sub(r"(?<=\w)(\\\||,)(?=[\w.])", r"\1<wbr>", escaped)  # where NAME|FILE may be broken


def code(words: Any) -> str:
    """``words`` as code in a cell of a Markdown table."""
    return "`" + str(words).replace("|", r"\|") + "`" if words else ""


def commands() -> list[dict[str, Any]]:
    """Every command with its arguments, and its options by the panels of its help."""
    group: Any = typer.main.get_command(command_line)
    return [_command(name, command) for name, command in group.commands.items()]


def _command(name: str, command: Any) -> dict[str, Any]:
    panels: dict[str, list[dict[str, str]]] = {}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    for each in command.params:
        if each not in arguments:
            panels.setdefault(getattr(each, "rich_help_panel", None) or "Options", []).append(_option(each))
    words = [name, "[OPTIONS]", *(each.metavar if each.required else f"[{each.metavar}]" for each in arguments)]
    usage = " ".join(["krrdistill", *words])
    return {"name": name, "text": command.help, "usage": usage, "arguments": arguments, "panels": panels}


def _option(parameter: Any) -> dict[str, str]:
    """How an option is given, what it means and what it is without; choices that are off by default say nothing."""
    return {
        "flags": " ".join([*parameter.opts, *parameter.secondary_opts]),
        "metavar": "" if parameter.is_flag else parameter.metavar,
        "text": parameter.help,
        "default": parameter.show_default if isinstance(parameter.show_default, str) else "",
    }


def keys() -> list[dict[str, Any]]:
    """Every key that a YAML file may have, once, with the commands that take it."""
    found: dict[str, dict[str, Any]] = {}
    for command, kind in CONFIGURED.items():
        for each in declared_options(kind):
            if each.option.in_files:
                default = each.option.default_text or ("" if each.default is None else as_word(each.default))
                entry = {"declared": each, "default": default, "commands": []}
                found.setdefault(each.name, entry)["commands"].append(command)
    return list(found.values())


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Fill the page, if it is a template."""
    if docname in PAGES:
        environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)
        environment.filters.update(text=text, code=code)
        source[0] = environment.from_string(source[0]).render(commands=commands(), keys=keys())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
