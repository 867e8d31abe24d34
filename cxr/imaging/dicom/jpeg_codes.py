"""Huffman codes of JPEG, followed through tables of all bits. Source: ITU-T T.81.

The Python loop takes one step a code and only adds; everything else works on arrays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.raster import ImageError

_CHUNK = 1 << 18
"""Bytes whose tables are built at once: 2 million places."""
_LONGEST_BLOCK = 320
"""Bytes beyond a chunk that a block's 64 codes of at most 32 bits can reach."""
_CUT = "has damaged JPEG pixels: export it anew"


@dataclass(frozen=True)
class HuffmanTable:
    """What 16 bits of the stream begin with; arrays of 65,536."""

    length: NDArray[np.uint8]
    """Bits of the code; 0 where no code begins so."""
    symbol: NDArray[np.uint8]


def huffman_table(counts: bytes, symbols: bytes) -> HuffmanTable:
    """Build a table from the number of codes of 1 to 16 bits, and their symbols.

    Source: T.81, annex C.

    Raises:
        ImageError: more codes than the bits allow, or fewer symbols than codes.
    """
    if len(counts) != 16 or len(symbols) != sum(counts):
        raise ImageError(_CUT)
    length, symbol = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    place, used = 0, 0
    for bits, count in enumerate(counts, start=1):
        for _ in range(count):
            end = place + (1 << (16 - bits))
            if end > 1 << 16:
                raise ImageError(_CUT)
            length[place:end], symbol[place:end] = bits, symbols[used]
            place, used = end, used + 1
    return HuffmanTable(length, symbol)


def read_differences(data: bytes, count: int, table: HuffmanTable) -> NDArray[np.uint16]:
    """Read the differences of a lossless scan.

    Args:
        data: coded bytes of one interval, without stuffing.
        count: differences to read.
        table: its symbols are the numbers of bits that follow.

    Returns:
        (count,) uint16, negative ones modulo 2 ** 16.

    Raises:
        ImageError: cut, or a code that the table lacks.
    """
    # A difference of 32,768 (symbol 16) is written without further bits: T.81, H.1.2.2.
    more = np.where(table.symbol < 16, table.symbol, 0)
    jump = np.where(table.length > 0, table.length + more, 255).astype(np.uint8)
    source = np.frombuffer(data + bytes(8), np.uint8)
    differences = np.empty(count, np.uint16)
    have, place = 0, 0
    while have < count:
        first = place >> 3
        if first >= len(data):
            raise ImageError(_CUT)
        begins = _begins(source, first, min(_CHUNK, len(data) - first))
        jumps = jump[begins].tobytes()
        at, end = place & 7, len(begins)
        places: list[int] = []
        add = places.append
        while at < end:
            add(at)
            at += jumps[at]
        found = np.asarray(places[: count - have], np.int64)
        codes = begins[found]
        if not table.length[codes].all() or int(table.symbol[codes].max()) > 16:
            raise ImageError(_CUT)
        differences[have : have + len(found)] = _values(
            source[first:], found + table.length[codes], table.symbol[codes]
        )
        have += len(found)
        place = 8 * first + (at if len(found) == len(places) else places[len(found)])
    if place > 8 * len(data):
        raise ImageError(_CUT)
    return differences


def read_blocks(data: bytes, count: int, dc: HuffmanTable, ac: HuffmanTable) -> NDArray[np.int16]:
    """Read the coefficients of blocks of one sequential interval.

    Args:
        data: coded bytes, without stuffing.
        count: blocks to read.
        dc: codes of the first coefficients' differences.
        ac: codes of the others: zeros before it, and bits.

    Returns:
        (count, 64) int16 in zigzag order.

    Raises:
        ImageError: cut, or a code that the tables lack.
    """
    blocks = np.zeros((count, 64), np.int16)
    source = np.frombuffer(data + bytes(_LONGEST_BLOCK + 8), np.uint8)
    steps = np.zeros(count, np.int64)
    have, place = 0, 0
    while have < count:
        first = place >> 3
        if first >= len(data):
            raise ImageError(_CUT)
        length = min(_CHUNK, len(data) - first)
        begins = _begins(source, first, length + _LONGEST_BLOCK)
        at, firsts, others, where = _follow(begins, place & 7, 8 * length, count - have, dc, ac)
        found = np.asarray(firsts, np.int64)
        codes = begins[found]
        later = np.asarray(others, np.int64)
        later_codes = begins[later]
        goes_to = np.asarray(where, np.int64)
        if not dc.length[codes].all() or int(dc.symbol[codes].max()) > 15:
            raise ImageError(_CUT)
        if not ac.length[later_codes].all() or (goes_to & 127 > 63).any():
            raise ImageError(_CUT)
        here = source[first:]
        values = _values(here, found + dc.length[codes], dc.symbol[codes])
        steps[have : have + len(found)] = values.view(np.int16)
        values = _values(
            here, later + ac.length[later_codes], ac.symbol[later_codes] & np.uint8(15)
        )
        blocks[have + (goes_to >> 7), goes_to & 127] = values.view(np.int16)
        have += len(found)
        place = 8 * first + at
    if place > 8 * len(data):
        raise ImageError(_CUT)
    blocks[:, 0] = np.cumsum(steps).astype(np.int16)
    return blocks


def _follow(
    begins: NDArray[np.uint16], at: int, end: int, count: int, dc: HuffmanTable, ac: HuffmanTable
) -> tuple[int, list[int], list[int], list[int]]:
    """Step from code to code; return the place after, and the places of what has a value."""
    dc_jump = np.where(dc.length > 0, dc.length + (dc.symbol & 15), 32).astype(np.uint8)
    ac_jump = np.where(ac.length > 0, ac.length + (ac.symbol & 15), 32).astype(np.uint8)
    # What no code begins is given a value, so that its place is looked at and refused.
    ac_symbol = np.where(ac.length > 0, ac.symbol, 1).astype(np.uint8)
    dc_jumps, ac_jumps = dc_jump[begins].tobytes(), ac_jump[begins].tobytes()
    symbols = ac_symbol[begins].tobytes()
    firsts: list[int] = []
    others: list[int] = []
    where: list[int] = []
    for base in range(0, 128 * count, 128):
        if at >= end:
            break
        firsts.append(at)
        at += dc_jumps[at]
        index = 1
        while index < 64:
            symbol = symbols[at]
            if symbol & 15:
                index += symbol >> 4
                others.append(at)
                where.append(base + index)
                index += 1
            elif symbol == 0xF0:
                index += 16
            else:
                index = 64
            at += ac_jumps[at]
    return at, firsts, others, where


def _begins(source: NDArray[np.uint8], first: int, count: int) -> NDArray[np.uint16]:
    """Return the 16 bits that begin at each bit of ``count`` bytes."""
    near = source[first : first + count + 2].astype(np.uint32)
    joined = (near[:-2] << 16) | (near[1:-1] << 8) | near[2:]
    begins = np.empty((count, 8), np.uint16)
    for bit in range(8):
        begins[:, bit] = joined >> (8 - bit)
    return begins.reshape(-1)


def _values(
    source: NDArray[np.uint8], places: NDArray[np.int64], bits: NDArray[np.uint8]
) -> NDArray[np.uint16]:
    """Read numbers of up to 15 bits; 16 stands for 32,768. Source: T.81, F.1.2.1."""
    byte = places >> 3
    near = source[byte].astype(np.uint32) << 16
    near |= source[byte + 1].astype(np.uint32) << 8
    near |= source[byte + 2]
    wide = bits.astype(np.uint32)
    value = (near >> (24 - wide - (places & 7).astype(np.uint32))).astype(np.int64)
    value &= (1 << wide.astype(np.int64)) - 1
    low = value < (1 << np.maximum(wide.astype(np.int64) - 1, 0))
    value -= np.where(low & (wide > 0), (1 << wide.astype(np.int64)) - 1, 0)
    return np.where(bits == 16, 32768, value).astype(np.uint16)
