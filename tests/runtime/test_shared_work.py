"""Items that several runs share are done once each, and what was begun in vain is tried last."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from phantoms import Listener

from autoseg.errors import AutosegError, WriteError
from autoseg.runtime import leases as leases_module
from autoseg.runtime.leases import open_leases
from autoseg.runtime.shared_work import SharedWork, map_shared, take_turns


@dataclass(frozen=True)
class Item:
    """An item with a name."""

    name: str


ITEMS = [Item(f"item_{number}") for number in range(12)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs look often."""
    monkeypatch.setattr("autoseg.runtime.shared_work.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("autoseg.runtime.shared_work.secrets.randbelow", lambda _: 5)


def share(leases: leases_module.Leases, folder: Path, listener: Listener | None = None) -> SharedWork[Item]:
    """A work whose results are files."""
    return SharedWork(
        leases=leases,
        is_finished=lambda item: (folder / item.name).exists(),
        folders=[folder],
        reporter=listener or Listener(),
    )


def test_runs_do_each_item_once(tmp_path):
    """By map and by turns, at the same time."""
    done: list[str] = []

    def finish(item: Item) -> None:
        assert not (tmp_path / item.name).exists()
        done.append(item.name)
        (tmp_path / item.name).touch()

    def run(number: int) -> None:
        with open_leases(tmp_path / "leases") as leases:
            if number % 2:
                map_shared(lambda item, _: finish(item), ITEMS, share(leases, tmp_path), title="finishing")
                return
            for item, error in take_turns(ITEMS, share(leases, tmp_path)):
                assert error is None
                finish(item)
                leases.release(item.name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert sorted(done) == sorted(item.name for item in ITEMS)


def test_what_was_begun_in_vain_comes_last(tmp_path, monkeypatch):
    """And is said."""
    monkeypatch.setattr(leases_module, "EXPIRED_SECONDS", 0.0)
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "item_7.1").write_text("a run")
    listener = Listener()
    with open_leases(tmp_path / "leases") as leases:
        order = []
        for item, _ in take_turns(ITEMS, share(leases, tmp_path, listener)):
            order.append(item.name)
            (tmp_path / item.name).touch()
            leases.release(item.name)
    assert order == [f"item_{number}" for number in (5, 6, 8, 9, 10, 11, 0, 1, 2, 3, 4, 7)]
    assert listener.lines == ["item_7 is taken over from a run that has ended"]


def test_errors_of_an_item_concern_it_alone(tmp_path):
    """But for those that would stop every other one too."""

    def fail(item: Item, _: object) -> None:
        raise (AutosegError if item.name == "item_3" else WriteError)(item.name, "mend it")

    with open_leases(tmp_path / "leases") as leases:
        [result] = map_shared(fail, ITEMS[3:4], share(leases, tmp_path), title="failing")
        assert str(result) == "item_3; mend it"
        with pytest.raises(WriteError):
            map_shared(fail, ITEMS[4:5], share(leases, tmp_path), title="failing")
