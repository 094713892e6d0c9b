"""`runpod-worker keys`: who may use a job service."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.core.errors import SettingsError

if TYPE_CHECKING:
    from runpod_worker.service.key_file import KeyFile

app = typer.Typer(
    help="Accounts, their endpoints and their API keys. A running service takes changes at once.", no_args_is_help=True
)

Data = Annotated[Path, typer.Option(help="The service's data folder.", envvar="RUNPOD_SERVICE_DATA")]
DATA = Path("runpod-data")


@app.command("create")
@bordered
def create(
    account: Annotated[str, typer.Argument(help="Account the key belongs to; made if there is none of that name.")],
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", "-e", help="Give this endpoint to the account; repeatable.")
    ] = None,
    label: Annotated[str, typer.Option(help="A word to know the key by.")] = "",
    data: Data = DATA,
) -> int:
    """Make an API key and print it, this once: only its hash is kept."""
    key = f"rpw_{secrets.token_urlsafe(32)}"
    with _open(data) as file:
        owner = file.account(account)
        for name in endpoint or []:
            try:
                file.give_endpoint(owner, name)
            except ValueError as error:
                raise SettingsError(str(error)) from None
        file.add_key(owner, hashlib.sha256(key.encode()).digest(), label)
    typer.echo(key)
    return 0


@app.command("list")
@bordered
def list_(data: Data = DATA) -> int:
    """Show accounts, endpoints and the fingerprints of keys."""
    with _open(data, tell=False) as file:
        for account, endpoints, keys in file.listing():
            typer.echo(f"{account.name}: endpoints {', '.join(endpoints) or '(none)'}")
            for fingerprint, label in keys:
                typer.echo(f"  key {fingerprint}  {label}".rstrip())
    return 0


@app.command("revoke")
@bordered
def revoke(
    key: Annotated[str, typer.Argument(help="The key itself, or its fingerprint as `keys list` shows it.")],
    data: Data = DATA,
) -> int:
    """Forget a key: requests with it are refused from now on."""
    fingerprint = hashlib.sha256(key.encode()).hexdigest() if key.startswith("rpw_") else key.lower()
    if len(fingerprint) < 8:
        raise SettingsError("KEY: expected the whole key or at least 8 digits of its fingerprint")
    with _open(data) as file:
        gone = file.revoke(fingerprint)
    if not gone:
        raise SettingsError("KEY: there is no such key")
    return 0


@contextmanager
def _open(data: Path, *, tell: bool = True) -> Iterator[KeyFile]:
    from runpod_worker.service.key_file import KeyFile

    file = KeyFile(data / "jobs.sqlite")
    try:
        yield file
        if tell and (pid := file.tell_service()):
            typer.echo(f"the running service (process {pid}) was told", err=True)
    finally:
        file.close()
