from dataclasses import replace

import pytest
from support.header_files import published_folder, write_gptq_headers

from ondol.inspection.outline import open_outline


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The outline of a published model, from its config.json alone; GPTQ's with headers."""
    home = tmp_path_factory.mktemp("home")

    def open_published(name):
        folder = published_folder(tmp_path_factory.mktemp("published") / name, name)
        if "gptq" in name:
            write_gptq_headers(folder)
        with open_outline(str(folder), home) as outline:
            return replace(outline, has_contents=False)

    return open_published
