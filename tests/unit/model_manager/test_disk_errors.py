import errno
import os

import pytest

from ondol.errors import ConfigError, DoesNotFit
from ondol.model_manager.disk_errors import disk_error, disk_errors_told


def of(code, *names):
    return OSError(code, os.strerror(code), *names)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_does_not_fit_whichever_limit_it_is(code):
    told = disk_error(of(code))
    assert isinstance(told, DoesNotFit)
    assert os.strerror(code) in str(told)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR])
def test_a_path_that_may_not_be_used_is_named(code):
    told = disk_error(of(code, "/some/where"))
    assert isinstance(told, ConfigError)
    assert str(told).startswith(f"/some/where cannot be used: {os.strerror(code)}.")


@pytest.mark.parametrize("error", [of(errno.EPIPE), of(errno.ENOENT, "/x"), of(errno.EACCES), TimeoutError()])
def test_what_is_not_about_a_disk_stays_what_it_is(error):
    assert disk_error(error) is None
    with pytest.raises(type(error)) as caught, disk_errors_told():
        raise error
    assert caught.value is error


def test_a_folder_in_place_of_which_there_is_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/inside cannot be used"), disk_errors_told():
        (tmp_path / "file" / "inside").mkdir()
