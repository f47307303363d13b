"""Every option of a group of commands, a line each: so that changing one is a decision."""

from collections.abc import Mapping

import click


def option_lines(tool: str, commands: Mapping[str, click.Command]) -> str:
    """Every command of `tool` with its arguments and options."""
    lines = []
    for name, command in commands.items():
        for parameter in command.params:
            text = " ".join(parameter.opts)
            if isinstance(parameter, click.Option):
                value = "" if parameter.is_flag else f" {parameter.make_metavar(click.Context(command))}"
                default = parameter.to_info_dict()["default"]
                shown = "" if parameter.is_flag or default in (None, ()) else f" = {default}"
                text += value + shown + (" …" if parameter.multiple else "")
            else:
                text = parameter.make_metavar(click.Context(command))
            lines.append(f"{tool} {name} {text}")
    return "\n".join(lines) + "\n"
