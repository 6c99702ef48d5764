import hashlib

from ondol.model_manager.hub.client import RemoteFile
from ondol.model_manager.hub.part import PartFile

CONTENT = bytes(range(256)) * 20
SHA256 = RemoteFile("a", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_a_part_that_is_opened_again_goes_on_where_it_ended(tmp_path):
    with PartFile(tmp_path / "part", SHA256) as part:
        part.append(CONTENT[:1000])
    with PartFile(tmp_path / "part", SHA256) as part:
        assert part.size_bytes == 1000
        assert not part.is_intact()
        part.append(CONTENT[1000:])
        assert part.is_intact()
        part.sync()
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_part_can_begin_again(tmp_path):
    (tmp_path / "part").write_bytes(b"something else")
    with PartFile(tmp_path / "part", SHA256) as part:
        part.clear()
        part.append(CONTENT)
        assert part.is_intact()


def test_a_small_file_is_compared_with_gits_name_for_its_content(tmp_path):
    # `printf 'hello\n' | git hash-object --stdin`
    remote = RemoteFile("a", 6, "ce013625030ba8dba906f756967f9e9ca394464a")
    with PartFile(tmp_path / "part", remote) as part:
        part.append(b"hello\n")
        assert part.is_intact()
