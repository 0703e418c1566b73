"""The networks: the default U-Net, and those of the literature and of MONAI; specifications need no torch."""
