"""The commands that write a model for other programs."""

from shlex import quote
from typing import Annotated

import typer

from omni_avsr.cli.convert import Out
from omni_avsr.cli.terminal import say
from omni_avsr.run import silence_libraries

Model = Annotated[str, typer.Argument(help="A run, a model's folder or hub id, or tiny.")]

app = typer.Typer(help="Write a model for another program.", no_args_is_help=True)


@app.command("vllm")
def vllm(checkpoint: Model, out: Out) -> None:
    """Write what vLLM's server needs to run the LLM, and print the commands that serve it.

    The encoders stay with omni-avsr; vLLM decodes, greedily, with a LoRA for each sum of adapters.
    """
    from omni_avsr.choice import chosen_model
    from omni_avsr.convert.vllm import export_vllm

    silence_libraries()
    exported = export_vllm(chosen_model(checkpoint), out)
    say("vLLM runs the LLM, with embeddings from callers that it trusts:")
    typer.echo("  " + " \\\n    ".join(exported.command))
    say("The server, and every command that decodes, with that engine:")
    front = quote(str(out / "front"))
    typer.echo(f"  omni-avsr serve --checkpoint {front} --engine-url http://127.0.0.1:8001")
