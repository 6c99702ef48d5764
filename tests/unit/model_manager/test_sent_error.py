import msgspec
import pytest

from ondol.errors import HubAccessPending, ModelNotFound, NoRoomYet, OndolError, PromptTooLong
from ondol.model_manager.sent_error import SentError


class OfTheTerminal(ModelNotFound):
    """A class that only one process has."""


@pytest.mark.parametrize(
    "error",
    [
        OndolError("Something."),
        ModelNotFound("없는-모델", ("없는-모델2",)),
        HubAccessPending("Wait.", "https://hub.example/a/b"),
        PromptTooLong(10, 5, param="prompt"),
        NoRoomYet("tiny", 5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_left(error):
    sent = msgspec.json.encode(SentError.of(error))
    rebuilt = msgspec.json.decode(sent, type=SentError).rebuilt()
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    left, arrived = (msgspec.json.encode(vars(one)) for one in (error, rebuilt))
    assert arrived == left


def test_a_class_that_the_other_side_does_not_have_arrives_as_the_nearest_that_it_has():
    rebuilt = SentError.of(OfTheTerminal("a")).rebuilt()
    assert type(rebuilt) is ModelNotFound
    assert rebuilt.name == "a"
