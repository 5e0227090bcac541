"""Tokens from the host's side: made, written and looked at without a guest.

May import: testing, wire. The commands are those of SBC-3 and SPC-4, as `testing/initiator.py` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.wire.scsi.rod_token import identifier
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.server import OdxServer
    from qemu_odx.testing.initiator import Answer


class TokenRefusedError(AssertionError):
    """A token command ended with an error.

    Attributes:
        answer: status and sense data.
        fault: sense key, ASC and ASCQ; None without sense data.
    """

    def __init__(self, command: str, answer: Answer) -> None:
        key, asc, ascq = answer.fault or (0, 0, 0)
        super().__init__(f"{command}: status {answer.status:02X}h, sense {key:X}h/{asc:02X}h/{ascq:02X}h")
        self.answer = answer
        self.fault = answer.fault


@dataclass(frozen=True, slots=True)
class OdxToken:
    """A token: its 512 bytes, and what it stands for."""

    data: bytes
    disk: OdxDisk
    offset: int
    length: int

    @property
    def identifier(self) -> str:
        """What the monitor and traces call it: 16 hexadecimal digits."""
        return f"{identifier(self.data):016x}"


class OdxTokens:
    """Token commands of an initiator on the host."""

    def __init__(self, server: OdxServer) -> None:
        self._server = server

    def make(
        self, disk: OdxDisk, offset: int = 0, length: int | None = None, *, timeout: int = 0
    ) -> OdxToken:
        """POPULATE TOKEN: a token for the data as it is now.

        Args:
            disk: whose data.
            offset: first byte.
            length: bytes; None: to the end of the disk.
            timeout: inactivity time-out in seconds; 0: the server's own.

        Raises:
            TokenRefusedError: the server refuses.
            ValueError: these are no whole blocks of the disk.
        """
        length = disk.size - offset if length is None else length
        initiator = self._server.initiator()
        number = next(initiator.identifiers)
        ranges = [_range(disk, offset, length)]
        answer = initiator.populate(disk.number, ranges, identifier=number, timeout=timeout)
        if not answer.good:
            raise TokenRefusedError("POPULATE TOKEN", answer)
        token = TokenInformation.parse(initiator.information(disk.number, number).data).token
        if token is None:
            raise AssertionError(
                "RECEIVE ROD TOKEN INFORMATION has no token although POPULATE TOKEN went well"
            )
        return OdxToken(token, disk, offset, length)

    def write(
        self,
        token: OdxToken | bytes,
        disk: OdxDisk,
        offset: int = 0,
        length: int | None = None,
        *,
        token_offset: int = 0,
        delete: bool = False,
    ) -> None:
        """WRITE USING TOKEN: put a token's data on a disk.

        Args:
            token: of `make`, or 512 bytes from anywhere.
            disk: where the data goes.
            offset: first byte there.
            length: bytes; None: all that the token has from `token_offset` on.
            token_offset: byte of the token's data to begin with.
            delete: the token is of no use afterwards.

        Raises:
            TokenRefusedError: the server refuses, or the copy failed.
            ValueError: no length is given and the token's is not known, or these are no whole blocks of the disk.
        """
        data = token.data if isinstance(token, OdxToken) else token
        if length is None:
            if not isinstance(token, OdxToken):
                raise ValueError("say the length: 512 bytes do not tell it")
            length = token.length - token_offset
        answer = self._server.initiator().write_token(
            disk.number,
            data,
            [_range(disk, offset, length)],
            offset=token_offset // disk.block_size,
            delete=delete,
        )
        if not answer.good:
            raise TokenRefusedError("WRITE USING TOKEN", answer)

    def list(self) -> list[dict[str, Any]]:
        """Every live token of the server as `query-odx-tokens` of its monitor tells it, oldest first."""
        return list(self._server.execute("query-odx-tokens"))

    def revoke(self, token: OdxToken | str) -> None:
        """End a token: who uses it from now on is told 5h/23h/06h.

        Raises:
            LabError: there is no such token.
        """
        name = token if isinstance(token, str) else token.identifier
        self._server.execute("odx-token-revoke", {"token": name})


def _range(disk: OdxDisk, offset: int, length: int) -> Range:
    disk.check(offset, length)
    return Range(offset // disk.block_size, length // disk.block_size)
