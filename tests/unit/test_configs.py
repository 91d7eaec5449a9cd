"""The templates of configs/: every option that exists, each explained in its place."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from bridge.params import PegParams
from pegnode.chain.parameters import ChainParams
from pegnode.consensus.parameters import ConsensusParams
from pegnode.genesis import Template, parse_template
from tests.support.chain import CONFIGS

TEMPLATES = sorted(CONFIGS.glob("*.toml"))
SECTIONS = {"peg": PegParams, "chain": ChainParams, "consensus": ConsensusParams}


def _options() -> list[tuple[str, ...]]:
    """Every option of a template."""
    top = [(name,) for name in Template.__struct_fields__ if name not in SECTIONS]
    return top + [(section, field.name) for section, kind in SECTIONS.items() for field in fields(kind)]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_has_every_option_and_explains_it_on_its_line(path: Path) -> None:
    document = parse_template(path.read_text())
    Template.from_table(document.table)
    lines = path.read_text().splitlines()
    for option, line in zip(_options(), document.lines_of(_options()), strict=True):
        assert line is not None
        text = lines[line - 1]
        assert text.startswith(f"{option[-1]} = "), text
        assert re.search(r" # \S.{7,}", text), f"{path.name}:{line} says nothing of {option[-1]}"


def test_there_are_templates_to_look_at() -> None:
    assert {path.stem for path in TEMPLATES} >= {"local", "federation-15"}
