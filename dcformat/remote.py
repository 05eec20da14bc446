"""Files behind URLs, read by ranges: HTTP with the standard library, everything else with fsspec."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse, InvalidURL
from ssl import SSLError
from typing import Any, BinaryIO, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from dcformat import layout
from dcformat.errors import MemoryLimitError
from dcformat.wording import counted

#: Bytes read on opening a file: enough for most contents, and few compared with a tensor worth reading alone.
HEAD_BYTES = 1 << 15
#: How often in a row a request may fail without a single new byte, and how often in all; seconds before the next one.
_TRIES, _ALL_TRIES, _PAUSE = 4, 16, 0.1
_TIMEOUT = 30.0
_PIECE_BYTES = 1 << 20
#: Answers of a server that is busy or restarting.
_PASSING = (408, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


class RemoteError(OSError):
    """A file behind a URL cannot be read; the message names the URL and what happened."""


class Ranges(Protocol):
    """A file that gives ranges of its bytes."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, which lie within the file."""


class RemoteFile:
    """A binary file object for a URL; each read outside the first `HEAD_BYTES` is a request of its own."""

    def __init__(self, ranges: Ranges, head: bytes) -> None:
        self._ranges, self._head, self._at = ranges, head, 0
        self.size = ranges.size

    def seek(self, offset: int) -> int:
        """Go to an offset from the beginning."""
        self._at = offset
        return offset

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or those that are left."""
        start, stop = self._at, min(self._at + count, self.size)
        self._at = max(start, stop)
        data = self._head[start:stop]
        if start + len(data) < stop:
            data += self._ranges.read(start + len(data), stop)
        return data

    def close(self) -> None:
        """Do nothing: no connection stays open."""


def open_url(url: str, max_memory: int | None) -> tuple[BinaryIO, int]:
    """Open the file behind a URL, and return a file object and its size.

    Parameters
    ----------
    url : str
        With the scheme http or https, or any other that fsspec knows.
    max_memory : int or None
        Maximum number of bytes to download if an HTTP server gives no ranges, so that the whole file must be read.

    Raises
    ------
    RemoteError, FileNotFoundError
        The file cannot be read, or fsspec is needed and not installed.
    """
    if url.partition("://")[0].lower() in ("http", "https"):
        ranges = HttpRanges(url, max_memory)
        if ranges.whole is not None:
            return ranges.whole, ranges.size
        return RemoteFile(ranges, ranges.head), ranges.size  # type: ignore[return-value]
    others = FsspecRanges(url)
    head = others.read(0, min(others.size, HEAD_BYTES)) if others.size else b""
    return RemoteFile(others, head), others.size  # type: ignore[return-value]


class HttpRanges:
    """A file that an HTTP server gives by ranges, or else as a whole.

    Attributes
    ----------
    head : bytes
        Its first bytes.
    whole : binary file object or None
        All of it in a temporary file, if the server ignores ranges.
    """

    def __init__(self, url: str, max_memory: int | None) -> None:
        self.url, self.size, self.head = url, 0, b""
        self.whole: BinaryIO | None = None
        self._tag = ""
        self._retrying(lambda done: self._open(done, max_memory))

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        data = bytearray()

        def fetch(_: bytearray) -> bool:
            with self._request(start + len(data), stop) as response:
                if response.status != 206 or self._range(response, start + len(data))[1] != self.size:
                    raise RemoteError(f"{self.url}: the file has changed while it was read")
                return _fill(response, data, stop - start)

        self._retrying(fetch, data)
        return bytes(data)

    def _open(self, _: bytearray, max_memory: int | None) -> bool:
        self.head = b""
        try:
            response = self._request(0, HEAD_BYTES)
        except HTTPError as error:
            if error.code == 416:  # There is no first byte.
                error.close()
                return True
            raise
        with response:
            if response.status != 206:
                return self._download(response, max_memory)
            end, self.size = self._range(response, 0)
            tag = response.headers.get("ETag", "")
            self._tag = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
            data = bytearray()
            complete = _fill(response, data, min(end, HEAD_BYTES))
            self.head = bytes(data)
            return complete

    def _range(self, response: HTTPResponse, start: int) -> tuple[int, int]:
        """Return where the range of an answer ends, and the size of the file; raise unless it begins at `start`."""
        given = response.headers.get("Content-Range", "")
        found = _RANGE.fullmatch(given)
        if found is None or not start == int(found[1]) <= int(found[2]) < int(found[3]):
            raise RemoteError(
                f"{self.url}: expected a range from byte {start:,} with the size of the file, found {given!r:.200}"
            )
        return int(found[2]) + 1, int(found[3])

    def _download(self, response: HTTPResponse, max_memory: int | None) -> bool:
        """Keep the whole file if the server ignores ranges; stop early if it is no ``.dcf`` file.

        Return False if the connection broke off.
        """
        stated = _LENGTH.fullmatch(response.headers.get("Content-Length", ""))
        with ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile())
            begin = b""
            while piece := response.read1(_PIECE_BYTES):
                begin += piece[: len(layout.MAGIC) - len(begin)]
                file.write(piece)
                if begin != layout.MAGIC[: len(begin)]:
                    break
                if max_memory is not None and file.tell() > max_memory:
                    expected = f"at most {max_memory:,} (max_memory), because the server gives no ranges"
                    error = MemoryLimitError("file", got=f"over {counted(max_memory, 'byte')}", expected=expected)
                    error.path = self.url
                    raise error
            if begin == layout.MAGIC and stated is not None and file.tell() < int(stated[0]):
                return False
            self.whole, self.size = file, file.tell()
            stack.pop_all()
        return True

    def _request(self, start: int, stop: int) -> HTTPResponse:
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity", "User-Agent": "dcformat"}
        if self._tag:
            headers["If-Range"] = self._tag
        try:
            response: HTTPResponse = urlopen(Request(self.url, headers=headers), timeout=_TIMEOUT)
        except (InvalidURL, ValueError) as error:  # of UnicodeError too
            raise RemoteError(f"{self.url}: expected a valid URL ({error})") from None
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            response.close()
            raise RemoteError(f"{self.url}: expected the bytes of the file, found them encoded ({encoding!r:.200})")
        return response

    def _retrying(self, fetch: Callable[[bytearray], bool], data: bytearray | None = None) -> None:
        """Call `fetch` until it returns True; only failures after which `data` has not grown count."""
        data = bytearray() if data is None else data
        tries = failed = 0
        while tries < _ALL_TRIES and failed < _TRIES:
            if tries:
                time.sleep(_PAUSE * 2 ** (failed - 1))
            tries += 1
            before, reason = len(data), "the connection broke off"
            try:
                if fetch(data):
                    return
            except HTTPError as error:
                error.close()
                if error.code in (404, 410):
                    raise FileNotFoundError(2, "no such file", self.url) from None
                # For a circle of redirections, the reason is several lines.
                reason = f"the server answers {error.code} {str(error.reason).partition(chr(10))[0]}"
                if error.code not in _PASSING:
                    raise RemoteError(f"{self.url}: {reason}") from None
            except URLError as error:
                reason = f"no connection ({error.reason})"
            except (HTTPException, ConnectionError, TimeoutError, SSLError) as error:
                reason = f"the connection broke off ({type(error).__name__})"
            failed = 1 if len(data) > before else failed + 1
        raise RemoteError(f"{self.url}: {reason}; tried {tries} times, got {counted(len(data), 'byte')} of this part")


def _fill(response: HTTPResponse, data: bytearray, count: int) -> bool:
    """Append what a response holds until there are `count` bytes; return whether there are."""
    while len(data) < count and (piece := response.read1(min(count - len(data), _PIECE_BYTES))):
        data += piece
    return len(data) >= count


class FsspecRanges:
    """A file that fsspec gives by ranges."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            scheme = urlsplit(url).scheme
            raise RemoteError(f"{url}: {scheme}:// needs fsspec: pip install 'dcformat[remote]' ({error})") from None
        self.url = url
        self._system, self._path = self._named(lambda: url_to_fs(url))
        size = self._named(lambda: self._system.info(self._path)).get("size")
        if size is None:
            raise RemoteError(f"{url}: expected a file of known size, found none")
        self.size = int(size)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        return bytes(self._named(lambda: self._system.cat_file(self._path, start, stop)))

    def _named(self, function: Callable[[], Any]) -> Any:
        """Call a function of fsspec, whose backends raise errors of every kind, and name the URL in its error."""
        try:
            return function()
        except FileNotFoundError:
            raise FileNotFoundError(2, "no such file", self.url) from None
        except Exception as error:
            raise RemoteError(f"{self.url}: {type(error).__name__}: {error}") from error
