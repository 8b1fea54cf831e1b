"""Settings classes as the options of commands.

Each field of a settings class becomes one option. Lists, tasks and paths are strings on the command
line, and the settings class parses them, just as it parses the values of a file given as --config.
"""

import inspect
import tomllib
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from omni_avsr.errors import InputError
from omni_avsr.run import read_run
from omni_avsr.settings import Settings
from omni_avsr.settings.base import flag, required
from omni_avsr.tasks import Row, Task

PARSED_BY_TYPER = (bool, int, float, str)  # all other types are parsed by Settings
FORMS: dict[object, str] = {int: "INT", float: "FLOAT", str: "TEXT", Task: "TASK", Path: "PATH"}

Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Take options from a TOML file, with lines such as seed = 2, or from the run.json of "
        "a run. Options on the command line take precedence.",
    ),
]


def takes(settings: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command one option per field of a settings class, and --config.

    The command gets their values as one object of that class, its first argument.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(ctx: typer.Context, config: Path | None, **values: Any) -> None:
            chosen = read_config(config, settings) if config else {}
            for own in fields(settings):
                value = values.pop(own.name)
                if _is_given(ctx, own.name):
                    chosen[own.name] = value
            options = settings(**chosen)
            if missing := list(options.missing_files()):
                raise InputError("; ".join(missing))
            command(options, **values)

        run.__signature__ = _signature(command, settings)  # type: ignore[attr-defined]
        run.__doc__ = command.__doc__
        return run

    return decorate


def read_config(file: Path, settings: type[Settings]) -> Row:
    """The options of a run.json or of a TOML file, whose keys may use - or _."""
    options = {}
    known = {own.name for own in fields(settings)}
    for key, value in _read(file).items():
        name = key.replace("-", "_")
        options[f"{name}_" if f"{name}_" in known else name] = value
    unknown = sorted(options.keys() - known)
    if unknown:
        raise InputError(
            f"{file} has options that this command does not take: {', '.join(unknown)}; "
            "--help lists those that it takes"
        )
    return options


def _read(file: Path) -> Row:
    if file.name == "run.json":
        record = read_run(file.parent)
        assert record is not None, f"{file} was there a moment ago"
        return record.settings
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is neither a run.json nor a TOML file: {error}") from None


def as_typed(value: object) -> str:
    """A value as a user would type it: q_proj,v_proj for a tuple."""
    if isinstance(value, tuple):
        return ",".join(map(as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _signature(command: Callable[..., None], settings: type[Settings]) -> inspect.Signature:
    """The command's own parameters with an option per field instead of the settings object."""
    hints = get_type_hints(settings)
    keyword = inspect.Parameter.KEYWORD_ONLY
    _, *others = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    parameters += [other.replace(kind=keyword) for other in others]
    parameters.append(inspect.Parameter("config", keyword, default=None, annotation=Config))
    for own in fields(settings):
        option = _option(own, hints[own.name], _panel(own.name, settings))
        parameters.append(option)
    return inspect.Signature(parameters)


def _option(own: Field, hint: object, panel: str | None) -> inspect.Parameter:
    """A field as the parameter that Typer turns into an option.

    Its default is only shown: the settings class fills in what is not given.
    """
    kind = required(hint)
    annotation = kind if kind in PARSED_BY_TYPER else str
    names = [flag(own)] if own.name.endswith("_") else []  # else Typer names it, with its --no-
    option = typer.Option(
        *names,
        help=own.metadata["help"] + _shown_default(own),
        metavar=_form(kind),
        rich_help_panel=panel,
        show_default=False,
    )
    return inspect.Parameter(
        own.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotation | None, option],
    )


def _shown_default(own: Field) -> str:
    """The end of a help text; empty for flags that are off, and where the text has a default.

    The app's help must be Markdown: in rich's own markup these brackets would be a tag.
    """
    if own.default is None or own.default is False:
        return ""
    if own.default is True:
        return f"  [default: {flag(own)}]"
    return f"  [default: {as_typed(own.default)}]"


def _form(kind: object) -> str | None:
    """How a value is typed, such as INT,INT; None for flags."""
    if get_origin(kind) is tuple:
        item = FORMS[get_args(kind)[0]]
        return f"{item},{item}"
    return FORMS.get(kind)


def _panel(name: str, settings: type[Settings]) -> str | None:
    """The panel of an option: the group that declares it; None for the command's own options."""
    for group in settings.__mro__:
        if name in inspect.get_annotations(group):
            title = group.__name__.removesuffix("Options")
            return None if group is settings else f"{title} options"
    raise AssertionError(f"no class of {settings.__name__} declares {name}")
