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


def test_each_file_is_listed_once_and_links_out_only_if_asked_for(tmp_path: Path) -> None:
    root, store = tmp_path / "in", tmp_path / "store"
    (root / ".annex").mkdir(parents=True)
    (store / "sub").mkdir(parents=True)
    for path in (root / ".annex" / "object", root / "plain", store / "x", store / "sub" / "y"):
        path.touch()
    (root / "named.dcm").symlink_to(root / ".annex" / "object")
    (root / "again").symlink_to(root / "plain")
    os.link(root / "plain", root / "twin")
    (root / "out").symlink_to(store / "x")
    (root / "folder").symlink_to(store)
    (root / "gone").symlink_to(tmp_path / "absent")
    (store / "sub" / "back").symlink_to(root)
    walk = walk_files(root)
    assert walk.files == ("named.dcm", "plain")
    assert walk.others == (
        (".annex/object", "same_file"),
        ("again", "symbolic_link"),
        ("folder", "symbolic_link"),
        ("gone", "broken_link"),
        ("out", "symbolic_link"),
        ("twin", "same_file"),
    )
    followed = walk_files(root, follow_links=True)
    assert followed.files == ("folder/sub/y", "folder/x", "named.dcm", "plain")
    assert dict(followed.others)["folder/sub/back"] == "symbolic_link"


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").touch()
    (tmp_path / "x").touch()
    assert walk_files(tmp_path / "DICOMDIR").files == ("DICOMDIR", "x")
