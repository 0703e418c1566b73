"""How good segmentations are: overlap with the reference, its summary, pictures, and the rules that improve it."""
