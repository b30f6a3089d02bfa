"""Artifacts that are folders: parts moved to their place, then the list that makes them one."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_dbnd.core.storage.errors import store_errors
from airflow_provider_dbnd.core.storage.filesystem import absolute, parse, redact
from airflow_provider_dbnd.core.storage.objects import STAGING, mark
from airflow_provider_dbnd.core.storage.parts import LISTING, Listing, Part, listing_checksum
from airflow_provider_dbnd.exceptions import ArtifactCorruptedError, ArtifactNotFoundError

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.storage.store import ArtifactStore

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Parts moved or copied at once, each a request or a few.
_AT_ONCE = 8

_REMEDY = "Delete the folder and run the task that makes it again"


class Folders:
    """The artifacts of a store that are folders."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    @contextlib.contextmanager
    def staging(self) -> Iterator[str]:
        """Give the URI of a new folder, for other processes to write to; removed at the end.

        It is below the store, so that :meth:`commit` can take files over without copying them
        through this process.
        """
        uri = self.new_staging()
        try:
            yield uri
        finally:
            self.discard(uri)

    def new_staging(self) -> str:
        """Return the URI of a new folder as of :meth:`staging`, which its user has to discard."""
        return f"{self._store.url}/{STAGING}/{mark()}"

    def discard(self, uri: str) -> None:
        """Remove a staging folder with all that is in it."""
        with store_errors(uri, "delete"):
            objects, path = self._store.locate(uri)
            objects.delete_folder(path)

    def commit(self, staged: str, key: str, listing: Listing, *, sources: Mapping[str, str]) -> str:
        """Make files of the folder at URI *staged* the parts of folder *key* and return its URI.

        The list is written last: before it is there, the folder is not. A folder already there with
        the same content is success.

        :param sources: names of the parts in *staged*, by their names in *listing*.
        """
        store, uri = self._store, self._store.uri(key)
        if store.exists(uri):
            data = store.get_bytes(f"{uri}/{LISTING}")
            read_listing(uri, data, checksum=listing.checksum, size=listing.size)
            log.info("%s is already there (%d bytes)", uri, listing.size)
            return uri
        with store_errors(uri, "write"):
            in_threads(
                lambda part: self._move(f"{staged}/{sources[part.name]}", uri, part),
                listing.parts,
            )
        if store.medium == "local":
            # A part may have been there before, from a writer that was killed.
            self._check_parts(uri, listing)
        store.put_bytes(f"{key}/{LISTING}", listing.to_bytes())
        log.info("wrote %s (%d bytes in %d files)", uri, listing.size, len(listing.parts))
        return uri

    def listing(self, uri: str, *, checksum: str, size: int | None = None) -> Listing:
        """Return the list of the folder at *uri*, having seen that all files are there in their sizes.

        :param checksum: of the list, as a reference has it. :param size: expected bytes.
        """
        with self._store.reading(uri, size, checksum):
            objects, path = self._store.locate(uri)
            data, files = objects.read(f"{path}/{LISTING}"), objects.files(path)
        listing = read_listing(uri, data, checksum=checksum, size=size)
        check_files(uri, listing, files)
        return listing

    def fetch(self, uri: str, *, checksum: str, size: int | None, into: str) -> str:
        """Return a local path of the folder at *uri*, verified: its own one, or a copy in *into*."""
        listing = self.listing(uri, checksum=checksum, size=size)
        where = parse(uri)
        if where.scheme == "file":
            self._check_parts(uri, listing)
            folder = where.path
        else:
            folder = os.path.join(into, uri.rpartition("/")[2])
            in_threads(lambda part: self._fetch_part(uri, part, folder), listing.parts)
            with open(os.path.join(folder, LISTING), "wb") as file:
                file.write(listing.to_bytes())
        log.info("read %s (%d bytes in %d files)", redact(uri), listing.size, len(listing.parts))
        return folder

    def files(self, uri: str) -> dict[str, int]:
        """Return name and size of each file right in the folder at *uri*."""
        with self._store.reading(uri):
            objects, path = self._store.locate(uri)
            return objects.files(path)

    def local_files(self, uri: str, names: Iterable[str], into: str) -> Iterator[tuple[str, str]]:
        """Yield each name with a local path of that file of the folder, good until the next one.

        The next file arrives while one is worked on, so two copies at most are on the disk.
        """
        where = parse(uri)
        if where.scheme == "file":
            yield from ((name, os.path.join(where.path, name)) for name in names)
            return

        def fetch(name: str) -> str:
            with self._store.reading(f"{uri}/{name}"):
                return self._store.download(f"{uri}/{name}", into, None)[0]

        for name, path in _ahead(fetch, names):
            yield name, path
            os.unlink(path)

    def publish(self, source: str, listing: Listing, uri: str, *, base: str = "") -> str:
        """Copy the parts of the folder at *source* to *uri* and return the full URI.

        Parts have their content in their names, so those of before stay readable until the new list
        is there, and are deleted then.
        """
        uri = absolute(uri, base or os.getcwd())
        with store_errors(uri, "publish"):
            objects, path = self._store.locate(uri)
            names = {part.name for part in listing.parts}
            with tempfile.TemporaryDirectory(prefix="dbnd.") as folder:
                for name, local in self.local_files(source, sorted(names), folder):
                    objects.replace(local, f"{path}/{name}")
            objects.replace_bytes(listing.to_bytes(), f"{path}/{LISTING}")
            for name in objects.files(path):
                if _PART_NAME.fullmatch(name) and name not in names:
                    objects.delete(f"{path}/{name}")
        log.info("published %s", redact(uri))
        return uri

    def _move(self, source: str, uri: str, part: Part) -> None:
        """Move one part to folder *uri*; one that is there already is success."""
        objects, path = self._store.locate(f"{uri}/{part.name}")
        try:
            objects.move(self._store.locate(source)[1], path)
        except Exception as exc:
            # The answer may be lost and the move done, here or by another writer of the same part.
            found = objects.size(path)
            if found is None:
                raise
            if found != part.size:
                raise damaged(f"{uri}/{part.name}", f"{part.size} bytes", f"{found}") from exc
            if not isinstance(exc, FileExistsError):
                log.warning("%s is there although the store answered: %s", path, redact(str(exc)))

    def _fetch_part(self, uri: str, part: Part, folder: str) -> None:
        local = os.path.join(folder, part.name)
        with self._store.reading(f"{uri}/{part.name}", part.size, part.checksum):
            _, size = self._store.download(f"{uri}/{part.name}", folder, part.size, local)
        if size != part.size:
            raise damaged(f"{uri}/{part.name}", f"{part.size} bytes", f"{size}")
        check_bytes(uri, part, local)

    def _check_parts(self, uri: str, listing: Listing) -> None:
        with self._store.reading(uri):
            for part in listing.parts:
                check_bytes(uri, part, os.path.join(parse(uri).path, part.name))


def part_name(number: int, checksum: str, extension: str) -> str:
    """Return the name of a part: its place in the order, and the head of its checksum.

    >>> part_name(3, "blake3:00112233445566778899", "parquet")
    'part-00003-001122334455.parquet'
    """
    return f"part-{number:05d}-{checksum.partition(':')[2][:12]}.{extension}"


_PART_NAME = re.compile(r"part-\d{5,}-[0-9a-f]{12}\.\w+")


def damaged(uri: str, expected: str, found: str) -> ArtifactCorruptedError:
    """Make the error for a folder that is not what its list or its reference promises."""
    return ArtifactCorruptedError(
        f"{redact(uri)} is damaged or was changed: expected {expected}, found {found}. {_REMEDY}"
    )


def read_listing(uri: str, data: bytes, *, checksum: str, size: int | None) -> Listing:
    """Return the list of the folder at *uri*, verified against the reference to the folder."""
    found = listing_checksum(data)
    if found != checksum:
        raise damaged(f"{uri}/{LISTING}", checksum, found)
    try:
        listing = Listing.from_bytes(data)
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged(
            f"{uri}/{LISTING}", "a list of parts", f"{type(exc).__name__}: {exc}"
        ) from exc
    if size is not None and listing.size != size:
        raise damaged(uri, f"{size} bytes", f"{listing.size} in {LISTING}")
    return listing


def check_files(uri: str, listing: Listing, files: Mapping[str, int]) -> None:
    """Compare the sizes of what lies in a folder with its list."""
    for part in listing.parts:
        if part.name not in files:
            raise ArtifactNotFoundError(
                f"{redact(uri)}/{part.name} is not there: expected {part.size} bytes, "
                f"{part.checksum}, found nothing. {_REMEDY}"
            )
        if files[part.name] != part.size:
            raise damaged(f"{uri}/{part.name}", f"{part.size} bytes", f"{files[part.name]}")
    known = {part.name for part in listing.parts}
    extra = sorted(name for name in files if name not in known and not name.startswith(("_", ".")))
    if extra:
        raise damaged(uri, f"{len(known)} parts", f"{extra[0]} besides them")


def check_bytes(uri: str, part: Part, path: str) -> None:
    """Compare a part's bytes, in local file *path*, with its checksum."""
    from airflow_provider_dbnd.core.digest import file_checksum

    size = os.path.getsize(path)
    if size != part.size:
        raise damaged(f"{uri}/{part.name}", f"{part.size} bytes", f"{size}")
    found = file_checksum(path)
    if found != part.checksum:
        raise damaged(f"{uri}/{part.name}", part.checksum, found)


def _ahead(fetch: Callable[[str], T], names: Iterable[str]) -> Iterator[tuple[str, T]]:
    """Yield each name with what *fetch* returns for it, fetching the next one meanwhile."""
    with ThreadPoolExecutor(1, "dbnd-parts") as pool:
        waiting: tuple[str, Any] | None = None
        for name in names:
            coming = name, pool.submit(fetch, name)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def in_threads(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do *work* for all items, some at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(_AT_ONCE, "dbnd-parts") as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()
