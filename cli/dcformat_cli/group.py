"""Groups of commands that help a user who typed nothing, or misspelled a word."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

#: The last line of the help of every command.
_EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted."


def suggestion(text: str, known: Sequence[str]) -> str:
    """Return " Did you mean 'X'?" with the known name most similar to `text`, or an empty string."""
    close = get_close_matches(text.lower(), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class Group(click.Group):
    """A group that prints its help if called without arguments, and suggests a command for a misspelled one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print the help and exit with 0 if no arguments are given."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def find_command(self, name: str) -> click.Command | None:
        """Return a command; None if there is none of this name."""
        return self.commands.get(name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, whose help ends with the exit codes."""
        command = self.find_command(cmd_name)
        if command is not None:
            command.epilog = _EXIT_CODES
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; if all its arguments are missing, print its help on stderr before the error."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {args[0]!r}.{suggestion(args[0], known)}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if command is None or rest or ctx.resilient_parsing:
            return name, command, rest
        if any(parameter.required for parameter in command.params):
            with command.make_context(name, [], parent=ctx, resilient_parsing=True) as alone:
                click.echo(alone.get_help(), err=True)
        return name, command, rest


class Choice(click.Choice[str]):
    """A choice of words that suggests one for a misspelled one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word.

        Raises
        ------
        click.BadParameter
            The word is not one of the choices.
        """
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            known = [str(word) for word in self.choices]
            raise click.BadParameter(error.message + suggestion(str(value), known), ctx, param) from None

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the choices in one line."""
        return f"Choose from {', '.join(map(str, self.choices))}."
