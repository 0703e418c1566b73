"""How good segmentations are: scores, means and their certainty, pictures, and the rules that improve them."""
