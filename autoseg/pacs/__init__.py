"""Archives of DICOM (PACS): files sent and fetched, and a service that receives studies and keeps a queue on disk."""
