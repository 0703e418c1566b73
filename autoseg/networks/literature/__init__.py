"""The networks of the literature, a file per paper; each is described without torch."""
