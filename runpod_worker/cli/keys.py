"""`runpod-worker keys`: the accounts, endpoints and keys of a job service."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.core.errors import SettingsError

if TYPE_CHECKING:
    from runpod_worker.service.keys import KeyFile

app = typer.Typer(
    help="Accounts, their endpoints and their API keys. A change reaches a running service within a second.",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option(help="The service's data folder.", envvar="RUNPOD_SERVICE_DATA")]
DATA = Path("runpod-data")


@app.command("create")
@exit_on_error
def create(
    account: Annotated[str, typer.Argument(help="The account of the key; created if it does not exist.")],
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", "-e", help="Assign this endpoint to the account; may be repeated.")
    ] = None,
    label: Annotated[str, typer.Option(help="A name for the key in `keys list`.")] = "",
    data: Data = DATA,
) -> int:
    """Create an API key and print it. The service stores only its hash, so the key cannot be shown again."""
    key = f"rpw_{secrets.token_urlsafe(32)}"
    with _open(data) as file:
        try:
            with file.transaction():
                owning_account = file.ensure_account(account)
                for name in endpoint or []:
                    file.add_endpoint(owning_account, name)
                file.add_key(owning_account, key, label)
        except ValueError as error:
            raise SettingsError(str(error)) from None
    typer.echo(key)
    return 0


@app.command("list")
@exit_on_error
def list_(data: Data = DATA) -> int:
    """Show accounts, endpoints and the fingerprints of keys."""
    with _open(data, new=False) as file:
        for account, endpoints, keys in file.accounts():
            typer.echo(f"{account.name}: endpoints {', '.join(endpoints) or '(none)'}")
            for fingerprint, label in keys:
                typer.echo(f"  key {fingerprint}  {label}".rstrip())
    return 0


@app.command("revoke")
@exit_on_error
def revoke(
    key: Annotated[str, typer.Argument(help="The key, or its fingerprint in `keys list`.")],
    data: Data = DATA,
) -> int:
    """Delete a key. Within a second the service refuses requests with it, with status 401."""
    from runpod_worker.service.keys import digest

    fingerprint = digest(key).hex() if key.startswith("rpw_") else key.lower()
    if len(fingerprint) < 8:
        raise SettingsError("KEY: expected the whole key or at least 8 digits of its fingerprint")
    with _open(data, new=False) as file:
        revoked = file.revoke(fingerprint)
    if not revoked:
        raise SettingsError("KEY: no such key")
    return 0


@contextmanager
def _open(data: Path, *, new: bool = True) -> Iterator[KeyFile]:
    """Open the keys in this folder; `new`: create them if there are none."""
    from runpod_worker.service.keys import DATABASE, KeyFile

    if not new and not (data / DATABASE).is_file():
        raise SettingsError(f"--data: expected the data folder of a service, but {str(data)!r} has no {DATABASE}")
    file = KeyFile(data / DATABASE)
    try:
        yield file
    finally:
        file.close()
