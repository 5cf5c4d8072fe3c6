"""Evaluates synthesized policies as IAM does, with the headers of a request in its context.

Source: IAM user guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
Several operators or keys of one statement must all hold. Several values of one key: one must match, and
for a negated operator none. A key that the request lacks matches a negated operator and no other, but
for ``…IfExists``, which it always matches, and ``Null``.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.permissions import Statement

ANYBODY = "arn:aws:iam::123456789012:role/anybody"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request: who wants to do what, and the condition keys that AWS derives from it."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    principal: str = ANYBODY


def is_allowed(policies: Iterable[Mapping[str, Any]], request: Request) -> bool:
    """Tell whether a statement allows the request, and none denies it."""
    effects = {statement["Effect"] for statement in policies if applies(statement, request)}
    return effects == {"Allow"}


def is_denied(policies: Iterable[Mapping[str, Any]], request: Request) -> bool:
    """Tell whether a statement denies the request, whatever others allow."""
    return any(statement["Effect"] == "Deny" and applies(statement, request) for statement in policies)


def applies(statement: Mapping[str, Any], request: Request) -> bool:
    """Tell whether a statement is about a request."""
    context = {"aws:PrincipalArn": request.principal, **request.context}
    return (
        _is_about(statement.get("Principal"), request.principal)
        and _matches_any(_as_list(statement["Action"]), request.action, ignore_case=True)
        and (
            _matches_any(_as_list(statement["Resource"]), request.resource)
            if "Resource" in statement
            else not _matches_any(_as_list(statement["NotResource"]), request.resource)
        )
        and all(
            _holds(operator, value, context.get(key))
            for operator, values in statement.get("Condition", {}).items()
            for key, value in values.items()
        )
    )


def as_policy(statements: Iterable[Statement]) -> list[dict[str, Any]]:
    """Return statements as a policy has them."""
    return [
        {
            "Sid": each.sid,
            "Effect": "Deny" if each.is_denial else "Allow",
            "Action": list(each.actions),
            **({"Resource": list(each.resources)} if each.resources else {"NotResource": list(each.except_resources)}),
            "Condition": each.conditions,
        }
        for each in statements
    ]


def _is_about(principal: object, arn: str) -> bool:
    if principal is None or principal == "*":
        return True
    assert isinstance(principal, dict)
    return any(value in {"*", arn} for value in _as_list(principal.get("AWS", [])) if isinstance(value, str))


def _holds(operator: str, wanted: object, value: str | None) -> bool:
    patterns = [_format(one) for one in _as_list(wanted)]
    if operator == "Null":
        (expected,) = patterns
        return (value is None) == (expected == "true")
    base = operator.removesuffix("IfExists")
    is_negated = "Not" in base
    if value is None:
        return is_negated or operator != base
    kind = base.replace("Not", "")
    if kind in {"StringEquals", "Bool"}:
        found = value in patterns
    elif kind in {"StringLike", "ArnEquals", "ArnLike"}:
        found = _matches_any(patterns, value)
    elif kind == "NumericLessThan":
        found = any(float(value) < float(pattern) for pattern in patterns)
    else:
        raise NotImplementedError(operator)
    return found != is_negated


def _format(value: object) -> str:
    """Return a value as text; a reference to a resource by that resource's id."""
    if isinstance(value, dict):
        (target,) = value.values()
        return f"<{target[0] if isinstance(target, list) else target}>"
    return str(value)


def _matches_any(patterns: Sequence[object], text: str, *, ignore_case: bool = False) -> bool:
    return any(_compile(_format(pattern), ignore_case=ignore_case).fullmatch(text) for pattern in patterns)


@functools.cache
def _compile(pattern: str, *, ignore_case: bool) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    parts = [wildcards.get(character) or re.escape(character) for character in pattern]
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if ignore_case else re.NOFLAG))


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
