"""DICOM series: found, told apart, sorted along their normal, and read as volumes. pydicom is imported when needed."""
