"""Codes of the TIFF format. Source: TIFF 6.0, and the registry of the Library of Congress for what came later."""

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""What the samples of a pixel mean."""

ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
"""Transparency that the colours were multiplied by, and that they were not."""

REDUCED, TRANSPARENCY_MASK = 1, 4
"""Bits of the kind of a page."""

PLAIN, DEFLATE, OLD_DEFLATE = 1, 8, 32946
CCITT, LZW, JPEG, PACKBITS = (2, 3, 4), 5, 7, 32773
"""Ways to compress."""

DIFFERENCES, FLOAT_DIFFERENCES = 2, 3
"""Predictors."""
