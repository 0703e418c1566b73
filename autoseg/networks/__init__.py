"""The networks of the literature, one page each; a page needs no torch, so that a plan can be made from it."""
