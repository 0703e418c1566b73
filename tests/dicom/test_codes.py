"""Codes of structures by their names, compared with the dictionaries that pydicom ships."""

import json
from importlib.resources import files

import pytest

from autoseg.datasets.info import DatasetInfo
from autoseg.dicom.codes import CATEGORIES, SIDE_CODES, UNKNOWN, Code, LabelCode, find_code, find_codes
from autoseg.errors import DatasetError
from autoseg.imaging.label_words import split_words

GROUPS = json.loads((files("autoseg.dicom") / "anatomy.json").read_text(encoding="utf-8"))
CONTEXT_GROUPS = {4031, 6109, 7151, 7153, 7159, 7160, 7166}


def published() -> set[tuple[str, str]]:
    """The pairs of code and meaning that pydicom ships for the context groups of segmentations."""
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts["SCT"]
    return {
        (value, meaning)
        for codes in concepts.values()
        for value, (meaning, groups) in codes.items()
        if CONTEXT_GROUPS & set(groups)
    }


def test_every_code_and_meaning_is_the_published_one():
    """A wrong code would name another organ."""
    known = published()
    listed = {(value, names[0]) for codes in GROUPS.values() for value, names in codes.items()}
    assert listed <= known, listed - known
    assert len(listed) > 250


def test_categories_and_sides_are_the_published_ones():
    """They are in the context groups for categories and laterality."""
    codes = pytest.importorskip("pydicom.sr.codedict").codes
    for code, keyword in zip(
        CATEGORIES.values(), ("AnatomicalStructure", "MorphologicallyAbnormalStructure", "Tissue"), strict=True
    ):
        assert (code.value, code.meaning) == getattr(codes.cid7150, keyword)[::2]
    assert [(code.value, code.meaning) for code in SIDE_CODES.values()] == [
        codes.cid244.Left[::2],
        codes.cid244.Right[::2],
    ]
    assert (UNKNOWN.value, UNKNOWN.meaning) == (CATEGORIES["tissue"].value, CATEGORIES["tissue"].meaning)


def test_no_name_stands_for_two_structures():
    """Else the order of the file would decide."""
    owners: dict[tuple[str, ...], str] = {}
    for codes in GROUPS.values():
        for value, names in codes.items():
            for name in names:
                assert owners.setdefault(tuple(sorted(split_words(name))), value) == value, name


@pytest.mark.parametrize(
    ("name", "meaning", "side", "region"),
    [
        ("liver", "Liver", None, None),
        ("kidney_left", "Kidney", "left", None),
        ("Right Kidney", "Kidney", "right", None),
        ("KidneyL", "Kidney", "left", None),
        ("lung_upper_lobe_left", "Upper lobe of lung", "left", None),
        ("heart_atrium_left", "Left atrium", None, None),
        ("lung_middle_lobe_right", "Middle lobe of right lung", None, None),
        ("vertebrae_C1", "C1 vertebra", None, None),
        ("rib_left_2", "Rib", "left", None),
        ("left and right lung", "Tissue", None, None),
        ("liver tumor", "Neoplasm", None, "Liver"),
        ("kidney_cyst_left", "Cyst", "left", "Kidney"),
        ("pancreatic_tumour", "Neoplasm", None, "Pancreas"),
        ("autochthon_right", "Erector spinae muscle", "right", None),
        ("pulmonary_vein", "Pulmonary vein", None, None),
        ("edema", "Edema", None, None),
        ("hippocampus sinistra", "Hippocampus", "left", None),
        ("enhancing tumor", "Tissue", None, None),
        ("左", "Tissue", None, None),
        ("", "Tissue", None, None),
    ],
)
def test_names_have_codes(name, meaning, side, region):
    """Words in any order, with side words taken away where the name is not known with them."""
    code = find_code(name)
    assert (code.meaning, code.side, code.region and code.region.meaning) == (meaning, side, region)


def test_the_users_codes_and_side_words_count_first():
    """They replace those of the table."""
    mine = LabelCode(value="1234", meaning="My structure", scheme="99MINE")
    assert find_codes(["liver", "spleen"], {"liver": mine}) == {"liver": mine, "spleen": find_code("spleen")}
    assert find_code("kidney bal", [("bal", "jobb")]).side == "left"
    with pytest.raises(ValueError, match="value"):
        Code(value="longer than 16 letters", meaning="x")


def test_codes_of_a_dataset_travel_with_it(tmp_path):
    """dataset.json holds them; a label that is not there, or a code that is none, is refused with its field."""
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "Leber": 1},
        "file_ending": ".nii.gz",
        "codes": {"Leber": {"value": "10200004", "meaning": "Liver", "side": "right"}},
    }
    info = DatasetInfo.parse(json.dumps(content), source="dataset.json")
    info.save(tmp_path / "dataset.json")
    assert DatasetInfo.load(tmp_path / "dataset.json").codes == info.codes
    assert find_codes(info.targets.names, info.codes)["Leber"].meaning == "Liver"
    for codes, message in (
        ({"Milz": {"value": "1", "meaning": "Spleen"}}, r"dataset.json: .*'codes' names 'Milz', which is no label"),
        ({"Leber": {"value": "", "meaning": "Liver"}}, r"dataset.json: codes.Leber.value"),
        ({"Leber": {"value": "1", "meaning": "Liver", "side": "top"}}, r"dataset.json: codes.Leber.side"),
    ):
        with pytest.raises(DatasetError, match=message):
            DatasetInfo.parse(json.dumps(content | {"codes": codes}), source="dataset.json")
