"""The process that decodes one JPEG-LS stream from its input to its output.

Started by ``cxr.imaging.dicom.jpegls`` as a file; imports nothing of the package.
"""

import sys


def main(arguments: list[str]) -> None:
    """Decode standard input; the arguments are processor seconds and pixels."""
    seconds, pixels = int(arguments[0]), int(arguments[1])
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        bound = (512 << 20) + 8 * pixels
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        # Not on every system; the parent's own clock remains.
        pass
    import jpeg_ls

    decoded, information = jpeg_ls.decode_buffer(sys.stdin.buffer.read())
    if information["bits_per_sample"] <= 8:
        wide = bytearray(2 * len(decoded))
        wide[::2] = decoded
        decoded = wide
    sys.stdout.buffer.write(decoded)


if __name__ == "__main__":
    main(sys.argv[1:])
