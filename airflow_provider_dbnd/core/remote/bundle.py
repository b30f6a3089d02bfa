"""The code that travels with a task: the project's files, this package, and the libraries it needs.

Each archive is a zip of its own, stored once under a key that names its content. The same files make
the same key on any day, in any folder and on any machine.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airflow_provider_dbnd.core.remote.bootstrap import digest_of, python_tag, sha256
from airflow_provider_dbnd.core.remote.libraries import LIBRARIES, compiled, library_files
from airflow_provider_dbnd.core.remote.project_files import ProjectFiles, read_all
from airflow_provider_dbnd.core.settings import FILE_NAME, Settings
from airflow_provider_dbnd.core.storage.keys import key
from airflow_provider_dbnd.core.storage.store import ArtifactStore

Kind = Literal["runner", "library", "project"]
Contents = Mapping[str, bytes]

#: Folder of the store that holds archives of code.
CODE = "_code"

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A zip of code in the store; ``digest`` names the files in it.

    :param module: what a library is imported as: where that is installed, the archive is not needed.
    :param python: which Python can load it, where that matters.
    """

    kind: Kind
    uri: str
    digest: str
    module: str | None = None
    python: str | None = None


def project_root(file: str, settings: Settings) -> str:
    """Return the folder whose files travel with the functions of *file*.

    The folder of ``dbnd.toml``; else the folder that the file's package, or the file, is imported
    from.
    """
    folder = Path(file).resolve().parent
    if settings.file and Path(settings.file).name == FILE_NAME:
        home = Path(settings.file).resolve().parent
        if folder.is_relative_to(home):
            return str(home)
    paths = {Path(entry or os.getcwd()).resolve() for entry in sys.path}
    importable = [each for each in (folder, *folder.parents) if each in paths]
    if importable:
        return str(importable[0])
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return str(folder)


def is_installed(file: str) -> bool:
    """Tell whether *file* belongs to an installed library or to Python, and to no project."""
    where = Path(file).resolve()
    return is_library(file) or where.is_relative_to(sysconfig.get_paths()["stdlib"])


def is_library(path: str) -> bool:
    """Tell whether *path* is in, or is, a folder that libraries are installed to."""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).resolve().parts)


def runner_archives(store: ArtifactStore) -> Iterator[Archive]:
    """Store this package, and the libraries it needs, which an image may not have."""
    own = _own_contents()
    yield _archive(store, "runner", _hashes(own), lambda: own)
    for module in LIBRARIES:
        files = library_files(module)
        yield _archive(
            store,
            "library",
            {name: file.sha256() for name, file in files.items()},
            functools.partial(read_all, {name: file.path for name, file in files.items()}),
            module=module,
            python=python_tag() if any(map(compiled, files)) else None,
        )


def project_archive(store: ArtifactStore, root: str, settings: Settings) -> Archive:
    """Store the files below *root* that are not excluded."""
    contents = ProjectFiles(root, settings, store).contents()
    return _archive(store, "project", _hashes(contents), lambda: contents)


def _archive(
    store: ArtifactStore,
    kind: Kind,
    hashes: Mapping[str, str],
    contents: Callable[[], Contents],
    *,
    module: str | None = None,
    python: str | None = None,
) -> Archive:
    """Return the archive of files with *hashes*; their *contents* are read if it is new."""
    digest = digest_of(dict(hashes))
    if not store.exists(_key(kind, digest)):
        files = contents()
        # What a list of installed files says of them may not be so any more.
        digest = digest_of(_hashes(files))
        if not store.exists(_key(kind, digest)):
            # Two machines may make different zips of the same files; either will do.
            store.put_bytes(_key(kind, digest), _zipped(files), overwrite=True)
    uri = store.uri(_key(kind, digest))
    return Archive(kind=kind, uri=uri, digest=digest, module=module, python=python)


def _key(kind: Kind, digest: str) -> str:
    return key(CODE, f"{kind}-{digest[:32]}.zip")


def _hashes(contents: Contents) -> dict[str, str]:
    return {name: sha256(data) for name, data in contents.items()}


def _zipped(contents: Contents) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            # A third of the time of zlib's usual level, and a tenth more bytes.
            zipped.writestr(info, contents[name], compresslevel=1)
    return buffer.getvalue()


@functools.cache
def _own_contents() -> Contents:
    home = Path(__file__).resolve().parents[2]
    return read_all(
        {
            f"{home.name}/{os.path.relpath(path, home)}".replace(os.sep, "/"): path
            for folder, _, names in os.walk(home)
            for path in (os.path.join(folder, name) for name in names)
            if path.endswith((".py", ".typed"))
        }
    )
