"""Files behind URLs: few requests, few bytes, and clear errors, also where servers lack ranges or break off."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import dcformat
from dcformat import remote
from dcformat.dense import from_dense
from dcformat.errors import MemoryLimitError, NotDcfError
from dcformat.model import Model
from dcformat.source import is_url


def model() -> Model:
    source = np.random.default_rng(0)
    values = {name: source.integers(0, 256, 700_000, np.uint8) for name in "abc"}
    return Model({name: from_dense(name, array, "uint8") for name, array in values.items()})


DATA = dcformat.dumps(model())


class Server(ThreadingHTTPServer):
    """A server of one file with a record of the requests, and a choice of faults."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.ranges = True
        #: Bytes after which each answer is cut, and how many answers are; statuses to answer first.
        self.cut, self.cuts = 0, 0
        self.statuses: list[int] = []
        #: Number of requests that get no answer.
        self.silent = 0
        self.tag = '"1"'
        #: Headers that are sent in place of the right ones, from the second answer on if `later`.
        self.lies: dict[str, str] = {}
        self.later = False
        #: Maximum number of bytes in an answer, and the path of the file if others redirect to it.
        self.longest = len(DATA)
        self.path = ""
        self.requests: list[tuple[str, int]] = []

    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that close the connection early."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/model.dcf"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, given = self.server, self.headers.get("Range", "")
        if server.silent:
            server.silent -= 1
            self.close_connection = True
            return
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if server.path not in ("", self.path):
            self.send_response(302)
            self.send_header("Location", server.path)
            self.end_headers()
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", given)
        current = self.headers.get("If-Range", server.tag) == server.tag
        body = server.data
        if found and server.ranges and current:
            if int(found[1]) >= len(body):
                self.send_error(416)
                return
            body = body[int(found[1]) : int(found[2]) + 1][: server.longest]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {found[1]}-{int(found[1]) + len(body) - 1}/{len(server.data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Encoding", "identity")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body
        if server.cuts and len(body) > server.cut:
            server.cuts -= 1
            sent = body[: server.cut]
        server.requests.append((given, len(sent)))
        self.wfile.write(sent)
        if len(sent) < len(body):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def send_header(self, keyword: str, value: str) -> None:
        lies = self.server.lies if self.server.requests or not self.server.later else {}
        super().send_header(keyword, lies.get(keyword, value))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_what_counts_as_a_url() -> None:
    for name in ("http://h/a.dcf", "s3://b/a.dcf", "git+https://h/a", "memory://a"):
        assert is_url(name)
    for other in ("a.dcf", "/a/b.dcf", "C://a.dcf", "a b://c", "://a", b"http://h/a.dcf", Path("http://h")):
        assert not is_url(other)


def test_one_tensor_takes_two_requests_and_little_else(server: Server) -> None:
    with dcformat.open(server.url) as file:
        tensor = file.dense("b")
        payload = file.info("b").payload_bytes
    assert tensor.tobytes() == model().tensors["b"].to_dense().tobytes()
    assert [given for given, _ in server.requests[:1]] == [f"bytes=0-{remote.HEAD_BYTES - 1}"]
    assert len(server.requests) == 2
    assert sum(sent for _, sent in server.requests) <= 1.05 * payload


@pytest.mark.needs_compiler
def test_everything_reads_the_same(server: Server) -> None:
    with dcformat.open(server.url) as file:
        assert file.size == len(DATA) and file.path == server.url
        assert file.digest == DATA[-8:]
        file.verify()
        assert dcformat.dumps(file.model()) == DATA
    assert dcformat.dumps(dcformat.load(server.url)) == DATA
    dcformat.verify(server.url)


def test_contents_longer_than_the_first_request(server: Server) -> None:
    names = [f"{'layer' * 20}{n}" for n in range(500)]
    many = {name: from_dense(name, np.arange(n, n + 3, dtype="<f4")) for n, name in enumerate(names)}
    server.data = dcformat.dumps(Model(many))
    with dcformat.open(server.url) as file:
        assert len(file.names) == 500
        assert len(server.requests) == 2
        assert file.dense("layer" * 20 + "7").tolist() == [7, 8, 9]
    assert len(server.requests) == 3


def test_a_small_file_takes_one_request(server: Server) -> None:
    server.data = dcformat.dumps(Model({"a": from_dense("a", np.arange(3, dtype="<f4"))}))
    dcformat.verify(server.url)
    assert len(server.requests) == 1


def test_a_server_that_does_not_answer_is_asked_again(server: Server) -> None:
    server.silent = 2
    with dcformat.open(server.url) as file:
        assert file.names == ("a", "b", "c")
    server.silent = 10
    with pytest.raises(remote.RemoteError, match=r"the connection broke off \(RemoteDisconnected\); tried \d times"):
        dcformat.open(server.url)


@pytest.mark.parametrize("cut", [0, 1, 9_000, 100_000, 600_000])
def test_connections_that_break_off_are_taken_up_again(server: Server, cut: int) -> None:
    server.cut, server.cuts = cut, 3
    with dcformat.open(server.url) as file:
        server.cuts = 3
        assert file.dense("c").tobytes() == model().tensors["c"].to_dense().tobytes()


def test_what_is_there_is_not_read_again(server: Server) -> None:
    with dcformat.open(server.url) as file:
        server.requests.clear()
        server.cut, server.cuts = 500_000, 1
        file.dense("a")
        sizes = [sent for _, sent in server.requests]
    assert sizes == [500_000, file.info("a").payload_bytes + 4 - 500_000 - (remote.HEAD_BYTES - start(file))]


def start(file: dcformat.DcfFile) -> int:
    """Return the offset of the first data block."""
    return len(DATA) - 8 - sum(file.info(name).payload_bytes + 4 for name in file.names)


def test_a_server_that_always_breaks_off(server: Server) -> None:
    with dcformat.open(server.url) as file:
        server.cut, server.cuts = 0, 1000
        with pytest.raises(remote.RemoteError) as caught:
            file.tensor("a")
    assert str(caught.value).startswith(f"{server.url}: the connection broke off")
    assert "tried 4 times, got 0 bytes of this part" in str(caught.value)


def test_a_server_that_gives_a_byte_at_a_time_is_left_alone(server: Server) -> None:
    with dcformat.open(server.url) as file:
        server.cut, server.cuts = 1, 1000
        with pytest.raises(remote.RemoteError, match="got 16 bytes"):
            file.tensor("a")


def test_no_ranges(server: Server) -> None:
    server.ranges = False
    with dcformat.open(server.url) as file:
        assert file.size == len(DATA)
        file.verify()
    assert len(server.requests) == 1
    with pytest.raises(MemoryLimitError, match="because the server gives no ranges") as caught:
        dcformat.open(server.url, max_memory=1 << 20)
    assert caught.value.path == server.url


@pytest.mark.parametrize("stated", ["many", "9" * 5000])
def test_a_length_that_is_no_number(server: Server, stated: str) -> None:
    server.ranges, server.lies = False, {"Content-Length": stated}
    with dcformat.open(server.url) as file:
        assert file.size == len(DATA)


@pytest.mark.parametrize("ranges", [True, False])
def test_bytes_that_are_encoded(server: Server, ranges: bool) -> None:
    server.ranges, server.lies = ranges, {"Content-Encoding": "gzip"}
    with pytest.raises(remote.RemoteError, match=r"expected the bytes of the file, found them encoded \('gzip'\)"):
        dcformat.open(server.url)


def test_no_ranges_and_a_broken_connection(server: Server) -> None:
    server.ranges, server.cut, server.cuts = False, 1_000_000, 2
    dcformat.verify(server.url)
    assert len(server.requests) == 3
    server.cuts = 1000
    with pytest.raises(remote.RemoteError, match="the connection broke off; tried 4 times"):
        dcformat.open(server.url)


@pytest.mark.parametrize("ranges", [True, False])
def test_something_else_is_not_downloaded(server: Server, ranges: bool) -> None:
    server.data, server.ranges = b"<html>" + bytes(10_000_000), ranges
    with pytest.raises(NotDcfError) as caught:
        dcformat.open(server.url)
    assert caught.value.path == server.url


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.statuses = [503, 429]
    dcformat.open(server.url).close()
    server.statuses = [503] * 9
    with pytest.raises(remote.RemoteError, match="the server answers 503 Service Unavailable; tried 4 times"):
        dcformat.open(server.url)


def test_other_answers(server: Server) -> None:
    server.statuses = [404]
    with pytest.raises(FileNotFoundError) as caught:
        dcformat.open(server.url)
    assert caught.value.filename == server.url
    server.statuses = [403]
    with pytest.raises(remote.RemoteError, match=f"{server.url}: the server answers 403 Forbidden"):
        dcformat.open(server.url)
    server.data = b""
    with pytest.raises(NotDcfError, match="an empty file"):
        dcformat.open(server.url)


def test_a_file_that_changes(server: Server) -> None:
    with dcformat.open(server.url) as file:
        server.tag = '"2"'
        with pytest.raises(remote.RemoteError, match="the file has changed while it was read"):
            file.tensor("a")


@pytest.mark.parametrize("stated", ["bytes 5-9/10", "bytes 0-9/" + "9" * 5000, "bytes 0-9/*", "bytes 0-9/9", ""])
def test_a_range_that_lies(server: Server, stated: str) -> None:
    server.lies = {"Content-Range": stated}
    with pytest.raises(remote.RemoteError, match="expected a range from byte 0 with the size of the file"):
        dcformat.open(server.url)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ("bytes 0-9/{size}", "expected a range from byte 32,768 with the size of the file, found 'bytes 0-9"),
        ("", "expected a range from byte 32,768 with the size of the file, found ''"),
        ("bytes 32768-99999/{other}", "the file has changed while it was read"),
    ],
)
def test_a_later_range_that_lies(server: Server, stated: str, reason: str) -> None:
    server.later, server.lies = True, {"Content-Range": stated.format(size=len(DATA), other=len(DATA) + 1)}
    with dcformat.open(server.url) as file, pytest.raises(remote.RemoteError, match=re.escape(reason)):
        file.tensor("a")


@pytest.mark.parametrize("longest", [20_000, 100_000])
def test_a_server_that_shortens_ranges(server: Server, longest: int) -> None:
    server.longest = longest
    with dcformat.open(server.url) as file:
        if longest < 50_000:
            with pytest.raises(remote.RemoteError, match="tried 16 times, got 320,000 bytes of this part"):
                file.tensor("b")
        else:
            assert file.dense("b").tobytes() == model().tensors["b"].to_dense().tobytes()


def test_redirections(server: Server) -> None:
    server.path = "/elsewhere.dcf"
    with dcformat.open(server.url) as file:
        assert file.dense("b").tobytes() == model().tensors["b"].to_dense().tobytes()
    for path, reason in (("/circle#", "infinite loop"), ("file:///etc/passwd", "not allowed")):
        server.path = path
        with pytest.raises(remote.RemoteError, match=f"the server answers 302 .*{reason}") as caught:
            dcformat.open(server.url)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:x/a", "http://127.0.0.1/a b", "http://127.0.0.1/\u00e9", "HTTP://..x/a"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(remote.RemoteError, match=f"{re.escape(url)}: expected a valid URL"):
        dcformat.open(url)


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.dcf"
        with pytest.raises(remote.RemoteError, match=r"no connection \(.*refused\); tried 4 times"):
            dcformat.open(url)


def test_other_schemes(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    path = tmp_path / "a.dcf"
    path.write_bytes(DATA)
    fsspec.filesystem("memory").pipe("/models/a.dcf", DATA)
    for url in (path.as_uri(), "memory://models/a.dcf"):
        with dcformat.open(url) as file:
            assert file.dense("b").tobytes() == model().tensors["b"].to_dense().tobytes()
        dcformat.verify(url)
    with pytest.raises(FileNotFoundError) as caught:
        dcformat.open("memory://models/b.dcf")
    assert caught.value.filename == "memory://models/b.dcf"
    with pytest.raises(remote.RemoteError, match=r"^nothing://a\.dcf: ValueError: Protocol not known: nothing"):
        dcformat.open("nothing://a.dcf")


def test_without_fsspec_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(remote.RemoteError, match=r"^s3://b/a: s3:// needs fsspec: pip install 'dcformat\[remote\]'"):
        dcformat.open("s3://b/a")


def test_a_file_of_unknown_size(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.pipe("/models/a.dcf", DATA)
    monkeypatch.setattr(type(system), "info", lambda self, path: {"name": path, "size": None, "type": "file"})
    with pytest.raises(remote.RemoteError, match=r"^memory://models/a\.dcf: expected a file of known size, found none"):
        dcformat.open("memory://models/a.dcf")


def test_a_state_dict_reads_what_is_asked_for(server: Server) -> None:
    with dcformat.open(server.url) as file:
        state = file.state_dict()
        assert list(state) == ["a", "b", "c"] and len(state) == 3 and "a" in state and "d" not in state
        assert len(server.requests) == 1
        values = state["c"]
        assert values.shape == (700_000,) and values.dtype == np.uint8
        assert len(server.requests) == 2
        with pytest.raises(KeyError):
            state["d"]
        assert repr(state).startswith("StateDict(DcfFile(")
