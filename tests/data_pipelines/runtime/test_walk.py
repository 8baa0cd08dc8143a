from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import InputError
from data_pipelines.runtime.walk import walk_files


def test_walk_lists_files_and_opens_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "b.dcm").mkdir()
    (tmp_path / "b.dcm" / "x").touch()
    (tmp_path / "a").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path)
    listener = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        listener.bind("socket")
        walk = walk_files(tmp_path)
    finally:
        os.chdir(before)
        listener.close()
    assert walk.files == ("a", "b.dcm/x")
    assert walk.others == (
        ("device", "symbolic_link"),
        ("loop", "symbolic_link"),
        ("pipe", "special_file"),
        ("socket", "special_file"),
    )


def test_walk_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    walk = walk_files(tmp_path / "a")
    assert (walk.root, walk.files, walk.others) == (tmp_path.resolve(), ("a",), ())


def test_walk_names_what_is_not_utf8(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.dcm")).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    assert walk_files(tmp_path).others == ((r"\udcff.dcm", "file_name"),)


def test_walk_of_nothing(tmp_path: Path) -> None:
    with raises_code(InputError, "no_source", "absent"):
        walk_files(tmp_path / "absent")
