"""A trained model: its network, its checkpoint, statistics of its training cases, and bundles."""
