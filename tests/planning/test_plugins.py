"""Names in a plan stand for functions of installed packages, and for nothing else."""

import sys
from functools import partial

import pytest
from custom_parts import brighten, build_pyramid, squared_error
from pydantic import ValidationError

import autoseg
from autoseg.errors import ModelError, UsageError
from autoseg.models.build import find_builder
from autoseg.pipeline.doctor import examine_extensions
from autoseg.planning import plugins
from autoseg.planning.plugin_settings import CustomTransform, Plugin
from autoseg.planning.plugins import (
    GROUPS,
    find_loss,
    find_network,
    find_transform,
    list_available,
)

FIND = {"network": find_network, "loss": find_loss, "transform": find_transform}
REGISTER = {
    "network": autoseg.register_network,
    "loss": autoseg.register_loss,
    "transform": autoseg.register_transform,
}


@pytest.fixture(autouse=True)
def empty_tables(monkeypatch):
    """Clears the tables of registered and loaded plugins."""
    monkeypatch.setattr(plugins, "_REGISTERED", {})
    monkeypatch.setattr(plugins, "_LOADED", {})


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs packages: a module, and the metadata that pip would write."""

    def install(package, code, kind, **offers):
        root = tmp_path / package
        described = root / f"{package}-2.5.dist-info"
        described.mkdir(parents=True)
        (root / f"{package}.py").write_text(code)
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n")
        lines = "".join(f"{name} = {place}\n" for name, place in offers.items())
        (described / "entry_points.txt").write_text(f"[{GROUPS[kind]}]\n{lines}")
        monkeypatch.syspath_prepend(root)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return install


@pytest.mark.parametrize("kind", FIND)
def test_function_of_an_installed_package_is_found(install, kind):
    """A plugin is found by its name and kind, and loaded once."""
    install("parts_a", "def make(*_): return 7", kind, mine="parts_a:make")
    found = FIND[kind]("mine")
    assert found() == 7
    assert FIND[kind]("mine") is found
    assert list_available(kind) == {"mine": "parts_a 2.5"}
    other = next(one for one in FIND if one != kind)
    with pytest.raises(UsageError, match=f"there is no {other} 'mine' here"):
        FIND[other]("mine")


def test_package_is_loaded_only_when_its_name_is_asked_for(install):
    """Other installed plugins are not imported and cannot fail."""
    install("parts_broken", "raise ImportError('no such library\\nmore')", "loss", broken="parts_broken:make")
    install("parts_a", "def make(*_): return 7", "loss", mine="parts_a:make")
    assert list_available("loss").keys() == {"broken", "mine"}
    assert find_loss("mine")() == 7
    assert "parts_broken" not in sys.modules
    with pytest.raises(
        UsageError, match=r"the loss 'broken' of parts_broken 2.5 cannot be loaded: no such library; fix"
    ):
        find_loss("broken")


def test_missing_name_is_one_line_that_lists_what_is_there(install):
    """The error has the type for a model or a plan."""
    with pytest.raises(
        ModelError, match=r"there is no network 'far' here \(available: none\); install the package that "
    ):
        find_network("far", ModelError)
    install("parts_a", "def make(*_): return 7", "network", near="parts_a:make")
    with pytest.raises(UsageError, match=r"\(available: near\); .* entry point of 'autoseg.networks'$"):
        find_network("far")


def test_name_of_two_packages_is_refused(install):
    """The name is ambiguous."""
    install("parts_a", "def make(*_): return 7", "network", mine="parts_a:make")
    install("parts_b", "def make(*_): return 8", "network", mine="parts_b:make")
    with pytest.raises(UsageError, match=r"parts_a 2.5 and parts_b 2.5 both offer a network 'mine'; uninstall one"):
        find_network("mine")


def test_what_is_no_function_is_refused(install):
    """The check comes before the first call."""
    install("parts_a", "make = 7", "network", mine="parts_a:make")
    with pytest.raises(UsageError, match="is parts_a:make, which is not a function; fix"):
        find_network("mine")


@pytest.mark.parametrize("kind", REGISTER)
def test_running_program_offers_functions(kind):
    """A repeated registration replaces the function, as when a cell is run twice; another function is refused."""
    REGISTER[kind]("mine", build_pyramid)
    assert FIND[kind]("mine") is build_pyramid
    assert list_available(kind) == {"mine": "this program"}

    def again(*_):
        return 7

    again.__module__, again.__qualname__ = build_pyramid.__module__, build_pyramid.__qualname__
    REGISTER[kind]("mine", again)
    assert FIND[kind]("mine") is again
    for other in (squared_error, lambda *_: 7, brighten):
        with pytest.raises(UsageError, match=f"the {kind} 'mine' is another function of this program already; choose"):
            REGISTER[kind]("mine", other)
    assert FIND[kind]("mine") is again


def test_program_cannot_take_the_name_of_a_package(install):
    """A model refers to the package."""
    install("parts_a", "def make(*_): return 7", "loss", mine="parts_a:make")
    with pytest.raises(UsageError, match=r"is another function of parts_a 2.5 already"):
        autoseg.register_loss("mine", squared_error)


@pytest.mark.parametrize("name", ["", "Mine", "my-loss", "1st", "os.system", "a:b", "../x", "mine\n"])
def test_names_are_no_code(name):
    """Names are neither paths nor modules; a plan and a program are checked alike."""
    with pytest.raises(UsageError, match="is not a valid name for a loss; use lower-case letters"):
        autoseg.register_loss(name, squared_error)
    with pytest.raises(ValidationError, match="name"):
        Plugin(name=name)


def test_settings_are_plain_values_to_be_read_only():
    """Settings that JSON cannot hold are refused, and no function can change the plan."""
    own = CustomTransform(name="mine", settings={"depth": 3, "kernels": [1, 2.5, None, "a"]})
    assert CustomTransform.model_validate_json(own.model_dump_json()) == own
    assert own.probability == 1.0
    assert dict(own.read_only_settings) == own.settings
    with pytest.raises(TypeError):
        own.read_only_settings["depth"] = 4
    for bad in (float("nan"), float("inf"), object()):
        with pytest.raises(ValidationError):
            Plugin(name="mine", settings={"value": [bad]})


def test_doctor_lists_what_there_is(install):
    """A plugin that cannot be loaded is reported, with what to do."""
    [finding] = examine_extensions()
    assert (finding.title, finding.state) == ("extensions", "ok")
    install("parts_broken", "import no_such_library", "loss", broken="parts_broken:make")
    autoseg.register_network("mine", build_pyramid)
    network, loss = examine_extensions()
    assert (network.title, network.value, network.state) == ("network mine", "of this program", "ok")
    assert (loss.title, loss.state) == ("loss broken", "failure")
    assert "No module named 'no_such_library'" in loss.value
    assert "reinstall it" in loss.advice


# --- Names that are taken ---------------------------------------------------------------------------------------------


def test_names_of_built_in_networks_are_taken():
    """No plugin may replace a published network; losses and transforms have separate names."""
    with pytest.raises(UsageError, match="the network 'vnet' is built in: V-Net; choose another name"):
        autoseg.register_network("vnet", build_pyramid)
    autoseg.register_loss("vnet", squared_error)
    assert find_loss("vnet") is squared_error


def test_package_that_takes_the_name_of_a_built_in_network_is_refused(install):
    """The error comes when the name is used; without the package the name means the published network."""
    assert isinstance(find_builder("unet_3d"), partial)
    install("parts_a", "def make(*_): return 7", "network", unet_3d="parts_a:make", near="parts_a:make")
    with pytest.raises(ModelError, match=r"parts_a 2.5 offers a network 'unet_3d', .* of the built-in 3D U-Net; let "):
        find_builder("unet_3d", ModelError)
    assert find_builder("near")() == 7
