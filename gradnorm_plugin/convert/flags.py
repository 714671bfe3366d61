"""Flags for a table and for groups, shared by `convert` and `compare --folds`; importing them does not load PyTorch."""

from __future__ import annotations

import argparse
import codecs
import re
from pathlib import Path


def add_group_flags(parser: argparse._ArgumentGroup) -> None:
    """The flags that name the groups."""
    together = parser.add_mutually_exclusive_group()
    together.add_argument(
        "--group", metavar="COLUMN", help="draw a split that keeps images with the same value in this CSV column together"
    )
    together.add_argument(
        "--group-pattern", type=read_pattern, metavar="REGEX", help="the same, by file name: '^(patient[0-9]+)_'"
    )


def add_table_flags(parser: argparse._ArgumentGroup) -> None:
    """The flags that name a table of the images and how to read it."""
    parser.add_argument("--classes-csv", type=Path, metavar="FILE", help="CSV file with one row per image")
    parser.add_argument("--csv-columns", nargs=2, metavar=("IMAGE", "CLASS"), help="its columns (default: detected by name)")
    parser.add_argument("--csv-image", metavar="COLUMN", help="the image column if no class is read (default: detected by name)")
    parser.add_argument(
        "--csv-encoding", metavar="NAME", help="its encoding: cp1252, big5, ... (default: UTF-8, or UTF-16 with a BOM)"
    )


def check_group_flags(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program with a message if one of these flags cannot be used."""
    try:
        codecs.lookup(options.csv_encoding or "utf-8")
    except LookupError:
        parser.error(f"--csv-encoding {options.csv_encoding} is no encoding that Python knows: cp1252, big5, utf-16, ...")
    if options.group and not options.classes_csv:
        parser.error("--group names a column, and there is no table: add --classes-csv FILE, or take --group-pattern REGEX")


def read_pattern(text: str) -> re.Pattern[str]:
    """A flag's regular expression; its named or only group captures the name, else the whole match does."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    if pattern.groups > 1 and len(pattern.groupindex) != 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} has {pattern.groups} groups: name the one that counts (?P<name>...), write (?:...) for the others"
        )
    return pattern
