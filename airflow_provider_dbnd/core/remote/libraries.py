"""The installed libraries that ``core`` needs: which files they are, and the hash of each."""

from __future__ import annotations

import base64
import functools
import importlib.machinery
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_dbnd.core.remote.bootstrap import sha256
from airflow_provider_dbnd.exceptions import CodeDeliveryError

#: What is imported at run time, besides the libraries of the data and of the store: the module, and
#: the distributions it takes.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "pydantic": (
        "pydantic",
        "pydantic-core",
        "annotated-types",
        "typing-extensions",
        "typing-inspection",
    ),
    "blake3": ("blake3",),
    "xxhash": ("xxhash",),
    "fsspec": ("fsspec",),
    **({"tomli": ("tomli",)} if sys.version_info < (3, 11) else {}),
}


#: What installers leave of their own.
_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file of an installed library, and what was said of it when it was installed."""

    path: str
    recorded: str | None

    def sha256(self) -> str:
        """Return its hash: as recorded, so that nothing is read, or of what is there."""
        return self.recorded or sha256(Path(self.path).read_bytes())


@functools.cache
def library_files(module: str) -> Mapping[str, LibraryFile]:
    """Return the files of the library that is imported as *module*, by their place on the path."""
    return {name: file for each in LIBRARIES[module] for name, file in _files(each)}


def compiled(name: str) -> bool:
    """Tell whether a file is of use to one version of Python only."""
    return name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))


def _files(library: str) -> Iterator[tuple[str, LibraryFile]]:
    try:
        files = importlib.metadata.distribution(library).files
    except importlib.metadata.PackageNotFoundError:
        files = None
    if not files:
        raise CodeDeliveryError(
            f"library {library!r} cannot travel with a task: there is no list of its files here, as "
            'pip leaves one. Reinstall it by pip, or install it in the image and set code = "image" for '
            "the engine."
        )
    for file in files:
        name, path = file.as_posix(), str(file.locate())
        if name.startswith("..") or name.endswith(".pyc") or file.name in _INSTALLER:
            continue
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            continue
        hashed = file.hash is not None and file.hash.mode == "sha256" and file.size == size
        yield name, LibraryFile(path, _hex(file.hash.value) if file.hash and hashed else None)


def _hex(value: str) -> str:
    """Return a hash as hexadecimal digits; lists of installed files have it in base 64."""
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
