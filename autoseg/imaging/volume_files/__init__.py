"""Files of volumes: what their headers say, and voxels that are read here rather than by ITK.

stored_image.py, stored_voxels.py                  what the formats have in common
nifti.py, nifti_header.py, nifti_placement.py      NIfTI: its numbers, its header, and where its voxels lie
nifti_writing.py                                   NIfTI files, written
nrrd_header.py, nrrd.py, metaimage.py, gipl.py     a format each
segment_file.py                                    segmentations of 3D Slicer, `.seg.nrrd`
"""
