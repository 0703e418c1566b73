"""An untrained model and its server, which most tests of this room share."""

import pytest

pytest.importorskip("fastapi")

from served_models import load_small, served, write_noise, write_small_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a model of one channel and two labels."""
    return write_small_model(tmp_path_factory.mktemp("served") / "3d_fullres")


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """A scan for it."""
    return write_noise(tmp_path_factory.mktemp("scan") / "Müller_1970.nii.gz")


@pytest.fixture(scope="package")
def server(model):
    """A server with usual limits: a client, its temporary folder, its log."""
    with served(load_small(model)) as running:
        yield running


@pytest.fixture
def client(server):
    """The client of that server, whose temporary folder is empty afterwards."""
    yield server[0]
    assert list(server[1].iterdir()) == []
