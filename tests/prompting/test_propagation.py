"""From prompted slices on, slice by slice."""

import numpy as np
import pytest
from phantoms import Listener

from autoseg.prompting.planes import SlicePrompt
from autoseg.prompting.propagation import segment_structures
from autoseg.prompting.structures import Prompted

SHAPE = (12, 40, 40)


class Threshold:
    """Finds what is there within the box, and the box that it was asked with."""

    margin = 0.05

    def __init__(self, volume: np.ndarray) -> None:
        self.volume = volume
        self.asked: dict[int, SlicePrompt] = {}

    def segment(self, number: int, prompt: SlicePrompt) -> np.ndarray:
        """Returns the foreground in the box."""
        self.asked[number] = prompt
        mask = np.zeros(SHAPE[1:], bool)
        top, left, bottom, right = (round(value + 0.5) for value in prompt.box)
        mask[top:bottom, left:right] = self.volume[number, top:bottom, left:right]
        return mask


def ball() -> np.ndarray:
    """A ball that drifts to the right, in slices 2 to 9, beside another one."""
    volume = np.zeros(SHAPE, bool)
    rows, columns = np.mgrid[:40, :40]
    for number in range(2, 10):
        radius = np.sqrt(max(36 - (1.4 * (number - 5.5)) ** 2, 0))
        volume[number] = np.hypot(rows - 20, columns - 10 - number) < radius
    volume[:, 2:8, 30:38] = True
    return volume


@pytest.mark.parametrize("start", [2, 5, 9])
def test_the_outline_follows_a_structure_to_its_ends(start: int) -> None:
    """It moves, grows and shrinks with it, ends with it, and leaves its neighbour alone."""
    volume, listener = ball(), Listener()
    own = volume.copy()
    own[:, 2:8, 30:38] = False
    rows, columns = np.nonzero(own[start])
    box = (rows.min() - 0.5, columns.min() - 0.5, rows.max() + 0.5, columns.max() + 0.5)
    segmenter = Threshold(volume)
    structure = Prompted(prompts={start: SlicePrompt(box=box)}, reach=range(12))
    found = segment_structures(segmenter, [structure], SHAPE, listener)
    assert 2 * (found & own).sum() / (found.sum() + own.sum()) > 0.98
    assert set(segmenter.asked) == set(range(1, 11))  # one beyond either end, where nothing is
    assert listener.advanced == listener.totals == {"slices": 12}


def test_it_ends_where_something_else_begins() -> None:
    """A mask that has little in common with the one before is not taken."""
    volume = np.zeros(SHAPE, bool)
    volume[:6, 10:20, 10:20] = True
    volume[6:, 19:22, 19:22] = True
    structure = Prompted(prompts={3: SlicePrompt(box=(9.5, 9.5, 19.5, 19.5))}, reach=range(12))
    found = segment_structures(Threshold(volume), [structure], SHAPE, Listener())
    assert sorted(set(np.nonzero(found)[0])) == [0, 1, 2, 3, 4, 5]


def test_prompted_slices_are_never_replaced() -> None:
    """Each slice between two of them is reached from the nearer one, and none beyond the range."""
    volume = np.ones(SHAPE, bool)
    prompts = {2: SlicePrompt(box=(4.5, 4.5, 14.5, 14.5)), 8: SlicePrompt(box=(4.5, 4.5, 24.5, 24.5))}
    found = segment_structures(Threshold(volume), [Prompted(prompts=prompts, reach=range(1, 11))], SHAPE, Listener())
    areas = found.sum(axis=(1, 2))
    assert list(np.flatnonzero(areas)) == list(range(1, 11))
    assert areas[2] == 100
    assert areas[8] == 400
    assert areas[3] == areas[1] == 14 * 14  # two pixels more on each side
    assert areas[9] == areas[7] == 24 * 24
    assert areas[5] < areas[6]


def test_several_structures_are_one_mask() -> None:
    """Without propagation, prompted slices alone."""
    volume = np.ones(SHAPE, bool)
    structures = [
        Prompted(prompts={4: SlicePrompt(box=(0.5, 0.5, 4.5, 4.5))}),
        Prompted(prompts={4: SlicePrompt(box=(9.5, 9.5, 14.5, 14.5)), 5: SlicePrompt(box=(9.5, 9.5, 14.5, 14.5))}),
    ]
    found = segment_structures(Threshold(volume), structures, SHAPE, Listener())
    assert list(found.sum(axis=(1, 2))[3:7]) == [0, 41, 25, 0]


def test_an_empty_mask_goes_nowhere() -> None:
    """Nothing is asked of the next slices."""
    segmenter = Threshold(np.zeros(SHAPE, bool))
    structure = Prompted(prompts={4: SlicePrompt(box=(0.5, 0.5, 4.5, 4.5))}, reach=range(12))
    assert not segment_structures(segmenter, [structure], SHAPE, Listener()).any()
    assert set(segmenter.asked) == {4}
