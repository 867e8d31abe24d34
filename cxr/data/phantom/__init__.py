"""Synthetic chest radiographs: the embedded default data and the tests' fixture.

``chest`` says who, ``phantom_image`` how it was taken, ``anatomy`` what casts a shadow, ``render``
adds what is to be found, and ``writer`` makes the folder.
"""

from cxr.data.phantom.writer import PHANTOM_VERSION, PhantomSettings, write_phantom

__all__ = ["PHANTOM_VERSION", "PhantomSettings", "write_phantom"]
