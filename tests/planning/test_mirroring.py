"""Labels with sides, by name and by position, and the mirroring of patches that follows."""

import json
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_cases import CHANNEL, info_of

from autoseg.dataloading.affine import draw_affine
from autoseg.datasets.fingerprint import CaseFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.label_facts import LabelFacts
from autoseg.errors import DatasetError
from autoseg.planning.mirroring import choose_mirroring, explain_mirroring, mirror_settings
from autoseg.planning.settings import AugmentationSettings
from autoseg.planning.sides import differ_in_numbers_only, pair_sides_by_name

SHAPE, SPACING_MM = (100, 200, 200), (2.0, 1.5, 1.5)  # 200 x 300 x 300 mm
KIDNEYS = {1: (0.5, 0.6, 0.75), 2: (0.47, 0.6, 0.27)}
ATRIA = {1: (0.5, 0.62, 0.54), 2: (0.5, 0.5, 0.40)}
BODY = AugmentationSettings()
FLAT = AugmentationSettings(rotation_degrees=180, rotation_axes=(0,))
PLANE = AugmentationSettings(rotation_degrees=180, rotation_axes=(0,), mirror_axes=(0, 1))


def named(*names, **keys) -> DatasetInfo:
    """Returns the dataset.json of labels with these names, numbered from 1."""
    labels = {"background": 0} | {name: number for number, name in enumerate(names, start=1)}
    return DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz", **keys)


def facts_of(
    centers: dict[int, tuple[float, float, float]],
    *,
    orientations: Iterable[str | None] = ("SPL",) * 20,
    voxels: dict[int, int] | None = None,
    spread: float = 0.02,
) -> Fingerprint:
    """Returns a fingerprint whose cases have labels about these centers (z, y, x) of a volume stored as "SPL".

    In cases of another order of the axes, the centers are put into it; spacing and shape are those of the axis then.
    """
    random = np.random.default_rng(0)
    cases = []
    for number, orientation in enumerate(orientations):
        order = [
            next(axis for axis, pair in enumerate(("SI", "PA", "LR")) if way in pair) for way in orientation or "SPL"
        ]
        shift = random.normal(0, spread, 3)  # the patient lies off the centre of the image
        labels = tuple(
            LabelFacts(
                label=label,
                voxels=(voxels or {}).get(label, 1000) + int(random.integers(100)),
                center=tuple((np.array(center) + shift + random.normal(0, spread / 2, 3))[order]),
            )
            for label, center in centers.items()
        )
        shape, spacing_mm = (tuple(values[axis] for axis in order) for values in (SHAPE, SPACING_MM))
        cases.append(
            CaseFacts(
                name=f"case_{number}",
                shape=shape,
                shape_after_crop=shape,
                spacing_mm=spacing_mm,
                orientation=orientation,
                labels=labels,
            )
        )
    return Fingerprint(cases=tuple(cases), channels=(CHANNEL,), median_relative_size_after_crop=1.0)


def sentences(fingerprint: Fingerprint, info: DatasetInfo) -> str:
    """Returns all sentences about mirroring."""
    return " ".join(explain_mirroring(choose_mirroring(fingerprint, info), info))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("kidney_left", "kidney_right"),
        ("Kidney_L", "Kidney_R"),
        ("left kidney", "Right Kidney"),
        ("leftKidney", "rightKidney"),
        ("leftkidney", "rightkidney"),
        ("KidneyL", "KidneyR"),
        ("LKidney", "RKidney"),
        ("kidney-lt", "kidney-rt"),
        ("lung_lower_lobe_left", "lung_lower_lobe_right"),
        ("Left-Hippocampus", "Right-Hippocampus"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("rib_left_3", "rib_right_3"),
        ("ribL3", "ribR3"),
        ("L", "R"),
        ("hip_links", "hip_rechts"),
        ("linke Niere", "rechte Niere"),
        ("Niere (li.)", "Niere (re.)"),
        ("rein_gauche", "rein_droit"),
        ("main_gauche", "main_droite"),
        ("rene_sinistro", "rene_destro"),
        ("riñón_izquierdo", "riñón_derecho"),
        ("rim_esquerdo", "rim_direito"),
        ("ren sinister", "ren dexter"),
        ("ren_sin", "ren_dex"),
        ("levá_ledvina", "pravá_ledvina"),
        ("leva_ledvina", "pravá_ledvina"),
        ("левая_почка", "правая_почка"),
        ("左肾", "右肾"),
        ("왼쪽신장", "오른쪽신장"),
        ("left_lobe_right_part", "right_lobe_left_part"),
    ],
)
def test_names_are_paired(left, right):
    """Pairs are found in any language, spelling and order of the labels; the left one comes first."""
    assert pair_sides_by_name(named("liver", left, right)) == (((2, 3),), ())
    assert pair_sides_by_name(named(right, "liver", left)) == (((3, 1),), ())


@pytest.mark.parametrize(
    "names",
    [
        ("RV", "LV"),
        ("liver", "spleen"),
        ("lesion_r1", "lesion_2"),
        ("kidney_r", "lesion"),
        ("cleft", "bright"),
        ("upright", "cleft"),
        ("left_and_right_lung", "heart"),
        ("vertebra_L1", "vertebra_L2"),
        ("organ_1", "organ_2"),
        ("sin_lesion", "lesion"),
    ],
)
def test_names_without_sides_stay_alone(names):
    """Side words inside of words, and letters and short words without their counterpart, have no side."""
    assert pair_sides_by_name(named(*names)) == ((), ())


@pytest.mark.parametrize(
    ("names", "lone"),
    [
        (("kidney_left", "spleen"), (1,)),
        (("Nervus opticus rechts", "kidney_left", "kidney_right"), (1,)),
        (("kidney_left", "lung_right"), (1, 2)),
        (("右房", "liver"), (1,)),
        (("kidney_left", "Kidney Left", "kidney_right"), (1, 2, 3)),
        (("kidney_left", "kidney_right", "Kidney Right"), (1, 2, 3)),
    ],
)
def test_labels_without_counterpart_are_found(names, lone):
    """A side word whose counterpart is missing or ambiguous is unpaired."""
    assert pair_sides_by_name(named(*names))[1] == lone


@given(
    st.lists(st.sampled_from(["lung", "l", "r", "left", "rechts", "1", "upper", "sin", "左"]), min_size=1, max_size=4)
)
@settings(max_examples=60, deadline=None)
def test_exchanging_all_sides_gives_the_counterpart(words):
    """A name and the same name with every side word exchanged are a pair."""
    opposite = {"l": "r", "r": "l", "left": "right", "rechts": "links", "sin": "dex", "左": "右"}
    name, other = "_".join(words), "_".join(opposite.get(word, word) for word in words)
    if name == other:
        assert pair_sides_by_name(named(name)) == ((), ())
    else:
        pairs, lone = pair_sides_by_name(named(name, other))
        assert sorted(pairs[0]) == [1, 2]
        assert not lone


def test_names_that_tell_nothing_apart():
    """Numbers and letters do not say what a structure is; words do."""
    assert differ_in_numbers_only("organ_1", "organ_2")
    assert differ_in_numbers_only("hippocampusA", "hippocampus b")
    assert not differ_in_numbers_only("colon_ascending", "colon_descending")
    assert not differ_in_numbers_only("LV", "RV")


def test_sides_of_the_dataset_replace_the_words():
    """Words of dataset.json replace the built-in ones; an empty list means no sides."""
    info = named("nyre_a", "nyre_b", "kidney_left", "kidney_right", sides=(("A", "B"),))
    assert pair_sides_by_name(info) == (((1, 2),), ())
    assert pair_sides_by_name(named("nyre_a", "milt", sides=(("a", "b"),))) == ((), (1,))
    assert pair_sides_by_name(named("k_near side", "k_farSide", sides=(("near side", "far side"),))) == (((1, 2),), ())
    mirroring = choose_mirroring(facts_of(KIDNEYS), named("kidney_left", "kidney_right", sides=()))
    assert not mirroring.has_sides
    assert not choose_mirroring(facts_of(KIDNEYS), named("organ_1", "organ_2", sides=())).has_sides


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ([["left", "Left"]], "'left' of sides cannot mean both left and right"),
        ([["a", "b"], ["b", "c"]], "'b' of sides cannot mean both left and right"),
        ([["a", " "]], "' ' of sides is no word"),
        ([["left"]], "sides"),
    ],
)
def test_wrong_sides_are_refused(sides, message):
    """In dataset.json, each word has one side."""
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii", "sides": sides}
    with pytest.raises(DatasetError, match=message):
        DatasetInfo.parse(json.dumps(content), source="dataset.json")


def test_kidneys_change_places():
    """A pair by name whose positions mirror each other is swapped by flips along the axis that the files name."""
    info = named("kidney_left", "kidney_right")
    mirroring = choose_mirroring(facts_of(KIDNEYS), info)
    assert mirroring.swaps
    assert mirroring.axis == 2
    assert [(pair.labels, pair.source, pair.mirrored) for pair in mirroring.pairs] == [((1, 2), "name", True)]
    assert sentences(facts_of(KIDNEYS), info).startswith(
        "Patches are flipped from left to right, along x, and kidney_left and kidney_right then change places: their "
        "positions mirror each other."
    )


@pytest.mark.parametrize(
    ("centers", "voxels"),
    [
        (ATRIA, {}),  # side by side in the heart, one behind the other
        ({1: (0.5, 0.5, 0.7), 2: (0.5, 0.5, 0.55)}, {}),  # both on the left
        ({1: (0.7, 0.5, 0.7), 2: (0.3, 0.5, 0.3)}, {}),  # one far above the other
        ({1: (0.5, 0.5, 0.5), 2: (0.5, 0.5, 0.5)}, {}),  # at the same place
        (KIDNEYS, {1: 3000}),  # one three times larger
    ],
)
def test_labels_that_do_not_mirror_each_other_keep_their_side(centers, voxels):
    """Whatever the names are, patches are then not flipped from left to right."""
    info = named("thing_left", "thing_right")
    mirroring = choose_mirroring(facts_of(centers, voxels=voxels), info)
    assert mirroring.has_sides
    assert not mirroring.swaps
    assert mirror_settings(mirroring, (0, 1, 2), 3, BODY).mirror_axes == (0, 1)
    assert (
        "not flipped from left to right, along x, because thing_left and thing_right are told apart, and their "
        "positions do not mirror each other."
    ) in sentences(facts_of(centers, voxels=voxels), info)


def test_one_pair_that_must_not_be_exchanged_spoils_the_axis():
    """With kidneys beside atria, a flip would be wrong for the atria."""
    centers = KIDNEYS | {3: ATRIA[1], 4: ATRIA[2]}
    mirroring = choose_mirroring(facts_of(centers), named("kidney_left", "kidney_right", "atrium_left", "atrium_right"))
    assert [pair.mirrored for pair in mirroring.pairs] == [True, False]
    assert not mirroring.swaps


def test_label_without_counterpart_spoils_the_axis():
    """The mirror image of a left adrenal gland alone has no label."""
    info = named("kidney_left", "kidney_right", "adrenal_left")
    mirroring = choose_mirroring(facts_of(KIDNEYS), info)
    assert mirroring.unpaired == (3,)
    assert not mirroring.swaps
    assert "because adrenal_left has a side in its name and no counterpart" in sentences(facts_of(KIDNEYS), info)


@pytest.mark.parametrize("fingerprint", [facts_of({}), facts_of(KIDNEYS, orientations=["SPL"] * 2)])
def test_without_enough_facts_nothing_is_exchanged(fingerprint):
    """A fingerprint of nnU-Net has no labels, and two cases are too few."""
    info = named("kidney_left", "kidney_right")
    assert not choose_mirroring(fingerprint, info).swaps
    assert "too few cases show where both lie" in sentences(fingerprint, info)


@pytest.mark.parametrize("names", [("organ_1", "organ_2"), ("1", "2"), ("hippocampus a", "hippocampus b")])
def test_positions_pair_labels_whose_names_say_nothing(names):
    """Two hippocampi under numbers are swapped as named ones are."""
    fingerprint = facts_of({1: (0.4, 0.55, 0.34), 2: (0.4, 0.55, 0.66)})
    mirroring = choose_mirroring(fingerprint, named(*names))
    assert [(pair.labels, pair.source) for pair in mirroring.pairs] == [((1, 2), "position")]
    assert mirroring.swaps


@pytest.mark.parametrize(
    ("centers", "voxels"),
    [
        ({1: (0.5, 0.3, 0.5), 2: (0.5, 0.7, 0.5)}, {}),  # in front and behind
        ({1: (0.5, 0.5, 0.3), 2: (0.5, 0.65, 0.7)}, {}),  # not on one level
        ({1: (0.5, 0.5, 0.44), 2: (0.5, 0.5, 0.56)}, {}),  # nearly in the middle
        ({1: (0.5, 0.5, 0.3), 2: (0.5, 0.5, 0.83)}, {}),  # one further out
        ({1: (0.5, 0.5, 0.3), 2: (0.5, 0.5, 0.7)}, {1: 1700}),  # one much larger
        (ATRIA, {}),
    ],
)
def test_other_positions_pair_nothing(centers, voxels):
    """Without a side word, only clearly mirrored labels are a pair."""
    mirroring = choose_mirroring(facts_of(centers, voxels=voxels), named("organ_1", "organ_2"))
    assert not mirroring.has_sides


def test_names_that_differ_are_not_paired_by_position():
    """The ascending colon is no mirrored descending one, though its position is mirrored."""
    fingerprint = facts_of({1: (0.5, 0.5, 0.25), 2: (0.5, 0.5, 0.75)})
    assert not choose_mirroring(fingerprint, named("colon_ascending", "colon_descending")).has_sides
    assert not choose_mirroring(fingerprint, info_of("T1", "T2", classes=2)).has_sides


def test_labels_that_change_sides_are_no_pair():
    """Lesions that lie left in some cases and right in others have no side."""
    fingerprints = [facts_of({1: (0.5, 0.5, x), 2: (0.5, 0.5, 1 - x)}) for x in (0.25, 0.75)]
    cases = tuple(fingerprints[number % 4 == 0].cases[number] for number in range(20))
    mixed = fingerprints[0].model_copy(update={"cases": cases})
    assert not choose_mirroring(mixed, named("lesion_1", "lesion_2")).has_sides


def test_each_label_is_paired_once_and_with_its_best_match():
    """Of three mirrored structures on two levels, each is paired with the one on its own level."""
    centers = {1: (0.50, 0.5, 0.3), 2: (0.57, 0.5, 0.3), 3: (0.57, 0.5, 0.7), 4: (0.50, 0.5, 0.7)}
    mirroring = choose_mirroring(facts_of(centers), named("part_1", "part_2", "part_3", "part_4"))
    assert {pair.labels for pair in mirroring.pairs} == {(1, 4), (2, 3)}


@pytest.mark.parametrize(
    ("orientation", "axis"), [("SPL", 2), ("IAR", 2), ("LPS", 0), ("PSR", 2), ("SRA", 1), ("RSP", 0)]
)
def test_axis_is_the_one_that_the_files_name(orientation, axis):
    """The axis is that of L or R, at any position; positions are measured along it."""
    fingerprint = facts_of(KIDNEYS, orientations=[orientation] * 5)
    mirroring = choose_mirroring(fingerprint, named("kidney_left", "kidney_right"))
    assert (mirroring.axis, mirroring.axis_is_known, mirroring.swaps) == (axis, True, True)


@pytest.mark.parametrize(("names", "swaps"), [(("kidney_left", "kidney_right"), True), (("organ_1", "organ_2"), False)])
def test_pictures_are_taken_to_be_wide_from_left_to_right(names, swaps):
    """If no file names the axis, the last one is taken, and a sentence says so; positions alone make no pair."""
    fingerprint = facts_of(KIDNEYS, orientations=[None] * 5)
    mirroring = choose_mirroring(fingerprint, named(*names))
    assert (mirroring.axis, mirroring.axis_is_known, mirroring.swaps) == (2, False, swaps)
    assert (
        "No image says which axis runs from left to right; it is taken to be x" in sentences(fingerprint, named(*names))
    ) == swaps


def test_a_few_cases_that_do_not_know_follow_the_others():
    """The axis is that of the cases that name one."""
    fingerprint = facts_of(KIDNEYS, orientations=["SPL", None, "SPL", "SPL"])
    assert choose_mirroring(fingerprint, named("kidney_left", "kidney_right")).swaps


def test_cases_that_disagree_are_not_flipped_along_any_of_their_axes():
    """With coronal and sagittal stacks in one dataset, neither of the two axes is flipped."""
    info = named("kidney_left", "kidney_right")
    fingerprint = facts_of(KIDNEYS, orientations=["SPL"] * 5 + ["LPS"] * 5)
    mirroring = choose_mirroring(fingerprint, info)
    assert (mirroring.axis, mirroring.axes, mirroring.swaps) == (None, (0, 2), False)
    assert mirror_settings(mirroring, (0, 1, 2), 3, BODY).mirror_axes == (1,)
    assert "along z and x, because kidney_left and kidney_right are told apart, and not all cases" in sentences(
        fingerprint, info
    )
    assert not choose_mirroring(fingerprint, named("organ_1", "organ_2")).has_sides


def test_cases_stored_the_other_way_round_are_counted():
    """Two of ten cases are stored in the opposite direction of the others."""
    info = named("kidney_left", "kidney_right")
    fingerprint = facts_of(KIDNEYS, orientations=["SPL"] * 8 + ["SPR"] * 2)
    assert choose_mirroring(fingerprint, info).reversed_cases == 2
    assert "stored the other way round in 2 cases" in sentences(fingerprint, info)
    assert "other way round" not in sentences(facts_of(KIDNEYS), info)


def test_several_pairs_are_counted():
    """One pair is named as an example."""
    names = ["kidney_left", "kidney_right", "lung_left", "lung_right", "rib_left", "rib_right"]
    centers = KIDNEYS | {3: (0.8, 0.5, 0.75), 4: (0.8, 0.5, 0.25), 5: (0.7, 0.5, 0.9), 6: (0.7, 0.5, 0.1)}
    start = "kidney_left and kidney_right then change places"
    assert f"{start}, as does another pair of labels: their" in sentences(facts_of(centers), named(*names[:4]))
    assert f"{start}, as do 2 more pairs: their" in sentences(facts_of(centers), named(*names))


def test_without_sides_nothing_changes_and_nothing_is_said():
    """Liver and spleen are mirrored freely."""
    mirroring = choose_mirroring(facts_of(KIDNEYS), named("liver", "spleen"))
    assert mirror_settings(mirroring, (0, 1, 2), 3, FLAT) == FLAT
    assert mirror_settings(mirroring, (0, 1, 2), 2, PLANE) == PLANE
    assert not list(explain_mirroring(mirroring, named("liver", "spleen")))


@pytest.mark.parametrize(
    ("orientation", "axis_order", "dimensions", "before", "swap_axis", "degrees"),
    [
        ("SPL", (0, 1, 2), 3, BODY, 2, 30),
        ("SPL", (2, 0, 1), 3, BODY, 0, 30),
        ("LPS", (1, 0, 2), 3, BODY, 1, 30),
        ("SPL", (0, 1, 2), 3, FLAT, 2, 30),
        ("SPL", (2, 0, 1), 3, FLAT, 0, 180),  # turns about the axis itself leave the sides alone
        ("SPL", (0, 1, 2), 2, PLANE, 1, 30),
        ("SPL", (1, 0, 2), 2, PLANE, 1, 30),
        ("LPS", (1, 0, 2), 2, PLANE, 0, 30),
        ("SPL", (2, 0, 1), 2, PLANE, None, 180),  # stacked from side to side: no slice contains the axis
        ("SPL", (0, 1, 2), 2, PLANE.model_copy(update={"rotation_degrees": 15.0}), 1, 15),
    ],
)
def test_settings_follow_the_axes_of_the_patch(orientation, axis_order, dimensions, before, swap_axis, degrees):
    """The axis of the file becomes that of the patch, with its labels swapped, and large rotations are excluded."""
    fingerprint = facts_of(KIDNEYS, orientations=[orientation] * 5)
    swapped = choose_mirroring(fingerprint, named("kidney_left", "kidney_right"))
    changed = mirror_settings(swapped, axis_order, dimensions, before)
    assert changed.mirror_axes == before.mirror_axes
    assert changed.swap_axis == swap_axis
    assert changed.swapped_labels == (() if swap_axis is None else ((1, 2),))
    assert changed.rotation_degrees == degrees
    dropped = mirror_settings(
        choose_mirroring(fingerprint, named("kidney_left", "liver")), axis_order, dimensions, before
    )
    assert dropped.mirror_axes == tuple(axis for axis in before.mirror_axes if axis != swap_axis)
    assert dropped.swapped_labels == ()
    assert dropped.rotation_degrees == degrees


@given(st.sampled_from([BODY, FLAT, PLANE]), st.booleans(), st.integers(0, 2**32 - 1), st.sets(st.integers(0, 2)))
@settings(max_examples=60, deadline=None)
def test_no_turn_and_flip_together_confuse_the_sides(before, swaps, seed, flips):
    """For any random draw, the left of the patch is the left of the image, or its right where labels are swapped."""
    dimensions = len(before.mirror_axes)
    info = named("kidney_left", "kidney_right") if swaps else named("kidney_left")
    chosen = mirror_settings(choose_mirroring(facts_of(KIDNEYS), info), (0, 1, 2), dimensions, before)
    always = chosen.model_copy(update={"rotation_probability": 1.0})
    matrix = draw_affine(always, dimensions, np.random.default_rng(seed))
    flipped = [axis for axis in chosen.mirror_axes if axis in flips]
    matrix[flipped] *= -1
    exchanged = chosen.swap_axis in flipped
    assert (matrix[-1, -1] < 0) == exchanged


def test_patches_that_are_not_flipped_along_the_axis_need_no_exchange():
    """Settings without the axis stay without it."""
    mirroring = choose_mirroring(facts_of(KIDNEYS), named("kidney_left", "kidney_right"))
    changed = mirror_settings(mirroring, (0, 1, 2), 3, AugmentationSettings(mirror_axes=(0,)))
    assert (changed.mirror_axes, changed.swap_axis) == ((0,), None)
