"""The microscope page: one file that takes the gradient of a few examples apart, at every checkpoint of a run."""

from onelayer.report.microscope.page import Written, write_microscope

__all__ = ["Written", "write_microscope"]
