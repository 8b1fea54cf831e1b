"""A settings class as the options of a command."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer


def takes(settings: type) -> Callable:
    """Gives a command one option per field of a settings class; the command gets them as one object."""

    def decorate(command: Callable) -> Callable:
        def run(**values: Any) -> None:
            own = {name: values.pop(name) for name in [field.name for field in fields(settings)]}
            command(settings(**own), **values)

        hints = get_type_hints(settings)
        arguments = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[hints[field.name], typer.Option(help=field.metadata["help"])],
            )
            for field in fields(settings)
        ]
        run.__signature__ = inspect.Signature([*arguments, *options])  # type: ignore[attr-defined]
        run.__doc__ = command.__doc__
        return run

    return decorate
