"""The networks of the literature, one file per paper, each written without torch; see `networks.ops`."""
