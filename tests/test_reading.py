"""Data yamls as people write them: names are text, one reading for check and use, files in any Unicode encoding or one error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gradnorm_plugin.data.description import NAME_KEYS, DescriptionError, check_description, find_dataset
from gradnorm_plugin.reading import read_text, read_yaml
from gradnorm_plugin.upstream.gateway import swapped, upstream

general = upstream("utils.general")

AS_WRITTEN = "02146 1e3 0x1F 1_000 12:30 on off yes No true null ~ 2020-01-01 .inf 0.10 =".split()


@pytest.mark.parametrize("key", NAME_KEYS)
def test_names_are_text_as_they_are_written(tmp_path: Path, key: str) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(f"{key}: [{', '.join(AS_WRITTEN)}]\nnc: 0x10\n")
    assert read_yaml(file, NAME_KEYS) == {key: AS_WRITTEN, "nc": 16}
    file.write_text(f"{key}:\n" + "".join(f"  {index:02}: {name}\n" for index, name in enumerate(AS_WRITTEN)))
    assert read_yaml(file, NAME_KEYS) == {key: dict(enumerate(AS_WRITTEN))}, "08 to 010 are decimal"
    file.write_text(f"few: &few [1, no]\n{key}: *few\n")
    assert read_yaml(file, NAME_KEYS) == {"few": [1, False], key: ["1", "no"]}


def test_names_of_json_are_numbered_by_text(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text('{"names": {"0": "a", "1": "b"}}')
    assert read_yaml(tmp_path / "d.yaml", NAME_KEYS) == {"names": {0: "a", 1: "b"}}


SAVED_WHOLE = st.characters(exclude_characters="\x85")
"""U+0085 ends a line in YAML, and PyYAML writes it into a name all the same."""


@settings(deadline=None, max_examples=100)
@given(names=st.lists(st.text(SAVED_WHOLE, min_size=1, max_size=8), min_size=1, max_size=4), unicode=st.booleans())
def test_a_name_is_what_was_saved_or_refused(names: list[str], unicode: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "names.yaml"
    file.write_text(yaml.safe_dump({"names": names}, allow_unicode=unicode), encoding="utf-8", errors="surrogatepass")
    try:
        found = read_yaml(file, NAME_KEYS)
        check_description(found)
    except DescriptionError as error:
        assert (
            not all(name.strip() and name.isprintable() for name in names)
            and "names.yaml" in str(error)
            or "`names`" in str(error)
        )
        return
    assert found == {"names": names}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a\nb"], "with the character U+000A: a name is one line"),
        (["a\tb"], "with the character U+0009"),
        (["a\u2028b"], "with the character U+2028"),
        (["\x1b[31m"], "with the character U+001B"),
        (["x" * 201], "with 201 characters: shorten it to 200"),
        (["a", ""], "has '' at 1, which is no name"),
        ([1], "has 1 at 0, which is no name"),
    ],
)
def test_what_is_no_name(names: list, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        check_description({"names": names})
    assert message in str(caught.value)
    check_description({"names": ["a, b", "心臟", "x" * 200, "<b>", "=cmd", "../up"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"names: [a]\nnc: 1\nnames: [b]\n", "d.yaml:3: not YAML: `names` is given twice, first in line 1"),
        (b"names:\n  0: a\n  0: b\n", "d.yaml:3: not YAML: `0` is given twice"),
        (b"a: &a [*a]\n", "d.yaml:1: not YAML: an anchor contains itself"),
        (b"names:\n\t- a\n", "(indent with spaces)"),
        (b"names: !!python/object/apply:os.system [ls]\n", "d.yaml:1: not YAML: could not determine a constructor for the tag"),
        ("names: [é]\n".encode("latin-1"), "d.yaml:1: byte 8 of the file (0xE9) is not UTF-8: save the file as UTF-8"),
        ("# 心\nnames: [心]\n".encode("big5"), "d.yaml:1: byte 2 of the file"),
        (b"\xff\xfen\x00a", "d.yaml"),
        (b"names: [a\x01]\n", "d.yaml:1: character U+0001 has no place in YAML"),
        (b"PK\x03\x04" + b"\0" * 30, "d.yaml:1: character U+0003"),
    ],
)
def test_a_yaml_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "d.yaml").write_bytes(content)
    with pytest.raises(DescriptionError) as caught:
        find_dataset(tmp_path / "d.yaml")
    assert message in str(caught.value) and len(str(caught.value)) < 400


def test_aliases_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "d.yaml").write_text("\n".join(lines))
    with pytest.raises(DescriptionError, match="more than 1,000,000 values, most by aliases"):
        read_yaml(tmp_path / "d.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_encoding_that_says_what_it_is(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "d.yaml").write_text("names: [é, 心臟]\n", encoding=encoding)
    assert read_yaml(tmp_path / "d.yaml", NAME_KEYS) == {"names": ["é", "心臟"]}
    assert read_text(tmp_path / "d.yaml") == "names: [é, 心臟]\n"


def test_upstream_gets_what_was_checked(tmp_path: Path) -> None:
    """And does not read the file again, in the locale's encoding or when it has become another."""

    def read_again(*_: object) -> None:
        raise AssertionError("read twice")

    (tmp_path / "images").mkdir()
    (tmp_path / "d.yaml").write_text("train: images\nval: images\nnames: [0123, no]\nclassification_names: [a]\n")
    with swapped(general, yaml_load=read_again):
        found = find_dataset(tmp_path / "d.yaml")
    assert found["names"] == {0: "0123", 1: "no"} and found["train"] == str(tmp_path / "images")


@pytest.mark.parametrize("file", sorted((Path(general.ROOT) / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_upstreams_own_yamls_read_as_ever(file: Path) -> None:
    theirs = general.yaml_load(file)
    found = read_yaml(file, NAME_KEYS)
    check_description(found)
    assert found == theirs
