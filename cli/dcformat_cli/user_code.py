"""Calls functions of the user's own code, named on the command line as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcformat.datasets import DataError
from dcformat_cli.failures import is_ours, misuse
from dcformat_cli.group import suggestion


class UserCodeError(Exception):
    """The user's code raised an exception, or returned something unexpected; one line says where."""


def function(option: str, name: str) -> Callable[..., Any]:
    """Import a function; modules in the current directory are found first.

    Parameters
    ----------
    option : str
        The option that has the name, for errors.
    name : str
        Such as ``nets:make`` or ``project.data:loaders``.

    Raises
    ------
    click.UsageError
        The name has no colon, or there is no such module or function.
    UserCodeError
        Importing the module raised an exception.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise misuse(f"{option}: expected MODULE:FUNCTION, as in mynet:make, found {name!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failure(name, error) from error
        raise misuse(f"{option}: no module {error.name!r} in this directory or among the installed packages") from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise _failure(name, error) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise misuse(f"{option}: {module_name} has no {path!r}.{suggestion(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise misuse(f"{option}: expected a function, found that {name} is of type {type(found).__name__}")
    called: Callable[..., Any] = found
    return called


def call(name: str, user_function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the user.

    Raises
    ------
    UserCodeError
        The function raised an exception.
    """
    try:
        return user_function(*args)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise _failure(name, error) from error


@contextmanager
def blaming(*functions: Callable[..., Any]) -> Iterator[None]:
    """Turn an error that the user's code raises in the block into a `UserCodeError` with its line.

    Code is the user's if its file is beside that of one of the functions. Errors of this project stay unchanged, unless
    they only pass on one of the user's.

    Parameters
    ----------
    *functions : callable
        The user's functions.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        passed_on = isinstance(error, DataError) and isinstance(error.__cause__, Exception)
        raised = error.__cause__ if passed_on else error
        if isinstance(raised, Exception) and not passed_on and (isinstance(raised, MemoryError) or is_ours(raised)):
            raise
        files = [getattr(sys.modules.get(each.__module__), "__file__", None) for each in functions]
        folders = {Path(file).parent for file in files if file is not None}
        frames = traceback.extract_tb(None if raised is None else raised.__traceback__)
        places = [frame for frame in frames if Path(frame.filename).parent in folders]
        if raised is None or not places:
            raise
        raise UserCodeError(f"{places[-1].filename}, line {places[-1].lineno}: {_one_line(raised)}") from error


def _failure(name: str, error: BaseException) -> UserCodeError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return UserCodeError(f"{name}: {_one_line(error)}{where}")


def _one_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}{': ' if text else ''}{text}"
