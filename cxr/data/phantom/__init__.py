"""Synthetic chest radiographs: the embedded default data and the tests' fixture.

Read ``writer`` first, then ``chest`` (who), ``film`` (how it was taken), ``lungs``,
``bones``, ``vessels`` (what casts a shadow) and ``lesions`` (what is to be found).
"""

from cxr.data.phantom.writer import PhantomSettings, write_phantom

__all__ = ["PhantomSettings", "write_phantom"]
