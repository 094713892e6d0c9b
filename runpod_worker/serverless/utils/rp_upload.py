"""Uploads results to S3-compatible storage (protocol C.9), or copies them into a local folder without credentials.

Credentials are in the job (`s3Config`: "endpointUrl", "accessId", "accessSecret", "bucketName") or in the
variables BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY. Needs boto3: the extra `[upload]`.
"""

from __future__ import annotations

import functools
import io
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from mimetypes import guess_type
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from runpod_worker.config import sdk_settings
from runpod_worker.log import log

URL_LIFETIME_S = 604_800
"""A returned URL works for a week, the maximum of S3."""

PART_BYTES = 16 * 2**20
MAX_CONCURRENT_FILES = 8

Creds = Mapping[str, Any]


def upload_image(
    job_id: str,
    image_location: str | PathLike[str],
    result_index: int = 0,
    results_list: list[str | None] | None = None,
    bucket_name: str | None = None,
) -> str:
    """Upload a file as `{job_id}/{8 random characters}{suffix}`, and return its URL; also sets it in `results_list`.

    Without credentials, copies the file into ./simulated_uploaded and returns the path.
    """
    path = Path(image_location)
    name = f"{uuid.uuid4().hex[:8]}{path.suffix}"
    client, _ = get_boto_client()
    if client is None:
        url = _copy(path, Path("simulated_uploaded", name))
    else:
        kind = guess_type(name)[0] or f"image/{path.suffix.removeprefix('.')}"
        with path.open("rb") as source:
            url = _upload(client, source, _bucket(bucket_name), f"{job_id}/{name}", {"ContentType": kind})
    if results_list is not None:
        results_list[result_index] = url
    return url


def files(job_id: str, file_list: Sequence[str | PathLike[str]]) -> list[str]:
    """Upload several files in parallel with `upload_image`; return their URLs in order."""
    with ThreadPoolExecutor(max_workers=MAX_CONCURRENT_FILES) as pool:
        return list(pool.map(lambda path: upload_image(job_id, path), file_list))


def upload_file_to_bucket(
    file_name: str,
    file_location: str | PathLike[str],
    bucket_creds: Creds | None = None,
    bucket_name: str | None = None,
    prefix: str | None = None,
    extra_args: dict[str, Any] | None = None,
) -> str:
    """Upload a file as `{prefix}/{file_name}`, and return its URL.

    Without credentials, copies the file into ./local_upload and returns the path.

    Args:
        file_name: name in the bucket.
        file_location: path of the file.
        bucket_creds: "endpointUrl", "accessId" and "accessSecret", such as the job's s3Config.
        bucket_name: the bucket; default: `bucketName` of the credentials, or month and year ("08-26").
        prefix: a folder in the bucket.
        extra_args: arguments for S3, such as {"ContentType": "image/png"}.
    """
    client, _ = get_boto_client(bucket_creds)
    if client is None:
        return _copy(Path(file_location), Path("local_upload", file_name))
    with Path(file_location).open("rb") as source:
        return _upload(client, source, _bucket(bucket_name, bucket_creds), _key(prefix, file_name), extra_args)


def upload_in_memory_object(
    file_name: str,
    file_data: bytes,
    bucket_creds: Creds | None = None,
    bucket_name: str | None = None,
    prefix: str | None = None,
) -> str:
    """Upload bytes as `{prefix}/{file_name}`, and return the URL.

    Without credentials, writes them into ./local_upload and returns the path.
    """
    client, _ = get_boto_client(bucket_creds)
    if client is None:
        return _copy(io.BytesIO(file_data), Path("local_upload", file_name))
    bucket = _bucket(bucket_name, bucket_creds)
    return _upload(client, io.BytesIO(file_data), bucket, _key(prefix, file_name), None)


def bucket_upload(job_id: str, file_list: Sequence[str | PathLike[str]], bucket_creds: Creds) -> list[str]:
    """Upload files as `{job_id}/{path}` to `bucket_creds["bucketName"]`, and return their URLs, which are not signed.

    Raises:
        ValueError: `bucket_creds` lacks credentials.
    """
    client, options = get_boto_client(bucket_creds)
    if client is None:
        raise ValueError('bucket_creds: expected "endpointUrl", "accessId" and "accessSecret"')
    bucket, base = str(bucket_creds["bucketName"]), str(bucket_creds["endpointUrl"]).rstrip("/")
    for path in [fspath(path) for path in file_list]:
        client.upload_file(path, bucket, f"{job_id}/{path}", Config=options)
    return [f"{base}/{bucket}/{job_id}/{quote(fspath(path))}" for path in file_list]


def get_boto_client(bucket_creds: Creds | None = None) -> tuple[Any, Any]:
    """A boto3 client and its transfer settings; (None, None) without credentials.

    Raises:
        ImportError: credentials exist, but boto3 is not installed.
    """
    url, key, secret = _credentials(bucket_creds)
    if not (url and key and secret):
        return None, None
    return _client(url, key, secret), _transfer()


def extract_region_from_url(endpoint_url: str) -> str | None:
    """The region in the URL, `...s3.REGION...` or `REGION.digitaloceanspaces.com`, or None."""
    host = urlsplit(endpoint_url).hostname or ""
    labels = host.split(".")
    if host.endswith(".digitaloceanspaces.com"):
        return labels[-3]
    if "s3" in labels[:-2]:
        region = labels[labels.index("s3") + 1]
        return None if region == "amazonaws" else region
    return None


def _credentials(creds: Creds | None) -> tuple[str | None, str | None, str | None]:
    if not creds:
        settings = sdk_settings()
        return settings.bucket_url, settings.bucket_key, settings.bucket_secret
    for name in ("endpointUrl", "accessId", "accessSecret"):
        if not isinstance(creds.get(name), str):
            raise TypeError(f"bucket_creds[{name!r}]: expected a string, got {type(creds.get(name)).__name__}")
    return creds["endpointUrl"], creds["accessId"], creds["accessSecret"]


@functools.lru_cache(16)
def _client(url: str, key: str, secret: str) -> Any:
    boto3, config = _boto()
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=extract_region_from_url(url),
        config=config.Config(signature_version="s3v4", retries={"max_attempts": 3, "mode": "standard"}),
    )


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)


def _boto() -> tuple[Any, Any]:
    try:
        import boto3.session
        from botocore import config
    except ImportError as error:
        raise ImportError("uploading needs boto3: pip install 'runpod-worker[upload]'") from error
    return boto3, config


def _upload(client: Any, source: IO[bytes], bucket: str, key: str, extra_args: dict[str, Any] | None) -> str:
    client.upload_fileobj(source, bucket, key, ExtraArgs=extra_args, Config=_transfer())
    where = {"Bucket": bucket, "Key": key}
    return str(client.generate_presigned_url("get_object", Params=where, ExpiresIn=URL_LIFETIME_S))


def _bucket(name: str | None, creds: Creds | None = None) -> str:
    return name or (creds or {}).get("bucketName") or time.strftime("%m-%y")


def _key(prefix: str | None, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _copy(source: Path | IO[bytes], target: Path) -> str:
    """Copy to a local file, for tests without a bucket; return its path."""
    log.warning(
        "upload.saved_locally", extra={"path": str(target), "why": "no bucket: s3Config or BUCKET_ENDPOINT_URL"}
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        shutil.copyfile(source, target)
    else:
        with target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return str(target)
