"""The verbs read only the parts that they need of files behind URLs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.cli.support import PACK, Invoke, refused


class Quiet(SimpleHTTPRequestHandler):
    """Python's own server, which gives no ranges."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(dcf: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(dcf.parent))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{dcf.name}"
        server.shutdown()
        thread.join()


def test_verify_and_inspect(invoke: Invoke, url: str, dcf: Path) -> None:
    result = invoke("verify", url)
    assert result.stdout.startswith(f"{url}: good: {dcf.stat().st_size:,} bytes, 6 tensors, ")
    assert invoke("inspect", url).stdout.splitlines()[1:] == invoke("inspect", dcf).stdout.splitlines()[1:]


def test_unpack_and_run(invoke: Invoke, url: str, dcf: Path, tmp_path: Path) -> None:
    assert invoke("unpack", url, "--tensor", "fc3.bias", "-o", tmp_path / "a.npz").exit_code == 0
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["fc3.bias"]
    np.save(tmp_path / "x.npy", np.zeros((2, 784), np.float32))
    for file, out in ((url, "y.npy"), (dcf, "z.npy")):
        assert invoke("run", file, "--input", tmp_path / "x.npy", "-o", tmp_path / out).exit_code == 0
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "z.npy").read_bytes()


def test_deltas(invoke: Invoke, url: str, npz: Path, dcf: Path, tmp_path: Path) -> None:
    assert invoke(*PACK, npz, "--base", url, "-o", tmp_path / "d.dcf").exit_code == 0
    arguments = ["apply", tmp_path / "d.dcf", "--base", url, "-o", tmp_path / "n.dcf", "--mode", "fast"]
    assert invoke(*arguments).exit_code == 0
    assert (tmp_path / "n.dcf").read_bytes() == dcf.read_bytes()


def test_nothing_there(invoke: Invoke, url: str) -> None:
    refused(invoke("verify", url + "x"), f"{url}x: no such file or directory")
    refused(invoke("inspect", url + "x"), f"{url}x: no such file or directory")
