"""What can be written is known before."""

from pathlib import Path

import pytest

from kit.errors import KitError
from kit.paths import check_writable


def test_a_file_that_can_be_written_is_not_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    check_writable(tmp_path / "deep" / "new", make_folder=True)
    (tmp_path / "old").write_text("kept")
    check_writable(tmp_path / "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "old"]
    assert (tmp_path / "old").read_text() == "kept"


def test_a_folder_a_missing_folder_and_a_file_in_place_of_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x", "No such file"),
        (tmp_path / "file" / "x", "N"),
    ):
        with pytest.raises(KitError, match=f"cannot write {path}: .*{says}"):
            check_writable(path)
    with pytest.raises(KitError, match="cannot write"):
        check_writable(tmp_path / "file" / "x", make_folder=True)


def test_what_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # whoever runs the tests may be root
    with pytest.raises(KitError, match="may not be changed"):
        check_writable(tmp_path / "file")
