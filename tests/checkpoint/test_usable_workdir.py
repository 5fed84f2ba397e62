"""Which folders a run may use."""

import pytest

from vlm_jax.checkpoint.workdir import check_usable
from vlm_jax.errors import InputError


def test_a_start_that_was_interrupted_before_its_first_save_may_begin_again(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / "log.txt").write_text("training …\n")
    check_usable(str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_text("")
    with pytest.raises(InputError, match="holds files that are not a run's"):
        check_usable(str(tmp_path))
