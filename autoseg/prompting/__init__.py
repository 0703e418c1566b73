"""Masks of what a user prompts, by the user's own weights of Segment Anything or MedSAM: first masks for a dataset.

prompts.py      boxes and points of a user, in voxels or mm, as indices of the scan
planes.py       the slices of a volume as pictures, upright as radiologists look at them
pictures.py     a slice as the network sees it, and a mask on the way back
segmenter.py    the network: a slice encoded once, and the mask of each prompt
propagation.py  a whole volume: prompted slices, and from them on slice by slice
"""
