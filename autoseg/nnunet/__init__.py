"""Import of models that nnU-Net v2 trained, and export of models so that nnU-Net v2 predicts with them."""
