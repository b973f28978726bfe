"""One file from the network: resumed where it broke off, tried again, checked, and whole or not there."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import unwritable

MAX_BYTES = 1 << 30  # no published MnasNet comes near it
_CHUNK = 1 << 16
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class _BrokenOffError(Exception):
    """A failure that another try may mend."""


@dataclass(frozen=True)
class Patience:
    """How long to wait: ``timeout`` seconds for each answer, ``attempts``, ``pause`` seconds, doubled every time."""

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0


@dataclass
class _Answer:
    """What the server says: bytes before the body, the whole size, and the SHA-256 that a hub names on the way.

    ``body`` None: there is nothing after what was there already.
    """

    body: http.client.HTTPResponse | None
    start: int
    total: int | None
    sha256: str | None


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    size: tuple[int, int] | None = None,
    patience: Patience | None = None,
) -> None:
    """Fetch ``url`` into ``target``, with a progress bar on a terminal.

    A download that broke off is kept as ``<name>.partial`` and goes on where it was, if the server can do that.

    Args:
        sha256: hexadecimal digest, or the beginning of one, that the file must have.
        size: least and most bytes that it may have.
    Raises:
        JobError: the server cannot be reached, answers with an error, breaks off time and again, or sends another
            file than expected, which is thrown away; or the file cannot be written.
    """
    patience = patience or Patience()
    partial = target.with_name(target.name + ".partial")
    for attempt in range(1, patience.attempts + 1):
        resumed = partial.exists()
        try:
            named = _fetch(url, partial, patience.timeout, sha256 is not None)
            check_file(partial, sha256 or named, size)
            partial.replace(target)
            return
        except _BrokenOffError as error:
            if attempt == patience.attempts:
                raise JobError(f"{url} could not be downloaded in {attempt} tries: {error}") from None
            time.sleep(patience.pause * 2 ** (attempt - 1))
        except UserError as error:
            partial.unlink(missing_ok=True)
            if not resumed or attempt == patience.attempts:  # pieces of two files may have been put together
                raise JobError(f"{url} is not what was published: {error}") from None
        except OSError as error:
            raise unwritable(partial, error) from None


def check_file(path: Path, sha256: str | None, size: tuple[int, int] | None) -> None:
    """Hold a file against its published digest and size.

    Raises:
        UserError: it is another file, or a damaged one.
    """
    found = path.stat().st_size
    if size is not None and not size[0] <= found <= size[1]:
        raise UserError(f"{path.name} has {found:,} bytes instead of {size[0]:,} to {size[1]:,}")
    if sha256 is not None and not (digest := file_sha256(path)).startswith(sha256.lower()):
        raise UserError(f"{path.name} has SHA-256 {digest[:16]}... instead of {sha256[:16]}...")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fetch(url: str, partial: Path, timeout: float, known: bool) -> str | None:
    """Bring ``partial`` to its full length; returns the digest that the server names, if it does.

    What is whole by its length is taken only where a digest, ``known`` or named, will tell whether it is the file.
    """
    done = partial.stat().st_size if partial.exists() else 0
    try:
        answer = _ask(url, done, timeout)
        if answer.body is None and not (known or answer.sha256):
            answer = _ask(url, 0, timeout)
        if answer.body is None:
            return answer.sha256
        with answer.body, partial.open("ab" if answer.start else "wb") as file:
            _copy(answer, file, partial.name.removesuffix(".partial"))
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None
    return answer.sha256


def _ask(url: str, done: int, timeout: float) -> _Answer:
    """The server's answer to a request for all that comes after ``done`` bytes."""
    headers = {"User-Agent": "mindcv_mnasnet", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        body = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done:
                whole = error.headers.get("Content-Range") == f"bytes */{done}"
                return _Answer(None, done, done, redirects.sha256) if whole else _ask(url, 0, timeout)
        said = f"the server answers {error.code} {error.reason}"
        raise _BrokenOffError(said) if error.code in _BUSY else JobError(f"{url}: {said}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            raise JobError(f"{url}: no such host, or no network here") from None
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise JobError(f"{url}: {error.reason}") from None
        raise _BrokenOffError(str(error.reason)) from None
    start, total = _position(body, done)
    return _Answer(body, start, total, redirects.sha256)


def _position(body: Any, done: int) -> tuple[int, int | None]:
    """Where in the file the body starts, and how long the file is."""
    length = body.headers.get("Content-Length", "")
    if body.status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", body.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != done:
            raise JobError(f"{body.url}: the server sends another part than it was asked for")
        return done, int(said[2]) if said[2].isdigit() else None
    return 0, int(length) if length.isdigit() else None


def _copy(answer: _Answer, file: IO[bytes], name: str) -> None:
    assert answer.body is not None
    done = answer.start
    with tqdm(
        total=answer.total, initial=done, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None
    ) as bar:
        while block := answer.body.read(_CHUNK):
            done += len(block)
            if done > (answer.total or MAX_BYTES) or done > MAX_BYTES:
                raise JobError(f"{name}: the server sends more than {answer.total or MAX_BYTES:,} bytes")
            file.write(block)
            bar.update(len(block))
    if answer.total is not None and done < answer.total:
        raise _BrokenOffError(f"{done:,} of {answer.total:,} bytes arrived")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, though not from https to http, and notes the digest that the Hugging Face hub sends along."""

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https://"):
            raise JobError(f"{req.full_url} leads to {newurl}, which is not encrypted; it is not followed")
        if digest := re.fullmatch(r'"?([0-9a-f]{64})"?', headers.get("X-Linked-Etag") or ""):
            self.sha256 = digest[1]
        return super().redirect_request(req, fp, code, msg, headers, newurl)
