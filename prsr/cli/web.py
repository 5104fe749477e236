"""The command ``prsr web``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from prsr.cli.options import device_option, load_model, print_line
from prsr.cli.study import studies_option
from prsr.models.model_files import bundled_models
from prsr.models.prsr import PRSR
from prsr.sampling.method_for import method_for
from prsr.sampling.trained_baselines import RegressionMethod


@click.command("web")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=7860, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--model",
    "names",
    multiple=True,
    default=bundled_models(),
    help="A model to sample from, as for `prsr sample`; give it once for each.",
)
@click.option("--l2", help="An L2 baseline to show beside samples.")
@studies_option
@device_option
def web(
    host: str, port: int, names: tuple[str, ...], l2: str | None, studies: Path, device: str
) -> None:
    """Serve the sampling page and the studies to browsers, until Ctrl-C.

    Only this machine can connect unless --host says otherwise. Nothing is loaded from other hosts.

    \b
    prsr web
    prsr web --model runs/faces/model --l2 runs/l2/model --studies studies/
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)
    try:
        from prsr.web.app import create_app
        from prsr.web.runs import Models
        from prsr.web.server import serve
    except ImportError as error:
        raise ImportError(f"prsr web needs pip install 'prsr[web]' ({error})") from error

    opened = {name: load_model(name, device) for name in names}
    models: dict[str, PRSR] = {}
    for name, model in opened.items():
        if not isinstance(model, PRSR):
            raise ValueError(f"--model {name} is of the method {model.method}: give it as --l2")
        models[name] = model
    baseline = None if l2 is None else method_for(load_model(l2, device))
    if baseline is not None and not isinstance(baseline, RegressionMethod):
        raise ValueError(f"--l2 must be a model of the method l2, got {l2}")
    with tempfile.TemporaryDirectory(prefix="prsr-web-") as temporary:
        app = create_app(Models(models, baseline), studies, Path(temporary))
        serve(app, host, port, lambda address: print_line(f"serving at {address} (Ctrl-C ends it)"))
