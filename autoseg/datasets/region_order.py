"""The order in which overlapping regions are written into one label map."""

from collections.abc import Mapping

from autoseg.imaging.targets import Numbers


def check_region_order(structures: Mapping[str, Numbers], region_class_order: Numbers) -> None:
    """Checks that writing the regions of a label map gives a label map with the same regions.

    With whole = 1 2, core = 2 and the order 1 2, a voxel of label 2 is written as 1, then as 2. With the order 2 1 it
    would end as 1, which is not in the core.
    """
    for number in sorted({number for numbers in structures.values() for number in numbers}):
        regions = [name for name, numbers in structures.items() if number in numbers]
        written = region_class_order[list(structures).index(regions[-1])]
        if [name for name, numbers in structures.items() if written in numbers] != regions:
            raise ValueError(
                f"'regions_class_order' {list(region_class_order)} would write {written} where {number} is, which "
                "belongs to other regions; name the regions from the largest to the smallest, each with its own number"
            )
