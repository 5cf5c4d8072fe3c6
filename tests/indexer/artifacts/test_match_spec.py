"""Match specs: every accepted one parses in rattler, with the same name and build; real ones are accepted.

conda is no dependency of these tests. The grammar was compared with conda 26.7's ``MatchSpec``: with the rows
below, with 5,663 distinct specs from packages, hotfixes and the tests of other projects, and with generated
specs. Every accepted spec parses and matches in conda without an exception, and with the same build as in
rattler. One of those specs parses in conda and not in rattler, and is rejected: ``ray[default,data]
>=2.9.0,<3.0.0``, from the test data of rattler, not from a package.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lambdas.channel.artifact_kinds import parse_filename
from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.match_spec import MAX_SPEC_CHARS, check_match_specs, describe_problem
from lambdas.indexer.artifacts.read import read_artifact
from lambdas.indexer.tree.patches import parse_patches
from tests.builders import MemorySource, conda_package
from tests.indexer.reading import FOO_CONDA, read, rejection

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
PARSER = Path(__file__).with_name("parse_specs_with_rattler.py")

REAL = {
    "_libgcc_mutex * main": "libgcc-ng-11.2.0-h1234567_1",
    "_libgcc_mutex 0.1 conda_forge": "_openmp_mutex-4.5-2_gnu",
    "_license 1.1 py27_0": "anaconda-1.4.0-np15py27_0",
    "_r-mutex 1.* anacondar_1": "r-base-3.1.2-0",
    "__cuda>=10.0,<11": "cuda-glibc-10.0-0",
    "__glibc >=2.17,<3.0.a0": "faiss-cpu-1.7.4-py3.10_h8c27c75_0_cpu",
    "__osx": "virtualdep-package-1.0-0",
    "abseil-cpp =20240722.0": "libabseil-20240722.0-cxx17_h5888daf_1",
    "alsa-lib-cos6-i686 ==1.1.0": "alsa-lib-devel-cos6-i686-1.1.0-h5d9a986_0",
    "asgiref <4,>=3.8.1": "django-5.1.10-py3_none_any_0",
    "binutils_impl_linux-64 2.28.1.*": "binutils_linux-64-5.4.0-had2808c_24",
    "binutils_linux-64 7.2.0 26": "gcc_linux-64-7.2.0-26",
    "blas * openblas": "nomkl-3.0-0",
    "charset-normalizer ~=2.0.0": "requests-2.28.0-py3_none_any_0",
    "erlang R15B01": "disco-0.4.2-py26_0",
    "erlang R15B01 0": "anaconda-1.4.0-np15py26_0",
    'idna <3,>=2.5[when="python < 3"]': "requests-2.26.0-py3_none_any_0",
    "jpeg 8d*": "r-base-3.3.1-5",
    "jupyter_core >=4.12,!=5.0.*": "ipykernel-6.29.5-pyh3099207_0",
    "libabseil-static =20240722.0=cxx17*": "libabseil-20240722.0-cxx17_h5888daf_1",
    "libgcc-ng ==14.1.0=*_1": "libgcc-14.1.0-h77fa898_1",
    "libgfortran 5.0.0 13_2_0_*_3": "libgfortran5-13.2.0-hf226fd6_3",
    'linux-dependency[when="__linux"]': "package-0.1.0-py27_0",
    "ncurses >=5.9*": "r-base-3.3.2-0",
    "openmp 18.1.6|18.1.6.*": "llvm-openmp-18.1.6-hde57baf_0",
    "python >=2.7, !=3.0.*, !=3.1.*, !=3.2.*, !=3.3.*, !=3.4.*, !=3.5.*": "requests-2.26.0-py3_none_any_0",
    "python >=3.11,<3.12.0a0 *_cpython": "numpy-1.26.4-py311h7125741_0",
    "pytorch 2.6.0 cpu_mkl*104": "pytorch-cpu-2.6.0-cpu_mkl_h8b52ce0_104",
}
LEGACY = [
    "bird_tool_utils_python =0.*,>=0.4.1",
    "blas *.* mkl",
    "cudatoolkit 11.2|11.2.*",
    "numpy>=2.*.*",
    "python ==2.7.*.*|>=3.6",
    "pytorch=*=cuda*",
    "x264 >=1!164.3095,<1!165",
    "numpy 1.11*",
    "python 3.5*",
    "python 3.5*|>=3.6",
    "foo 1.0 py27_0",
    "foo=1.0=py27_0",
    "foo==1.0=py27_0",
    "foo==1.0",
    "foo=1.0",
    "foo 1.0=py27_0",
    "foo >=1.0=py*",
    "libfoo >=1.2,<2.0a0|=3",
    "Pillow",
    "Foo 1.0",
    "foo >= 1.0 , < 2.0 py27_0",
    "foo  1.0   py27_0",
    "foo ",
    "foo  # a comment",
    "foo >=1.0# >=",
    "foo 1.0-2",
    "foo 1.0_",
    "foo 3.7b_.*",
    "foo 1.0+cu118",
    "foo Release_2017_09",
    "foo x.x",
    "foo =*",
    "foo * *",
    "foo 1.0 **",
    "foo 1.0 ^py3.*_0$",
    "foo-",
    "foo[version='>=1,<2']",
    "foo[version='(>=1,<2)|3']",
    'foo[version="1.0", build="py*"]',
    "foo 1.0 [build='^(a|b)$']",
    "foo[build_number='>=3']",
    f"foo[md5={'a' * 32}]",
    f"foo[sha256={'0' * 64}]",
    "foo[subdir=linux-64,license='GPL-3.0-or-later',fn=foo-1.0-0.conda]",
    "foo[track_features='a b']",
    'foo[when="(python >=3 or __win) and bar"]',
]
BAD = {
    "": "no package name",
    " ": "no package name",
    " foo": "no package name",
    "*": "name is invalid",
    "foo*": "name is invalid",
    "foo--bar": "name is invalid",
    "-foo": "name is invalid",
    "foo+bar": "name is invalid",
    "f" * 129: "name is invalid",
    "@foo": "name is invalid",
    "mkl@": "feature",
    "foo\t1.0": "printable",
    "foo\n1.0": "printable",
    "foo 1.0 ü": "printable",
    "zlib===": "nothing after",
    "foo==": "nothing after",
    "foo=": "nothing after",
    "foo= ": "nothing after",
    "foo >=": "nothing after",
    "foo !=,1": "nothing after",
    "foo >=1,": "empty part",
    "foo ,>=1": "empty part",
    "foo >=1,,<2": "empty part",
    "foo 1|": "empty part",
    "foo ===1.0": "not a version",
    "foo <>1": "not a version",
    "foo =>1": "not a version",
    "foo 1..0": "not a version",
    "foo 1.": "not a version",
    "foo .1": "not a version",
    "foo 1.0-rc_1": "not a version",
    "foo=1._": "not a version",
    "foo=1._+x": "not a version",
    "foo 1.0/2": "URL or path",
    "foo 99999999999999999999": "not a version",
    "foo 4294967296!1": "not a version",
    "foo 1.0@2": "not a version",
    "foo >=1<2": "not a version",
    f"foo {'1' * 65}": "not a version",
    "foo !=*": "asterisk",
    "foo 1.*.2": "asterisk",
    "foo 1**": "asterisk",
    "foo 1.0__*": "underscore",
    "foo ~=1": "two parts",
    "foo ~=1.0.*": "two parts",
    "foo > =1": "operator",
    "foo >=1 <2": "not a version",
    "foo 1.0 a-b": "space",
    "foo 1.0 a|b": "space",
    "foo 1.0 =py27_0": "operator",
    "foo 1.0 a b": "build",
    "foo 1.0 %": "build",
    "foo 1.0 a**": "asterisks",
    "foo 1.0 *a*a*a*a*a*a": "asterisks",
    "foo ^(.*$": "parentheses",
    "foo (>=1,<2)|3": "parentheses",
    "foo (optional)": "parentheses",
    "foo ^1.0$": "regular expression",
    "foo 1.0 ^x": "pattern",
    "foo[build='^(a$']": "pattern",
    "foo[build='^*$']": "pattern",
    "foo[build='^(a+)+$']": "too long to match",
    "foo[build='^.*a.*a.*a.*a.*a.*$']": "too long to match",
    "foo[build='^(?=a)$']": "every client",
    "foo[build='^\\1$']": "every client",
    "https://example.org/noarch/foo-1.0-0.conda": "URL",
    "https://example.org/foo": "URL",
    "foo-1.0-0.tar.bz2": "filename",
    "./foo": "URL or path",
    "conda-forge::foo": "names a channel",
    "conda-forge/linux-64::foo >=1": "URL or path",
    "a:b:foo": "names a channel",
    "::foo": "names a channel",
    "foo[channel=conda-forge]": "names a channel",
    "foo[url=x]": "URL",
    "foo if python": "condition",
    "foo if": "condition",
    "foo; if python": "condition",
    "foo[": "not closed",
    "foo]": "name is invalid",
    "foo[version=1]x": "not closed",
    "foo[]": "pairs",
    "foo[optional]": "pairs",
    "foo[version=1.0 build=x]": "pairs",
    "foo[version=>=1]": "pairs",
    "foo[version='1\"]": "pairs",
    "foo[version=1,]": "comma",
    "foo[version=]": "nothing after",
    "foo[version='']": "nothing after",
    "foo[version='>=']": "nothing after",
    "foo[version='(1']": "malformed",
    "foo[version='1(2)']": "malformed",
    "foo[version='((((((((((1))))))))))']": "malformed",
    "foo[version=1,version=2]": "twice",
    "foo[name=bar]": "do not know",
    "foo[features=x]": "do not know",
    "foo[target=x]": "do not know",
    "foo[md5=abc]": "invalid value",
    "foo[build_number='=3']": "invalid value",
    "foo[extras='a']": "schema_version",
    "foo[flags=[a]]": "schema_version",
    "foo[version=[1]]": "not a list",
    'foo[when="python >="]': "nothing after",
    'foo[when="python and"]': "malformed",
    'foo[when="(python"]': "malformed",
    'foo[when="https://x/y"]': "URL",
    "ray[default,data] >=2.9.0": "not closed",
    "foo " + ",".join(["!=1.0"] * 400): "more than",
}


def parse_with_rattler(specs: list[str]) -> list[list[str | None] | None]:
    done = subprocess.run(
        [sys.executable, str(PARSER)], input=json.dumps(specs), capture_output=True, text=True, check=True, timeout=120
    )
    parsed: list[list[str | None] | None] = json.loads(done.stdout)
    return parsed


@pytest.mark.parametrize("spec", [*REAL, *LEGACY])
def test_describe_problem__accepts(spec: str) -> None:
    assert describe_problem(spec) is None


@pytest.mark.parametrize(("spec", "problem"), BAD.items())
def test_describe_problem__rejects(spec: str, problem: str) -> None:
    assert problem in (describe_problem(spec) or "accepted")


@pytest.mark.parametrize("spec", ["foo[extras=[a, b]]", "foo[extras='a,b']", "foo[flags=[blas:mkl]]"])
def test_describe_problem__lists_need_schema_version_3(spec: str) -> None:
    assert "schema_version" in (describe_problem(spec) or "")
    assert describe_problem(spec, schema_version=3) is None


def test_describe_problem__every_accepted_spec_parses_in_rattler() -> None:
    specs = [*REAL, *LEGACY]

    parsed = parse_with_rattler(specs)

    assert [spec for spec, result in zip(specs, parsed, strict=True) if result is None] == []


def test_check_match_specs__names_field_and_spec_in_a_message_of_bounded_length() -> None:
    with pytest.raises(RejectedError) as caught:
        check_match_specs(["bar", "zlib==="], "'depends' in info/index.json")
    assert caught.value.code == "spec-invalid"
    assert str(caught.value).startswith("'depends' in info/index.json has the match spec 'zlib===': it has nothing")
    assert caught.value.hint

    with pytest.raises(RejectedError) as caught:
        check_match_specs(["x" * MAX_SPEC_CHARS * 10], "'depends'")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["weak", "strong", "weak_constrains", "strong_constrains", "noarch"])
def test_read_artifact__rejects_run_exports_with_an_invalid_spec(kind: str) -> None:
    error = rejection(conda_package(run_exports={kind: ["foo >=1", "zlib==="]})[1], FOO_CONDA)

    assert error.code == "spec-invalid"
    assert f"'{kind}' in info/run_exports.json" in str(error)


def test_read_artifact__accepts_run_exports_with_valid_specs() -> None:
    exported = {"weak": ["libfoo >=1.2,<2.0a0|=3"], "noarch": ["python 3.5*"]}

    assert read(*conda_package(run_exports=exported)).run_exports == exported


@pytest.mark.parametrize(
    "fields", [{"depends": ["zlib==="]}, {"constrains": [""]}, {"run_exports": {"weak": ["foo ^(.*$"]}}]
)
def test_parse_patches__rejects_an_invalid_spec(fields: dict[str, Any]) -> None:
    document = {"patch_instructions_version": 2, "packages": {}, "packages.conda": {"foo-1.0-0.conda": fields}}

    with pytest.raises(RejectedError) as caught:
        parse_patches(json.dumps(document).encode())

    assert caught.value.code == "patches-malformed"
    assert "match spec" in str(caught.value)


def test_parse_patches__accepts_valid_specs() -> None:
    fields = {"depends": ["numpy 1.11*"], "constrains": ["foo 1.0 py27_0"], "features": None}
    document = {"patch_instructions_version": 1, "packages": {}, "packages.conda": {"foo-1.0-0.conda": fields}}

    assert parse_patches(json.dumps(document).encode()).fixes == {"foo-1.0-0.conda": (fields,)}


TOKENS = (
    "foo", "bar-baz", "Foo", "_x", "__cuda", " ", " ", "  ", "=", "==", "!=", ">=", "<=", "<", ">", "~=", ",", "|",
    "1", "1.0", "1.0a0", "3.*", "*", ".*", "1!2", "+x", "_", "-", ".", "py27_0", "py*", "*_cpython", "a", "0",
    "[", "]", '[version="', "build=", '"', "^", "$", "(", ")", "#", "@", ":", " if ", "build_number=3", "1.0_", "!",
)  # fmt: skip
VERSIONS = ("1", "1.0", "2.3.4", "1!2.0", "1.0+a", "1.0_", "1a", "3.7b_", "x.x", "1-2", "0.1__", "R15B")
OPERATORS = ("", "=", "==", "!=", ">=", "<=", "<", ">", "~=", ">= ", "< ")
BUILDS = ("py27_0", "py*", "*_x", "^py.*$", "^(a|b)$", "0", "a.b+c", "*", "**", "a b")
BRACKETS = ("[build=x]", "[version=1.0]", '[version=">=1,<2"]', "[build_number=3]", "[build='^(a|b)$']")


def generate_spec(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return "foo" + "".join(chance.choice(TOKENS) for _ in range(chance.randint(1, 6)))
    clauses = [
        chance.choice(OPERATORS) + chance.choice(VERSIONS) + chance.choice(["", "", ".*", "*", ".*.*"])
        for _ in range(chance.randint(1, 3))
    ]
    spec = (
        chance.choice(["foo", "Foo-bar", "__osx"]) + chance.choice([" ", "", "="]) + chance.choice(",|").join(clauses)
    )
    if chance.random() < 0.5:
        spec += chance.choice([" ", "=", "  ", " ="]) + chance.choice(BUILDS)
    return spec + (chance.choice(BRACKETS) if chance.random() < 0.2 else "")


def test_describe_problem__attack_nothing_is_accepted_that_rattler_reads_differently() -> None:
    chance = random.Random("match specs")  # noqa: S311 - no secret depends on it
    specs = sorted({spec for spec in (generate_spec(chance) for _ in range(20_000)) if describe_problem(spec) is None})
    assert len(specs) > 2_000

    parsed = parse_with_rattler(specs)

    assert [spec for spec, result in zip(specs, parsed, strict=True) if result is None] == []
    for spec, result in zip(specs, parsed, strict=True):
        assert result is not None
        name, build = result
        assert spec.lower().startswith(str(name))
        if "[" not in spec:  # the build is what follows the last separator, as in conda
            assert build is None or spec.partition("#")[0].rstrip(" ").endswith(build)


@pytest.mark.skipif(not CORPUS.exists(), reason=f"no packages of others at {CORPUS.name}")
def test_describe_problem__accepts_every_spec_of_real_packages() -> None:
    files = sorted((CORPUS / "packages").glob("*/*"))
    specs: set[str] = set()
    for file in files:
        info = read_artifact(MemorySource(content=file.read_bytes()), parse_filename(file.name))
        fields: dict[str, Any] = info.index
        exported = [spec for kind in info.run_exports.values() for spec in kind]
        specs |= {*fields.get("depends", []), *fields.get("constrains", []), *exported}

    assert len(specs) > 50
    assert [spec for spec in sorted(specs) if describe_problem(spec)] == []
