"""Fuzzes the SCSI target: CDBs, parameter lists, and sequences of them over two nexuses.

By hand, for an hour, from the folder of the checkout (`pip install -e .[dev]` brings atheris):

    python tests/fuzz/fuzz_scsi.py --hour

New inputs that reach new code are kept in tests/fuzz/corpus/scsi, failing ones are written to the current folder.
Any of libFuzzer's options may be given instead, and a file replays it: `python tests/fuzz/fuzz_scsi.py crash-...`.
`scsi_sequences.py` says what must hold. In CI `test_fuzz_scsi.py` runs this for half a minute,
with the same new inputs each time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus" / "scsi"
LONGEST = 1024
"""Bytes of an input: some twenty commands."""
HOUR = ["-max_total_time=3600", "-print_final_stats=1", str(CORPUS)]

with atheris.instrument_imports(include=["qemu_odx.target", "qemu_odx.tokens", "qemu_odx.wire.scsi"]):
    from scsi_sequences import play


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    options = HOUR if sys.argv[1:] == ["--hour"] else sys.argv[1:]
    atheris.Setup([sys.argv[0], f"-max_len={LONGEST}", *options], play)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
