"""Tar archives for the tests of builders."""

import io
import tarfile


def archive(path, files, mode="w"):
    """A tar archive of files, bytes by path."""
    with tarfile.open(path, mode) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return path
