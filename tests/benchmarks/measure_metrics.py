"""Measures the metrics of a folder by MONAI or by MedPy; the program that `metrics.py` starts and times.

    PYTHON tests/benchmarks/measure_metrics.py monai|medpy REFERENCES PREDICTIONS OUTPUT.json TOLERANCE

Writes a table in JSON: case, number of the label, metric, value. Needs SimpleITK and the package, but not autoseg.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def main() -> None:
    """Measures one pair of label maps after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", choices=("monai", "medpy"))
    parser.add_argument("references", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("tolerance", type=float)
    arguments = parser.parse_args()
    scores = {}
    for path in sorted(arguments.predictions.glob("*.nii.gz")):
        reference, prediction = (
            sitk.ReadImage(str(folder / path.name)) for folder in (arguments.references, path.parent)
        )
        ground_truth, guess = sitk.GetArrayFromImage(reference), sitk.GetArrayFromImage(prediction)
        spacing = reference.GetSpacing()[::-1]
        labels = [int(number) for number in np.unique(ground_truth) if number]
        measure = measure_by_monai if arguments.package == "monai" else measure_by_medpy
        scores[path.name.removesuffix(".nii.gz")] = measure(ground_truth, guess, labels, spacing, arguments.tolerance)
    arguments.output.write_text(json.dumps(scores))


def measure_by_monai(ground_truth, guess, labels, spacing, tolerance):
    """Returns the metrics of all labels of a case by MONAI, which takes them at once: one-hot, (1, labels, z, y, x)."""
    import torch
    from monai import metrics

    numbers = np.array(labels).reshape(-1, 1, 1, 1)
    y, y_pred = (torch.from_numpy((label_map == numbers)[np.newaxis]) for label_map in (ground_truth, guess))
    both = {"y_pred": y_pred, "y": y, "include_background": True}
    scores = {
        "dice": metrics.compute_dice(**both),
        "iou": metrics.compute_iou(**both),
        "nsd": metrics.compute_surface_dice(**both, class_thresholds=[tolerance] * len(labels), spacing=spacing),
        "hd95_mm": metrics.compute_hausdorff_distance(**both, percentile=95, spacing=spacing),
        "assd_mm": metrics.compute_average_surface_distance(**both, symmetric=True, spacing=spacing),
    }
    return {
        str(label): {metric: float(values[0, column]) for metric, values in scores.items()}
        for column, label in enumerate(labels)
    }


def measure_by_medpy(ground_truth, guess, labels, spacing, _):
    """Returns the metrics of a case by MedPy, which takes one label after the other."""
    from medpy.metric import binary

    return {
        str(label): {
            "dice": float(binary.dc(guess == label, ground_truth == label)),
            "iou": float(binary.jc(guess == label, ground_truth == label)),
            "hd95_mm": float(binary.hd95(guess == label, ground_truth == label, spacing)),
            "assd_mm": float(binary.assd(guess == label, ground_truth == label, spacing)),
        }
        for label in labels
    }


if __name__ == "__main__":
    sys.exit(main())
