"""What `run` can be told on its command line; `config show` takes the same options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Handler = Annotated[
    Path, typer.Argument(help="The Python file that declares the handler.", exists=True, dir_okay=False)
]
Url = Annotated[
    str | None, typer.Option(help="Job service and endpoint: http://host:port/v2/ENDPOINT. [RUNPOD_WORKER_URL]")
]
Key = Annotated[str | None, typer.Option(help="API key of the endpoint; better in RUNPOD_AI_API_KEY than here.")]
WorkerId = Annotated[str | None, typer.Option(help="This worker's id. [RUNPOD_POD_ID]")]
Device = Annotated[str | None, typer.Option(help="auto, cuda, cuda:1, cpu or mps. [RUNPOD_WORKER_DEVICE]")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Jobs at once, instead of the handler's own number.")]
Grace = Annotated[float | None, typer.Option(min=0, help="Seconds running jobs may go on after SIGTERM.")]
AsRunpod = Annotated[
    bool, typer.Option("--as-runpod", help="Let a handler that says `import runpod` use this package, unedited.")
]
LogLevel = Annotated[str | None, typer.Option(help="ERROR, WARN, INFO or DEBUG. [RUNPOD_LOG_LEVEL]")]
