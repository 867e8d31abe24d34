"""DICOM: ``header`` (what is refused), ``frames`` (to stored values), ``grayscale`` (to gray)."""
