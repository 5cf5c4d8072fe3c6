from collections.abc import Callable
from dataclasses import replace

import pytest

from lambdas.access.changes import (
    KEPT_SECONDS,
    MAX_HISTORY,
    apply_issuer_added,
    apply_issuer_removed,
    apply_keys,
    apply_pruning,
    apply_token_created,
    apply_token_revoked,
    apply_token_rotated,
    apply_visibility,
    find_tokens,
    split_history,
)
from lambdas.access.document import (
    AccessDocument,
    Action,
    Change,
    SigningKey,
    Token,
    Visibility,
    encode_access,
    parse_access,
)
from lambdas.channel.errors import UsageError
from lambdas.channel.names import Channel
from tests.access_documents import ISSUER, KEY, NOW, make_document, make_issuer, make_secret, make_token

TOKEN = make_token(make_secret(1), "team", created=NOW)
OTHER = make_token(make_secret(2), "team", created=NOW)
NEW_KEY = SigningKey(kid="k2", n=KEY.n, e=KEY.e)

CHANGES: dict[str, Callable[[AccessDocument], AccessDocument]] = {
    "create": lambda document: apply_token_created(document, replace(OTHER, name="other")),
    "rotate": lambda document: apply_token_rotated(document, TOKEN.id, OTHER, overlap_seconds=60),
    "revoke": lambda document: apply_token_revoked(document, "ci", now=NOW, by="ada"),
    "publish": lambda document: apply_visibility(document, Channel("team"), Visibility.PUBLIC, now=NOW, by="ada"),
    "hide": lambda document: apply_visibility(document, Channel("team"), Visibility.PRIVATE, now=NOW, by="ada"),
    "trust": lambda document: apply_issuer_added(document, make_issuer("team"), now=NOW, by="ada"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_apply__twice_is_once_with_one_entry_in_the_history(name: str) -> None:
    before = make_document(TOKEN)
    once = CHANGES[name](before)
    assert once != before
    assert len(once.history) == 1
    assert CHANGES[name](once) == once


@pytest.mark.parametrize("name", CHANGES)
def test_apply__leaves_other_entries_unchanged(name: str) -> None:
    before = replace(make_document(TOKEN, keep=Visibility.PUBLIC), extra={"note": 1})
    after = CHANGES[name](before)
    assert after.extra == before.extra
    assert after.channels["keep"] == before.channels["keep"]
    assert {token.id for token in after.tokens} >= {TOKEN.id}


def test_apply_token_created__name_is_taken() -> None:
    with pytest.raises(UsageError):
        apply_token_created(make_document(TOKEN), OTHER)


@pytest.mark.parametrize("ended", [replace(TOKEN, revoked=NOW - 1), replace(TOKEN, expires=NOW)])
def test_apply_token_created__name_of_a_token_that_ended(ended: Token) -> None:
    assert apply_token_created(make_document(ended), OTHER).tokens == (ended, OTHER)


def test_apply_token_rotated__old_one_ends_after_the_overlap() -> None:
    old, new = apply_token_rotated(make_document(TOKEN), TOKEN.id, OTHER, overlap_seconds=60).tokens
    assert old == replace(TOKEN, expires=NOW + 60)
    assert new == OTHER


def test_apply_token_rotated__never_lengthens_the_old_one() -> None:
    short = replace(TOKEN, expires=NOW + 10)
    old, _ = apply_token_rotated(make_document(short), TOKEN.id, OTHER, overlap_seconds=60).tokens
    assert old.expires == NOW + 10


def test_apply_token_rotated__old_one_is_revoked() -> None:
    with pytest.raises(UsageError):
        apply_token_rotated(make_document(replace(TOKEN, revoked=NOW)), TOKEN.id, OTHER, overlap_seconds=60)


def test_apply_token_revoked__name_means_all_of_that_name() -> None:
    rotated = apply_token_rotated(make_document(TOKEN), TOKEN.id, OTHER, overlap_seconds=60)
    assert all(token.revoked == NOW for token in apply_token_revoked(rotated, "ci", now=NOW, by="ada").tokens)


def test_apply_token_revoked__id_means_that_one() -> None:
    rotated = apply_token_rotated(make_document(TOKEN), TOKEN.id, OTHER, overlap_seconds=60)
    old, new = apply_token_revoked(rotated, TOKEN.id, now=NOW, by="ada").tokens
    assert (old.revoked, new.revoked) == (NOW, None)


def test_apply_token_revoked__twice_keeps_the_first_time() -> None:
    once = apply_token_revoked(make_document(TOKEN), "ci", now=NOW, by="ada")
    assert apply_token_revoked(once, "ci", now=NOW + 9, by="eve") == once


def test_apply_token_revoked__unknown() -> None:
    with pytest.raises(UsageError):
        apply_token_revoked(make_document(TOKEN), "nobody", now=NOW, by="ada")


def test_find_tokens__id_wins_over_an_equal_name() -> None:
    impostor = replace(OTHER, name=TOKEN.id)
    assert find_tokens(make_document(impostor, TOKEN), TOKEN.id) == (TOKEN,)


def test_apply_issuer_added__second_rule_joins_the_first() -> None:
    once = apply_issuer_added(AccessDocument(), make_issuer("team"), now=NOW, by="ada")
    twice = apply_issuer_added(once, make_issuer("tools", claims={"sub": "x"}), now=NOW, by="ada")
    (issuer,) = twice.issuers
    assert [rule.scope.channels for rule in issuer.rules] == [("team",), ("tools",)]


def test_apply_issuer_removed__unknown() -> None:
    with pytest.raises(UsageError):
        apply_issuer_removed(AccessDocument(), ISSUER, now=NOW, by="ada")


def test_apply_issuer_removed__is_in_the_history() -> None:
    document = apply_issuer_removed(make_document(issuers=[make_issuer("team")]), ISSUER, now=NOW, by="ada")
    assert document.issuers == ()
    assert document.history[-1] == Change(at=NOW, by="ada", action=Action.ISSUER_REMOVED, subject=ISSUER)


def test_apply_keys__changed_keys_are_in_the_history() -> None:
    document = apply_keys(
        make_document(issuers=[make_issuer("team")]), ISSUER, [NEW_KEY], now=NOW + 9, by="key_refresher"
    )
    assert document.issuers[0].keys == (NEW_KEY,)
    assert document.issuers[0].confirmed == NOW + 9
    assert [change.action for change in document.history] == [Action.ISSUER_KEYS_CHANGED]


def test_apply_keys__same_keys_are_only_confirmed() -> None:
    document = apply_keys(make_document(issuers=[make_issuer("team")]), ISSUER, [KEY], now=NOW + 9, by="key_refresher")
    assert document.issuers[0].confirmed == NOW + 9
    assert document.history == ()


def test_apply_keys__issuer_that_was_removed_meanwhile_stays_removed() -> None:
    assert apply_keys(AccessDocument(), ISSUER, [KEY], now=NOW, by="key_refresher") == AccessDocument()


def test_apply_pruning__drops_what_ended_long_ago_alone() -> None:
    kept = [
        TOKEN,
        make_token(make_secret(3), "a", revoked=NOW - KEPT_SECONDS + 1),
        make_token(make_secret(4), "a", expires=NOW - KEPT_SECONDS + 1),
    ]
    gone = [
        make_token(make_secret(5), "a", revoked=NOW - KEPT_SECONDS),
        make_token(make_secret(6), "a", expires=NOW - KEPT_SECONDS),
    ]
    assert apply_pruning(make_document(*kept, *gone), now=NOW).tokens == tuple(kept)


def test_split_history__loses_and_duplicates_nothing() -> None:
    history = tuple(Change(at=at, by="ada", action="x", subject="y") for at in range(MAX_HISTORY + 1))
    document, archived = split_history(AccessDocument(history=history))
    assert archived + document.history == history
    assert len(document.history) == MAX_HISTORY // 2


def test_split_history__short_one_stays() -> None:
    document = AccessDocument(history=(Change(at=1, by="ada", action="x", subject="y"),) * MAX_HISTORY)
    assert split_history(document) == (document, ())


def test_history__holds_no_hash_of_a_token() -> None:
    document = apply_token_created(AccessDocument(), TOKEN)
    document = apply_token_rotated(document, TOKEN.id, OTHER, overlap_seconds=60)
    text = repr(apply_token_revoked(document, OTHER.id, now=NOW, by="ada").history)
    assert TOKEN.sha256 not in text
    assert OTHER.sha256 not in text


def test_parse_access__accepts_the_result_of_changes() -> None:
    document = make_document(TOKEN)
    for change in CHANGES.values():
        document = change(document)
    assert parse_access(encode_access(document)) == document
