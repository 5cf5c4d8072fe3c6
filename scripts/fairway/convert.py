"""``fairway publish --as-conda``: convert ``.tar.bz2`` artifacts to ``.conda``."""

from pathlib import Path

from conda_package_handling.api import transmute
from conda_package_handling.exceptions import InvalidArchiveError

from lambdas.channel.errors import PermanentError


def convert_to_conda(file: Path, folder: Path) -> Path:
    """Convert a ``.tar.bz2`` into a ``.conda`` in the folder; return the new file.

    Raises:
        PermanentError: the file cannot be converted.
    """
    try:
        error = transmute(str(file), ".conda", out_folder=str(folder))
    except (InvalidArchiveError, OSError, ValueError) as failure:
        error = str(failure)
    if error:
        raise PermanentError(
            f"{str(file)!r} cannot be converted to .conda: {error}", hint="publish it without --as-conda"
        )
    return folder / (file.name.removesuffix(".tar.bz2") + ".conda")
