"""Disks and object stores by one name: the fsspec filesystem of a path or URI, as this project uses it."""

from __future__ import annotations

import os
from typing import Any

import fsspec

LOCAL = ("", "file", "local")
# A store may be out for a minute, or ask for fewer requests; botocore's own default gives up after some seconds.
# Standard mode waits 2^n s at most between two tries, never more than 20 s: 10 tries take about a minute.
S3_RETRIES = {"mode": "standard", "max_attempts": 10}
STORES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google")  # packages whose faults are a store's


def protocol_of(uri: str) -> str:
    """`s3` of `s3://…`; empty for a path."""
    return uri.split("://", 1)[0] if "://" in uri else ""


def is_remote(uri: str) -> bool:
    """Whether a path or URI is on no disk of this machine. Libraries that read files cannot open it."""
    return protocol_of(uri) not in LOCAL


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """(filesystem, path inside it) of a local path or URI. Keys come from the environment.

    Listings are never cached: shards, candidates and leases are written by other processes.
    """
    fs, path = fsspec.core.url_to_fs(uri, **(_options(protocol_of(uri)) if is_remote(uri) else {}))
    return fs, path


def _options(protocol: str) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a") and "AWS_MAX_ATTEMPTS" not in os.environ:
        given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})  # of the user's own fsspec configuration
        options["config_kwargs"] = {"retries": S3_RETRIES, **given}
    return options


def is_passing(fault: Exception) -> bool:
    """Whether a store's or a disk's fault may be over by another try. Stores' libraries have faults of their own, which
    are no OSError.
    """
    return isinstance(fault, OSError) or type(fault).__module__.partition(".")[0] in STORES
