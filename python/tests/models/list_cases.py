"""Writes what pytest found as a page: every case with its result, by test, and why not.

Usage: python list_cases.py RESULT.xml...
    prints Markdown of files that pytest --junitxml wrote, a section each

A test's title, its versions and what differs by design are properties of its cases; see
test_pytorch_cases.py.  Cases without a title go under their function's name.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from typing import Dict, Iterator, List, NamedTuple, Tuple

RESULTS = ("passed", "failed", "not applicable")


class Case(NamedTuple):
    name: str
    title: str
    result: str
    reason: str  # of what didn't pass
    by_design: str  # of what passes, and differs


def read(path: str) -> Tuple[Dict[str, str], List[Case]]:
    """The versions and the cases of one file."""
    root = ElementTree.parse(path).getroot()
    versions = {}
    for found in root.iterfind("./testsuite/properties/property"):
        versions[found.get("name", "")] = found.get("value", "")
    return versions, [_case(found) for found in root.iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    function, _, parameters = element.get("name", "").partition("[")
    said = {p.get("name"): p.get("value", "") for p in element.iterfind("./properties/property")}
    result, reason = "passed", ""
    for child in element:
        if child.tag in ("failure", "error"):
            result, reason = "failed", _line(child)
        elif child.tag == "skipped" and result == "passed":
            result, reason = "not applicable", _line(child)
    title = said.get("title") or function
    name = parameters[:-1] if parameters else function
    return Case(name, title, result, reason, "" if reason else said.get("by design", ""))


def _line(element: ElementTree.Element) -> str:
    return " ".join(element.get("message", "").split())[:300]


def _text(text: str) -> str:
    """Text as itself: a table's and Markdown's own characters are escaped."""
    return "".join("\\" + c if c in "\\`*_|<>[]" else c for c in text)


def _groups(cases: List[Case]) -> Dict[str, List[Case]]:
    groups: Dict[str, List[Case]] = defaultdict(list)
    for case in cases:
        groups[case.title].append(case)
    return groups


def _counts(cases: List[Case]) -> List[int]:
    return [sum(case.result == result for case in cases) for result in RESULTS]


def _by_reason(cases: List[Case]) -> Iterator[Tuple[str, List[str]]]:
    """What is said of cases, with the names of those it is said of."""
    said: Dict[str, List[str]] = defaultdict(list)
    for case in cases:
        said[case.reason or case.by_design].append(case.name)
    yield from said.items()


def _section(title: str, cases: List[Case]) -> Iterator[str]:
    counted = ", ".join(f"{n} {what}" for n, what in zip(_counts(cases), RESULTS) if n)
    yield f"### {_text(title)}"
    yield f"\n{counted}\n"
    for result in RESULTS:
        for reason, names in _by_reason([case for case in cases if case.result == result]):
            listed = ", ".join(f"`{name}`" for name in names)
            kind = f"{result}, by design otherwise" if reason and result == "passed" else result
            yield f"- {kind}{f' ({_text(reason)})' if reason else ''}: {listed}"
    yield ""


def page(path: str) -> Iterator[str]:
    versions, cases = read(path)
    groups = _groups(cases)
    yield "## " + ", ".join(f"{name} {value}" for name, value in versions.items())
    yield ""
    yield "| cases | " + " | ".join(RESULTS) + " |"
    yield "|---|" + "---:|" * len(RESULTS)
    for title, members in groups.items():
        yield f"| {_text(title)} | " + " | ".join(map(str, _counts(members))) + " |"
    yield "| **all** | " + " | ".join(f"**{n}**" for n in _counts(cases)) + " |"
    yield ""
    for title, members in groups.items():
        yield from _section(title, members)


def main(paths: List[str]) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    for path in paths:
        print("\n".join(page(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
