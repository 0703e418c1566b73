"""From a trained network to the segmentation of an image of any size."""
