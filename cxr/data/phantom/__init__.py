"""Synthetic chest radiographs: the embedded default data and the tests' fixture.

Read ``render`` first, then ``chest`` (who), ``image`` (how it was taken), ``lungs``,
``bones``, ``vessels`` (what casts a shadow), ``lesions`` (what is to be found) and
``writer`` (the folder).
"""

from cxr.data.phantom.writer import PHANTOM_VERSION, PhantomSettings, write_phantom

__all__ = ["PHANTOM_VERSION", "PhantomSettings", "write_phantom"]
