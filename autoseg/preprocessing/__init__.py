"""A case as the network sees it, and the way back: cropping, normalization, resampling and their inverse."""
