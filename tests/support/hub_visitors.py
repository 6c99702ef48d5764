"""Who visits a fake Hub, and what the real one tells each of them before a gated repository."""

from dataclasses import dataclass


@dataclass
class Visitor:
    """Whom a token belongs to.

    `access` is what a gated repository is to them: "granted", "not asked", "pending", "rejected" or
    "no scope" (a fine-grained token that may not read gated repositories).
    """

    name: str = "hana"
    role: str = "read"
    token_name: str = "laptop"
    can_read_gated: bool | None = None
    access: str = "granted"


def gate(repo: str, visitor: Visitor | None) -> tuple[int, str, str]:
    """Status, code and message for somebody before a gated repository."""
    restricted = f"Access to model {repo} is restricted"
    if visitor is None:
        words = "You must have access to it and be authenticated to access it. Please log in."
        return 401, "GatedRepo", f"{restricted}. {words}"
    if visitor.access == "no scope":
        wish = "Please enable access to public gated repositories in your fine-grained token settings"
        return 403, "", f"{wish} to view this repository."
    messages = {
        "not asked": f"{restricted} and you are not in the authorized list. Visit it to ask for access.",
        "pending": f"Your request to access model {repo} is awaiting a review from the repo authors.",
        "rejected": f"Your request to access model {repo} has been rejected by the repo's authors.",
    }
    return 403, "GatedRepo", messages[visitor.access]


def whoami(visitor: Visitor) -> dict[str, object]:
    token: dict[str, object] = {"displayName": visitor.token_name, "role": visitor.role}
    if visitor.role == "fineGrained":
        token["fineGrained"] = {"canReadGatedRepos": visitor.can_read_gated, "global": [], "scoped": []}
    return {
        "type": "user",
        "id": "0",
        "name": visitor.name,
        "fullname": visitor.name.title(),
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": token},
    }
