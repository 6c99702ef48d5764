"""The web chat's files: who gets them, with which headers, and what they never stand in the way of."""

import pytest
from starlette.routing import Match
from support.fake_model import FakeModel
from support.front_door import is_openai_error, open_front_door

from ondol.api.web_page import FOLDER, MEDIA_TYPES, NOT_SERVED, WebPage

pytestmark = pytest.mark.anyio


@pytest.fixture
def page(tmp_path):
    (tmp_path / "view").mkdir()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>", encoding="utf-8")
    (tmp_path / "view" / "app.js").write_text("export {};", encoding="utf-8")
    for hidden in ("package.json", "node_modules/x.js", ".secret.js", "README.md"):
        (tmp_path / hidden).write_text("{}", encoding="utf-8")
    (tmp_path.parent / "outside.js").write_text("", encoding="utf-8")
    return WebPage(tmp_path)


def page_paths():
    """The URL paths of all files of the real page."""
    files = (file.relative_to(FOLDER) for file in FOLDER.rglob("*") if file.suffix in MEDIA_TYPES)
    return ["/" + file.as_posix() for file in files if not NOT_SERVED & set(file.parts)]


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/", "text/html"), ("/index.html", "text/html"), ("/view/app.js", "text/javascript")],
)
def test_files_of_the_page_are_found_with_their_kind(page, path, media_type):
    assert page.find(path).media_type.startswith(media_type)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/view",
        "/view/",
        "/view/none.js",
        "/package.json",
        "/README.md",
        "/.secret.js",
        "/node_modules/x.js",
        "/../outside.js",
        "/view/../index.html",
        "/view//app.js",
        "/view\\app.js",
        "/C:/app.js",
        "/view/app.js\0",
        "view/app.js",
        "/앱.js",
    ],
)
def test_nothing_else_is_found(page, path):
    assert page.find(path) is None


async def test_the_page_runs_only_its_own_code_and_is_asked_after_each_time(model: FakeModel):
    async with open_front_door(model).client() as client:
        answer = await client.get("/")
        again = await client.get("/", headers={"if-none-match": f'"other", W/{answer.headers["etag"]}'})
        head = await client.head("/")
    assert answer.status_code == head.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == policy


async def test_every_file_of_the_page_is_read_without_a_key_and_opens_nothing_else(model: FakeModel):
    door = open_front_door(model, api_keys=("secret-key",))
    async with door.client() as client:
        for path in ["/", *page_paths()]:
            assert (await client.get(path)).status_code == 200, path
        assert (await client.post("/")).status_code == 401
        assert (await client.get("/nothing.js")).status_code == 401
        assert (await client.get("/v1/models")).status_code == 401


async def test_no_file_of_the_page_lies_where_a_route_answers(model: FakeModel):
    *routes, page = open_front_door(model).app.router.routes
    assert isinstance(page, WebPage)
    for path in ["/", *page_paths()]:
        for method in ("GET", "HEAD"):
            scope = {"type": "http", "method": method, "path": path, "headers": []}
            assert all(route.matches(scope)[0] is not Match.FULL for route in routes), path


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/nothing.js", 404),
        ("POST", "/", 404),
        ("GET", "/v1/completions", 405),
    ],
)
async def test_other_paths_stay_the_apis(model: FakeModel, method: str, path: str, status: int):
    async with open_front_door(model).client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert is_openai_error(answer)


async def test_the_page_can_be_switched_off(model: FakeModel):
    async with open_front_door(model, web=False).client() as client:
        answer = await client.get("/")
    assert answer.status_code == 404
    assert is_openai_error(answer)
