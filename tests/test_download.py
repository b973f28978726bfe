"""Downloads from servers that break off, lie, stall, refuse, or do as they should."""

from __future__ import annotations

import hashlib
import socket

import pytest
from file_server import Served, serving

from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.weights import download as module
from mindcv_mnasnet.weights.download import Patience, download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(timeout=5.0, attempts=3, pause=0.001)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights.bin"


def failure(served, target, patience=QUICK, **expected) -> str:
    with pytest.raises(JobError) as failed:
        download(served.url, target, patience=patience, **expected)
    assert not target.exists()
    (sentence,) = str(failed.value).splitlines()
    return sentence


@pytest.mark.parametrize("length_is_told", [True, False])
def test_a_file_arrives_whole(target, length_is_told):
    with serving(Served(CONTENT, length_is_told=length_is_told)) as served:
        download(served.url, target, SHA256[:8], (len(CONTENT), len(CONTENT)), QUICK)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_download_that_breaks_off_goes_on_where_it_was(target):
    with serving(Served(CONTENT, broken=1, until=100_000)) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert served.requests == [None, "bytes=100000-"]


def test_a_partial_file_of_an_earlier_process_is_gone_on_with(target):
    target.with_name("weights.bin.partial").write_bytes(CONTENT[:5000])
    with serving(Served(CONTENT)) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert served.requests == ["bytes=5000-"]


def test_a_partial_file_that_is_complete_is_not_fetched_again(target):
    target.with_name("weights.bin.partial").write_bytes(CONTENT)
    with serving(Served(CONTENT)) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert len(served.requests) == 1


@pytest.mark.parametrize("junk", [b"another file", b"longer than the file " * 20_000])
def test_a_partial_file_of_something_else_is_thrown_away(target, junk):
    target.with_name("weights.bin.partial").write_bytes(junk)
    with serving(Served(CONTENT)) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("named", [SHA256, None])
def test_a_partial_file_of_full_length_and_other_content_is_fetched_again(target, named):
    target.with_name("weights.bin.partial").write_bytes(bytes(len(CONTENT)))
    with serving(Served(CONTENT, linked_etag=named)) as served:
        download(served.url, target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(target):
    with serving(Served(CONTENT, ranges=False, broken=1, until=100_000)) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_body_that_is_always_truncated_is_given_up(target):
    with serving(Served(CONTENT, broken=99, until=1000)) as served:
        sentence = failure(served, target)
    assert "3 tries" in sentence
    assert f"1,000 of {len(CONTENT):,} bytes" in sentence


def test_a_busy_server_is_asked_again(target):
    with serving(Served(CONTENT, statuses=[503, 429])) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(target, status):
    with serving(Served(CONTENT, statuses=[status])) as served:
        assert f"answers {status}" in failure(served, target)
    assert len(served.requests) == 1


def test_a_wrong_digest_leaves_nothing(target):
    with serving(Served(CONTENT)) as served:
        assert "is not what was published" in failure(served, target, sha256="0" * 64)
    assert not list(target.parent.iterdir())


def test_a_wrong_size_leaves_nothing(target):
    with serving(Served(CONTENT)) as served:
        assert "instead of 1 to 2" in failure(served, target, size=(1, 2))
    assert not list(target.parent.iterdir())


def test_the_digest_that_a_hub_names_is_checked(target):
    with serving(Served(CONTENT, linked_etag="0" * 64)) as served:
        assert "SHA-256" in failure(served, target)
    with serving(Served(CONTENT, linked_etag=SHA256)) as served:
        download(served.url, target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_silent_server_is_given_up(target):
    with serving(Served(CONTENT, delay=1.0)) as served:
        sentence = failure(served, target, Patience(timeout=0.05, attempts=2, pause=0.001))
    assert "timed out" in sentence


def test_a_server_that_is_not_there_is_named(target):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        served = Served(b"", address=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert "refused" in failure(served, target)


def test_a_host_without_address_is_final(target, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    patience = Patience(attempts=5, pause=100.0)
    assert "no network here" in failure(Served(b"", address="http://nowhere.invalid"), target, patience)


def test_a_body_without_end_is_cut_off(target, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 17)
    with serving(Served(CONTENT, length_is_told=False)) as served:
        assert "sends more than" in failure(served, target)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with serving(Served(CONTENT)) as served, pytest.raises(JobError, match="cannot write"):
        download(served.url, tmp_path / "absent" / "file", patience=QUICK)


def test_the_bar_is_no_part_of_what_is_not_a_terminal(target, capfd):
    with serving(Served(CONTENT)) as served:
        download(served.url, target, SHA256, patience=QUICK)
    assert capfd.readouterr() == ("", "")
