"""Images and label maps: grids in space, image files, what the numbers of a label map mean, connected components."""
