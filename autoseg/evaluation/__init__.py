"""Evaluation of segmentations: metrics, means with confidence intervals, pictures, search for postprocessing."""
