"""``SPEC``: selects artifacts of a channel by filename, or by name, version and build. Pure."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

from lambdas.channel.artifact_kinds import Distribution, kind_of, parse_filename
from lambdas.channel.errors import InvalidNameError

SPEC_HELP: Final = """\b
SPEC is a filename, or NAME[=VERSION[=BUILD]]; '*' and '?' are wildcards:
  hello-1.0-0.conda      one artifact
  hello                  all artifacts of hello
  hello=1.0              all builds of 1.0
  hello=1.*=py312*       builds for Python 3.12 of all versions 1.*
"""


def parse_spec(spec: str) -> Callable[[str], bool]:
    """Return a function that tells whether a filename matches the SPEC."""
    if kind_of(spec) is not None:
        return lambda filename: fnmatchcase(filename, spec)
    name, _, rest = spec.partition("=")
    version, _, build = rest.partition("=")

    def matches(filename: str) -> bool:
        try:
            parsed: Distribution = parse_filename(filename)
        except InvalidNameError:
            return False
        return (
            fnmatchcase(parsed.name, name)
            and fnmatchcase(parsed.version, version or "*")
            and fnmatchcase(parsed.build, build or "*")
        )

    return matches


def parse_name_glob(spec: str) -> str:
    """Return a glob of the names of packages that can match the SPEC, so that only their shards are read."""
    if kind_of(spec) is None:
        return spec.partition("=")[0]
    try:
        return parse_filename(spec).name
    except InvalidNameError:  # it has wildcards
        return "*"
