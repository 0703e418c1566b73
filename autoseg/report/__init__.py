"""Pages to look at in a browser: a self-contained HTML file each, which needs no network.

data_report.py     the cases of a dataset, what stands out, what occurs twice, what the planner made of them
case_measures.py   what is measured of each case, in one pass over its voxels
case_pictures.py   small pictures of a case with its labels
outliers.py        cases unlike the others, with the reason
acquisition.py     how scans were acquired, from their DICOM headers
duplicates.py      scans that occur twice
histograms.py      distributions, ready to draw

model_report.py    trained configurations: how they learned, how good they are, and where they fail
model_runs.py      what lies on disk of them
held_out.py        held-out cases, each read once
error_pictures.py  pictures of a case with what is wrong
confusion.py       what is taken for what
score_rows.py      scores as they stand in tables
calibration_charts.py  how reliable probabilities are
failure_score.py   whether agreement tells bad segmentations
curves.py          training curves
markdown.py        the model card as elements of a page

comparison_report.py  two runs on the same cases: what changed
run_files.py       the files behind a summary of scores

charts.py          lines and dots, ready to draw
page.py            templates, and how a page is written

scan_report.py     the scans that predict has segmented, those that deserve a look first
predictions.py     which scans they are, and where their images and masks lie
segmented_scan.py  what a report knows of a scan
scan_measures.py   what is measured of each scan
scan_ranking.py    the order in which they deserve a look, with the reasons

viewer.py          cases that a click opens: niivue, which lies in vendored/, and small copies of volumes
viewed_cases.py    the cases of a dataset for the viewer
viewed_held_out.py held-out cases with their reference and what was found
viewed_volumes.py  numbered structures, and copies of volumes of any size
nifti_bytes.py     the bytes of a NIfTI file
served.py          a page with all its volumes at full resolution, served on this machine
loopback.py        the server: 127.0.0.1 alone, a token in the address, known paths alone
"""
