"""Synthetic chest radiographs: the embedded default data and the tests' fixture.

``chest`` says who, ``phantom_image`` how it was taken, ``anatomy`` what casts a shadow, ``render``
adds what is to be found, and ``writer`` makes the folder.
"""
