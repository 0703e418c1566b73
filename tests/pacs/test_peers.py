"""Encrypted connections, and callers that may not call."""

import shutil
import subprocess

import numpy as np
import pytest
from dicom_files import make_series, write_series
from orthanc import free_port, run_orthanc

from autoseg.errors import TransferError, UsageError
from autoseg.pacs.peers import Peer, TlsFiles, choose_tls
from autoseg.pacs.received import StudyQueue
from autoseg.pacs.receiving import Service, receive
from autoseg.pacs.sending import send_files
from autoseg.pipeline import push_dicom

AE = pytest.importorskip("pynetdicom").AE
dcmread = pytest.importorskip("pydicom").dcmread

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves sockets open


@pytest.fixture
def files(tmp_path):
    """The files of a small series."""
    return sorted(write_series(tmp_path / "scan", make_series(np.zeros((3, 4, 4), np.int16))).iterdir())


@pytest.fixture
def tls(tmp_path):
    """A certificate of this machine, which signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return TlsFiles(certificate=certificate, key=key, authorities=certificate)


@pytest.mark.slow
def test_an_archive_takes_and_sends_encrypted(tmp_path, files, tls):
    """Orthanc, which asks for a certificate; what it takes and sends back is the same."""
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(tls.certificate),
        "DicomTlsPrivateKey": str(tls.key),
        "DicomTlsTrustedCertificates": str(tls.authorities),
    }
    queue = StudyQueue(tmp_path / "queue")
    with run_orthanc(tmp_path / "orthanc", **settings) as archive:
        peer = Peer(title="ORTHANC", host="127.0.0.1", port=archive.dicom)
        with pytest.raises(TransferError, match="cannot send to ORTHANC"):
            send_files(files, peer)
        assert send_files(files, peer, tls=tls) == len(files)
        with receive(Service(port=0, tls=tls), queue) as port:
            archive.send_all_to("AUTOSEG", port, tls=True)
    assert {path.stem for path in queue.received.rglob("*.dcm")} == {dcmread(path).SOPInstanceUID for path in files}


def test_a_peer_that_takes_no_such_files_is_told_from_one_that_does_not_answer(tmp_path, files):
    """As archives take no label maps by C-STORE that are older than these."""
    entity = AE(ae_title="OLD")
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        peer = Peer(title="OLD", host="127.0.0.1", port=server.server_address[1])
        with pytest.raises(TransferError, match=r"OLD@.* takes no files of the kind of IM0000; send them in"):
            send_files(files, peer)
    finally:
        server.shutdown()


def count_received(queue: StudyQueue) -> int:
    """The number of files in a queue."""
    return len(list(queue.received.rglob("*.dcm")))


def test_files_arrive_over_an_encrypted_connection(tmp_path, files, tls):
    """A sender without a certificate, or without encryption, is refused."""
    queue = StudyQueue(tmp_path / "queue")
    with receive(Service(port=free_port(), tls=tls), queue) as port:
        peer = Peer(title="AUTOSEG", host="127.0.0.1", port=port)
        assert send_files(files, peer, tls=tls) == len(files)
        assert count_received(queue) == len(files)
        for other in (None, TlsFiles(authorities=tls.authorities)):
            with pytest.raises(TransferError, match="cannot send to AUTOSEG"):
                send_files(files[:1], peer, tls=other)


def test_titles_are_checked(tmp_path, files):
    """Of the service that is called, and of those that call."""
    queue = StudyQueue(tmp_path / "queue")
    with receive(Service(port=free_port(), callers=("SCANNER",)), queue) as port:
        with pytest.raises(TransferError, match="refuses the titles"):
            send_files(files, Peer(title="OTHER", host="127.0.0.1", port=port), title="SCANNER")
        with pytest.raises(TransferError, match="refuses the titles"):
            send_files(files, Peer(title="AUTOSEG", host="127.0.0.1", port=port), title="STRANGER")
        assert count_received(queue) == 0
        send_files(files, Peer(title="AUTOSEG", host="127.0.0.1", port=port), title="SCANNER")
        assert count_received(queue) == len(files)


def test_a_taken_port_and_wrong_certificates_are_one_line(tmp_path):
    """Before the service begins."""
    queue = StudyQueue(tmp_path / "queue")
    with (
        receive(Service(port=free_port()), queue) as port,
        pytest.raises(UsageError, match=r"cannot listen at 127\.0\.0\.1"),
        receive(Service(port=port), queue),
    ):
        pass
    with pytest.raises(UsageError, match="cannot use the certificates"):
        TlsFiles(certificate=tmp_path / "none.pem").client()
    with pytest.raises(UsageError, match="needs a certificate"):
        TlsFiles().server()
    with pytest.raises(UsageError, match="give --tls-certificate"):
        choose_tls(None, "key.pem", None)
    assert choose_tls(None, None, None) is None


def test_what_cannot_be_reached_or_sent_is_one_line(tmp_path, files):
    """No archive, no files, no certificate, no title."""
    source, port = files[0], free_port()
    with pytest.raises(TransferError, match="does not answer"):
        push_dicom([source], f"NOBODY@127.0.0.1:{port}")
    with pytest.raises(TransferError, match=r"cannot use http.*: it does not answer"):
        push_dicom([source], f"http://127.0.0.1:{port}/dicom-web")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no DICOM files"):
        push_dicom([tmp_path / "empty"], "A@b:1")
    for target in ("nonsense", "A@b", "A@b:99999", "ABCDEFGHIJKLMNOPQ@b:1"):
        with pytest.raises(UsageError, match="write TITLE@HOST:PORT"):
            push_dicom([source], target)
