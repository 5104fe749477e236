"""Tar archives for the tests of the build scripts."""

import io
import tarfile


def archive(path, files, mode="w"):
    """Write a tar archive of files, a dictionary of bytes by path; returns its path."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
