"""Import of foreign data: recognition of the source, pairing of images and masks, label values; the demo's data."""
