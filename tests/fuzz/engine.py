"""One target under atheris, until it is told to end or finds something. `tests.fuzz.__main__` starts this.

usage: python -m tests.fuzz.engine TARGET CORPUS_DIRECTORY FINDINGS_DIRECTORY
"""

import sys
from pathlib import Path

import atheris

INSTRUMENTED = ["bitcoin", "bridge", "federation", "pegnode"]
SECONDS_PER_INPUT = 10
MEMORY_MB = 1_536
"""Of the whole process: an input of at most `max_bytes` has no business with more."""


def main() -> None:
    """Seed the corpus, and fuzz."""
    name, corpus, findings = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import load

        target = load(name)
        kept = target.corpus() if target.corpus_path.exists() else []
        for index, data in enumerate([*target.seeds(), *kept]):
            (corpus / f"seed-{index}").write_bytes(data)

    def test_one_input(data: bytes) -> None:
        target.check(data)

    options = [
        f"-max_len={target.max_bytes}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
