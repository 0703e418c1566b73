"""Files of volumes: what their headers say, and voxels that are read here rather than by ITK.

nifti_placement.py, nifti_header.py                where the voxels of a NIfTI lie; its header
nifti_copy.py, nifti_checks.py                     headers carried to results; damage
stored_image.py, stored_voxels.py                  what NRRD, MetaImage and GIPL have in common
nrrd_header.py, nrrd.py, metaimage.py, gipl.py     a format each
segment_file.py                                    segmentations of 3D Slicer, `.seg.nrrd`
"""
