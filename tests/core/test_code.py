from __future__ import annotations

from pathlib import Path

import pytest
from code_edits import EDITS, Edit, fingerprint_in, write


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_edit_is_the_same_version_or_another(edit: Edit, tmp_path: Path) -> None:
    before = fingerprint_in(write(edit.before, tmp_path / "before"))
    after = fingerprint_in(write(edit.after, tmp_path / "after"))

    assert (before.digest == after.digest) is edit.same, before.changed_since(after)
    assert bool(before.changed_since(after)) is not edit.same
