"""The network: its blocks, and the U shape that they are put in."""
