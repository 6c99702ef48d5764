"""The web chat in a real browser: one Chromium per file, a page of its own for each test.

`stub` is a scripted daemon, `open_page` opens the page of any daemon, `chat` begins a new chat in one page
that a file's tests share. A page that logs an error, raises one, breaks its Content-Security-Policy or asks
another address than its daemon's fails its test.
"""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from support.browsers import browser_path
from support.chat_page import ChatPage
from support.stub_daemon import StubDaemon

from ondol.api.web_page import FOLDER

# The browser's own word for any answer from status 400: what the page makes of it is what tests look at.
EXPECTED_ERRORS = ("Failed to load resource",)
# How long anything may take to be seen, also where a real model answers on a machine that is busy.
DEADLINE_MS = 30_000


@dataclass
class Complaints:
    """What went wrong in one page, beside what it shows."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def watch(self, page, url):
        own = urlsplit(url).netloc

        def on_console(message):
            if message.type == "error" and not message.text.startswith(EXPECTED_ERRORS):
                self.errors.append(message.text)

        def on_request(request):
            address = urlsplit(request.url)
            if address.scheme not in {"data", "blob"} and address.netloc != own:
                self.outside.append(request.url)

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", on_request)


@pytest.fixture(scope="module")
def browser():
    """One for each file: its event loop runs while it is open, and tests of other files have their own."""
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium on the PATH; `make browser-setup` installs one where it can")
    if not (FOLDER / "vendor" / "marked.js").is_file():
        pytest.skip("the page's packages are missing; `make web-setup` installs them where npm is")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        # Tests run as root in containers, where Chromium's sandbox cannot.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened_pages(browser):
    """open_page(url, route=None, **context options) -> a page in a browser context of its own.

    `route` is what Playwright's `page.route` takes, from before the page is loaded.
    """
    opened = []

    def open_one(url, route=None, **options):
        context = browser.new_context(**({"locale": "ko-KR"} | options))
        context.set_default_timeout(DEADLINE_MS)
        page = context.new_page()
        complaints = Complaints()
        complaints.watch(page, url)
        opened.append((context, complaints))
        if route is not None:
            page.route(*route)
        page.goto(url)
        return page

    yield open_one
    for context, _ in opened:
        context.close()
    for _, complaints in opened:
        assert complaints.errors == []
        assert complaints.outside == []


open_page = pytest.fixture(opened_pages, name="open_page")
# Loading the page is what a test's time goes into: those that begin with a new chat can share one.
open_shared_page = pytest.fixture(opened_pages, name="open_shared_page", scope="module")


@pytest.fixture(scope="module")
def shared_stub():
    """What runs behind `stub`, for what a file sets up once."""
    with StubDaemon().running() as daemon:
        yield daemon


@pytest.fixture
def stub(shared_stub):
    """A scripted daemon that remembers nothing."""
    shared_stub.reset()
    return shared_stub


@pytest.fixture
def page(stub, open_page):
    """The page of `stub`, in Korean."""
    return open_page(stub.url)


@pytest.fixture(scope="module")
def shared_page(shared_stub, open_shared_page):
    return open_shared_page(shared_stub.url)


@pytest.fixture
def chat(stub, shared_page):
    """A new chat in the page that the file's tests share; `stub` answers."""
    del stub  # only to be as new as the chat
    return ChatPage(shared_page).begin()
