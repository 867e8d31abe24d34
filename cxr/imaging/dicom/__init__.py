"""DICOM files to gray pixels; ``read_dicom`` is what it offers.

Read first ``header`` (what is refused), then ``frames`` (bytes to stored values) and
``grayscale`` (stored values to what is seen).
"""

from cxr.imaging.dicom.dataset import read_dicom

__all__ = ["read_dicom"]
