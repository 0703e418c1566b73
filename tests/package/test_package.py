"""The package from outside: its names, and what importing costs."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import autoseg
from autoseg import pipeline
from autoseg.cli.app import COMMANDS

HEAVY = ("torch", "SimpleITK", "matplotlib", "pandas", "scipy", "skimage", "blosc2")


def run_python(code: str) -> str:
    """Runs code in a fresh interpreter."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def heavy_modules_after(code: str) -> list[str]:
    """Names of the large libraries that some code loads."""
    shown = run_python(f"import sys\n{code}\nprint(*[name for name in {HEAVY} if name in sys.modules], sep=',')")
    return [name for name in shown.strip().split(",") if name]


def test_importing_the_package_loads_nothing_heavy():
    """Nor does looking at what it offers."""
    assert heavy_modules_after("import autoseg; dir(autoseg); autoseg.__all__; autoseg.__version__") == []


def test_importing_the_pipeline_loads_nothing_heavy():
    """A command loads what it needs when it is used."""
    assert heavy_modules_after("import autoseg.pipeline; dir(autoseg.pipeline)") == []
    loaded = heavy_modules_after("from autoseg.pipeline import plan_configurations, train, predict, stop")
    assert "torch" not in loaded


def test_vocabulary_needs_neither_torch_nor_images():
    """Plan, Dataset and AutosegError are there in a moment."""
    loaded = heavy_modules_after("import autoseg; autoseg.Plan, autoseg.Dataset, autoseg.AutosegError")
    assert not {"torch", "SimpleITK"} & set(loaded)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["train", "--help"], ["plan_and_preprocess", "-h"]])
def test_help_loads_nothing_heavy(arguments):
    """So that it answers at once."""
    code = f"""
import contextlib, io, sys
sys.argv = ["autoseg", *{arguments!r}]
from autoseg.__main__ import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
    main()
assert "autoseg" in shown.getvalue()
"""
    assert heavy_modules_after(code) == []


def test_package_runs_as_a_module():
    """`python -m autoseg` is the command."""
    command = [sys.executable, "-m", "autoseg", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"autoseg {autoseg.__version__}\n"
    )


def test_every_public_name_loads():
    """Each name stands for an object of that name, from the package; others are refused."""
    for name in autoseg.__all__:
        value = getattr(autoseg, name)
        if name != "__version__":
            assert value.__name__ == name
            assert value.__module__.startswith("autoseg.")
            assert inspect.getdoc(value)
    assert sorted(autoseg.__all__) == autoseg.__all__ == sorted({*autoseg._MODULES, "__version__"})
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = autoseg.nothing


def test_every_command_is_a_function_of_the_pipeline():
    """All but the guide, which shows pages; the demo runs other commands, and jobs are options of three commands.

    The words of a command of two words are joined in Python: "report data" is `report_data`.
    """
    functions = {
        "import": "import_dataset",
        "export": "export_model",
        "install": "install_model",
        "fingerprint": "extract_fingerprint",
        "plan": "plan_configurations",
        "networks": "list_networks",
        "series": "list_series",
        "augmentations": "draw_augmentations",
        "doctor": "examine_machine",
        "demo": "make_demo_dataset",
        "dicom pull": "pull_dicom",
        "dicom push": "push_dicom",
        "dicom listen": "listen_dicom",
    }
    names = {functions.get(command, command.replace(" ", "_")) for command in COMMANDS if command != "guide"}
    jobs = {"make_training_jobs", "make_preprocessing_jobs", "make_prediction_jobs", "run_jobs", "print_jobs"}
    others = {"export_nnunet", "measure_quality", "fix", "check_dicom", "check_files", "stop_run"}
    assert names | others | jobs == set(pipeline.__all__)
    assert sorted(pipeline.MODULES) == sorted(pipeline.__all__) == pipeline.__all__
    assert set(pipeline.__all__) <= set(dir(pipeline)) & set(autoseg.__all__)
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is getattr(autoseg, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipeline.nothing


def test_every_public_function_has_an_example():
    """Either one that the tests run, or a block of code."""
    for name in pipeline.__all__:
        assert "Example:" in (inspect.getdoc(getattr(pipeline, name)) or ""), name


@pytest.mark.slow
def test_names_are_listed_before_they_are_loaded():
    """So that completion and help show them."""
    listed = run_python("import autoseg; print(*dir(autoseg))").split()
    assert set(autoseg.__all__) <= set(listed)
    shown = run_python("import pydoc, autoseg; print(pydoc.plain(pydoc.render_doc(autoseg)))")
    assert "plan_and_preprocess(" in shown
    assert "class Model(" in shown


def test_package_says_that_it_is_typed():
    """Type checkers of users read the annotations."""
    assert (Path(autoseg.__file__).parent / "py.typed").is_file()
