"""Uploaded and copied parts: the result is the new object, and S3 accepts every part."""

from hypothesis import given
from hypothesis import strategies as st

from lambdas.indexer.spliced.parts import Copy, Span, Write, plan_parts

LEAST = 50


def spans_of(text: str, *, size: int = 20) -> list[Span]:
    return [Span(identity=letter, size=size + ord(letter) % 7) for letter in text]


def body_of(spans: list[Span]) -> bytes:
    return b"".join((span.identity.encode() * span.size)[: span.size] for span in spans)


def apply(old: list[Span], new: list[Span], parts: list[Copy | Write]) -> tuple[bytes, list[int]]:
    bodies = [
        body_of(old)[part.start : part.stop] if isinstance(part, Copy) else body_of(new[part.first : part.last])
        for part in parts
    ]
    return b"".join(bodies), [len(body) for body in bodies]


def kinds(parts: list[Copy | Write]) -> list[str]:
    return [type(part).__name__ for part in parts]


@given(st.text("abcdefgh", max_size=25), st.text("abcdefghxyz", min_size=1, max_size=25), st.integers(60, 200))
def test_plan_parts__any_two(before: str, after: str, most: int) -> None:
    old, new = spans_of(before), spans_of(after)
    parts = plan_parts(old, new, least=LEAST, most=most)
    body, sizes = apply(old, new, parts)
    assert body == body_of(new)
    assert all(size >= LEAST for size in sizes[:-1])
    assert sizes[-1] > 0


def test_plan_parts__a_change_in_the_middle_takes_three_parts() -> None:
    before = "abcdefghijklmnopqrstuvwxyz"
    old, new = spans_of(before), spans_of(before.replace("m", "M"))
    parts = plan_parts(old, new, least=LEAST, most=1000)
    assert kinds(parts) == ["Copy", "Write", "Copy"]
    written = parts[1]
    assert isinstance(written, Write)
    assert "".join(span.identity for span in new[written.first : written.last]) == "Mno"  # extended to a part


def test_plan_parts__a_change_at_the_end_needs_no_widening() -> None:
    before = "abcdefghijklmnopqrstuvwxyz"
    parts = plan_parts(spans_of(before), spans_of(before[:-1] + "Z"), least=LEAST, most=1000)
    assert parts == [Copy(start=0, stop=sum(span.size for span in spans_of(before[:-1]))), Write(first=25, last=26)]


def test_plan_parts__a_change_near_the_beginning_takes_the_beginning_along() -> None:
    before = "abcdefghijklmnopqrstuvwxyz"
    parts = plan_parts(spans_of(before), spans_of(before.replace("b", "B")), least=LEAST, most=1000)
    assert kinds(parts) == ["Write", "Copy"]


def test_plan_parts__unknown_old_version() -> None:
    new = spans_of("abcdefghij")
    parts = plan_parts([], new, least=LEAST, most=100)
    assert set(kinds(parts)) == {"Write"}
    assert len(parts) > 1


def test_plan_parts__nothing_changed() -> None:
    spans = spans_of("abcdefghij")
    assert plan_parts(spans, spans, least=LEAST) == [Copy(start=0, stop=sum(span.size for span in spans))]
