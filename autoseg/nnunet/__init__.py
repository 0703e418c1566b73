"""Models of nnU-Net v2: installed as this program's own, and written so that nnU-Net predicts with them."""
